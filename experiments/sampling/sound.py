"""Between sound and codes: a prompt's codes, and a song's sound piece by piece."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipeline import audio
from jukejax.config import ConfigError
from jukejax.model_dir import LoadedVQVAE
from jukejax.models import vqvae

PIECE_SECONDS = 4  # decoded at once, beside the overlap

Read = Callable[[int, int], np.ndarray]
_decode = jax.jit(vqvae.decode, static_argnums=(0, 4))


def encoder(model: LoadedVQVAE, piece_seconds: float) -> Callable[[Read, int], list[np.ndarray]]:
    """A function from a sound of any length to its codes, (n,) a level, bottom first.

    It takes a function from (start, stop) to those samples (n,), and the number of samples; n may
    fall short at the end, where silence fills up whole top codes. Windows overlap by what a code
    can see, so the codes are those of the whole at once, in memory that does not grow with it.
    """
    config, top = model.config, model.config.hops[-1]
    levels = range(config.levels)
    reach = max(vqvae.encoder_reach(config, level) for level in levels)
    piece = max(1, int(piece_seconds * config.sample_rate) // top) * top

    @jax.jit
    def encode(params: Any, books: Any, sound: jax.Array) -> list[jax.Array]:
        return [vqvae.encode(config, params, books, sound, i) for i in levels]

    def run(read: Read, n_samples: int) -> list[np.ndarray]:
        def window(start: int, stop: int) -> list[np.ndarray]:
            samples = read(start, min(stop, n_samples))
            sound = np.zeros((1, stop - start, 1), np.float32)
            sound[0, : len(samples), 0] = samples
            return [np.asarray(z)[0] for z in encode(model.params, model.books, sound)]

        length = -(-n_samples // top) * top
        parts = vqvae.piecewise(window, length, piece, reach)
        return [
            np.concatenate([z[i][first // hop : last // hop] for first, last, z in parts])
            for i, hop in enumerate(config.hops)
        ]

    return run


def prompt_codes(model: LoadedVQVAE, path: Path, seconds: float) -> list[np.ndarray]:
    """Codes (n,) a level, bottom first, of the first seconds of a file (0: of all of it).

    The mean of its channels at the model's rate, cut to whole top codes: lower levels are primed
    with true codes too.

    Raises:
      DataError: the file is no sound, or is silent.
      ConfigError: it is shorter than asked for, or than one top code.
    """
    rate, top = model.config.sample_rate, model.config.hops[-1]
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"prompt_seconds is {seconds}; it must be 0 (all) or more.")
    blocks = audio.decode(path, min_seconds=max(seconds, top / rate), sample_rate=rate)
    pcm = np.concatenate([block.mean(1, dtype=np.float32) / 32768.0 for block in blocks])
    wanted = round(seconds * rate) if seconds else len(pcm)
    n_samples = min(wanted, len(pcm)) // top * top
    if not n_samples:
        raise ConfigError(
            f"prompt_seconds is {seconds}; one code of the top level is {top} samples."
        )
    return encoder(model, PIECE_SECONDS)(lambda start, stop: pcm[start:stop], n_samples)


def decode(model: LoadedVQVAE, codes: np.ndarray, level: int) -> Iterator[np.ndarray]:
    """Codes (N, T) of a level -> audio in consecutive pieces (N, n) float32, clipped; exactly.

    The pieces are the decoded whole's: windows overlap by what a sample depends on.
    """
    hop = model.config.hops[level]
    reach = vqvae.decoder_reach(model.config, level)
    piece = max(1, PIECE_SECONDS * model.config.sample_rate // hop)
    plan = vqvae.piecewise(lambda start, stop: (start, stop), codes.shape[1], piece, reach)
    for first, last, (start, stop) in plan:
        window = codes[:, start:stop].astype(np.int32)
        part = np.asarray(_decode(model.config, model.params, model.books, window, level))
        yield np.clip(part[:, first * hop : last * hop, 0], -1.0, 1.0)
