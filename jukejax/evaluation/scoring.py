"""Bits of tokens under a prior, window by window, and their sums by song and by position.

Bits are -log2 of the probability that the prior gives a token after those before it in its window.
A batch is what the prior reads; it may also have the keys in `EXTRA`, which are not passed to the
prior. B batch, T tokens of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from jukejax.config import PriorConfig
from jukejax.errors import CheckpointError
from jukejax.models.prior import token_bits
from jukejax.parallel.mesh import COMPUTE, HostBatch, host_rows, put_batch, replicated

Scorer = Callable[[HostBatch], NDArray[np.float64]]
CountBits = Callable[[NDArray[Any]], Mapping[str, NDArray[np.float64]]]
EXTRA = ("valid", "song", "place", "counted")
POSITIONS = 64  # points of the curve over a window, at most


def make_scorer(config: PriorConfig, params: Any, mesh: Mesh) -> Scorer:
    """A function from a batch to the bits (B, T) float64 of its music tokens.

    B must be a multiple of the devices that the mesh splits a batch over. With several processes
    each is given the whole batch and gets all bits.

    Raises (the function):
      CheckpointError: bits are not finite.
    """

    def program(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
        with nn.logical_axis_rules(list(COMPUTE)):
            return token_bits(config, params, batch)["music"]

    jitted = jax.jit(program, out_shardings=replicated(mesh))

    def scorer(batch: HostBatch) -> NDArray[np.float64]:
        rows = host_rows(mesh, len(batch["codes"]))
        own = {name: array[rows] for name, array in batch.items() if name not in EXTRA}
        with jax.set_mesh(mesh):
            bits = np.asarray(jitted(params, put_batch(mesh, own)), np.float64)
        if not np.isfinite(bits).all():
            raise CheckpointError(
                f"The prior of level {config.level} gives bits that are not finite on held-out "
                "codes: its weights are damaged or its training diverged; go back to an earlier "
                "checkpoint."
            )
        return bits

    return scorer


def score_all(scorer: Scorer, windows: HostBatch, batch: int) -> NDArray[np.float64]:
    """Bits (N, T) of any number N of windows, `batch` at a time."""
    count, bits = len(windows["codes"]), []
    for first in range(0, count, batch):
        rows = np.minimum(np.arange(first, first + batch), count - 1)  # padded with the last one
        bits.append(scorer({name: array[rows] for name, array in windows.items()}))
    return np.concatenate(bits)[:count]


def by_song(bits: NDArray[np.float64], song: NDArray[Any]) -> dict[str, list[float]]:
    """[bits, tokens] of each song of windows: bits (N, T), song (N,) by its index."""
    return {
        str(index): [float(bits[song == index].sum()), float(bits[song == index].size)]
        for index in np.unique(song).tolist()
    }


def sums(scorer: Scorer, counting: CountBits, batches: Iterable[HostBatch]) -> dict[str, Any]:
    """Sums over windows, as JSON; `add` adds two of them.

    Args:
      scorer: as `make_scorer` gives it.
      counting: from codes (B, T) to the bits by counting model.
      batches: with "valid" (B,) bool, rows that count, and "song" (B,) int.

    Returns:
      By model ("prior" and those of `counting`): "songs", [bits, tokens] by the song's index, and
      "positions", bits at each position of a window. And "windows", how many.
    """
    total: dict[str, Any] = {"windows": 0, "models": {}}
    for batch in batches:
        valid = batch["valid"]
        models = {"prior": scorer(batch)[valid], **counting(batch["codes"][valid])}
        part = {
            "windows": int(valid.sum()),
            "models": {
                name: {
                    "songs": by_song(bits, batch["song"][valid]),
                    "positions": bits.sum(0).tolist(),
                }
                for name, bits in models.items()
            },
        }
        total = add(total, part)
    return total


def add(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two of `sums` as one."""
    models = {}
    for name in first["models"] | second["models"]:
        a, b = (s["models"].get(name, {"songs": {}, "positions": []}) for s in (first, second))
        songs = {
            song: np.add(a["songs"].get(song, [0, 0]), b["songs"].get(song, [0, 0])).tolist()
            for song in a["songs"] | b["songs"]
        }
        both = [np.array(s["positions"]) for s in (a, b) if s["positions"]]
        models[name] = {"songs": songs, "positions": np.sum(both, axis=0).tolist()}
    return {"windows": first["windows"] + second["windows"], "models": models}


def mean(songs: Mapping[str, Iterable[float]]) -> float:
    """Bits per token of [bits, tokens] by song."""
    bits, tokens = np.sum([list(pair) for pair in songs.values()], axis=0)
    return float(bits / tokens)


def curve(positions: list[float], windows: int) -> dict[str, list[float]]:
    """Bits per token along a window: means over at most `POSITIONS` stretches, and where they end.

    Args:
      positions: sums over `windows` windows at each of T positions.
    """
    parts = np.array_split(np.array(positions) / windows, min(POSITIONS, len(positions)))
    return {
        "until": np.cumsum([len(part) for part in parts]).tolist(),
        "bits": [float(part.mean()) for part in parts],
    }
