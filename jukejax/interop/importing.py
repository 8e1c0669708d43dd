"""Checkpoints of other projects as runs of ours, bit for bit.

An imported run is one that can be sampled from, measured and started from: it has the averaged
weights (`ema`; the published weights are averages), `extra` and `config`. Its note keeps under
"origin" what our trees do not hold: the file's settings, which tensors were float16, its SHA-256.
Leaves keep the file's dtype and are gathered in memory maps, so a model may be larger than memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jukejax import presets
from jukejax.config import (
    Experiment,
    PriorConfig,
    PriorExperiment,
    VQVAEConfig,
    VQVAEExperiment,
    to_dict,
)
from jukejax.errors import InteropError
from jukejax.interop import openai, openai_settings
from jukejax.interop.openai import BOOKS, Entry
from jukejax.interop.tensors import Array, Checkpoint
from jukejax.model_dir import fingerprint
from jukejax.models.bottleneck import restored_book
from jukejax.training import checkpoint
from jukejax.training.losses import Bandwidth
from jukejax.training.tasks import VQVAEExtra

_DTYPES = (np.dtype(np.float32), np.dtype(np.float16))


@dataclass(frozen=True)
class Opened:
    """A checked file: its model, and the table that reads it."""

    file: Checkpoint
    experiment: Experiment
    entries: list[Entry]

    def leaf(self, entry: Entry, scratch: Path | None = None) -> Array:
        """One of our arrays; in float16 where all its tensors are, else in float32.

        Args:
          scratch: a folder that gets the array as a file, if it is not to lie in memory.
        """
        return openai.gather(entry, self.file.tensors, scratch)


def open_vqvae(file: Checkpoint, experiment: VQVAEExperiment | None = None) -> Opened:
    """A VQ-VAE's file, checked; `experiment` where the file holds no settings.

    Raises:
      InteropError: it is not the VQ-VAE that its settings describe.
    """
    if experiment is None:
        hps = _settings(file)
        experiment = openai_settings.vqvae_experiment(hps, str(file.path))
    return _opened(file, experiment)


def open_prior(
    file: Checkpoint, vqvae: VQVAEExperiment, experiment: PriorExperiment | None = None
) -> Opened:
    """A prior's file, checked; `experiment` where the file holds no settings.

    Raises:
      InteropError: it is not the prior that its settings describe.
    """
    if experiment is None:
        hps = _settings(file)
        table = file.tensors.get("prior.x_emb.weight")
        rows = table.shape[0] if table and table.shape else 0
        config = openai_settings.prior_config(hps, vqvae.model, rows, str(file.path))
        experiment = PriorExperiment(config)
    return _opened(file, experiment)


def _settings(file: Checkpoint) -> dict[str, Any]:
    if file.hps is not None:
        return file.hps
    alike = recognised(file)
    hint = (
        f"its tensors are those of {' or '.join(alike)}" if alike else "no preset has its tensors"
    )
    raise InteropError(f"{file.path} holds no settings; name the preset that it is ({hint}).")


def recognised(file: Checkpoint) -> list[str]:
    """Presets whose tensors have the names and shapes of a file's."""
    found = {name: tensor.shape for name, tensor in file.tensors.items()}
    sized = [name for name in presets.PRESETS if openai.has_sizes(presets.get(name).model)]
    return [name for name in sized if openai.preset_tensors(name) == found]


def shapes(
    config: VQVAEConfig | PriorConfig, where: str, blocks: str = "blocks"
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model that settings from outside describe.

    Args:
      blocks: as in `openai.prior_entries`.

    Raises:
      InteropError: they describe none: a number is negative, or far too large.
    """
    try:
        return openai.expected(config, openai.table(config, blocks))
    except (ArithmeticError, TypeError, ValueError) as error:  # of JAX, which traces the model
        first = str(error).split("\n")[0]
        raise InteropError(f"The settings in {where} describe no model: {first}") from error


def _opened(file: Checkpoint, experiment: Experiment) -> Opened:
    config, blocks = experiment.model, openai_settings.blocks_name(file.hps or {})
    found = {name: tensor.shape for name, tensor in file.tensors.items()}
    openai.check(str(file.path), shapes(config, str(file.path), blocks), found)
    odd = [n for n, t in file.tensors.items() if t.dtype not in _DTYPES]
    if odd:
        raise InteropError(f"{file.path}: {', '.join(odd)} are neither float32 nor float16.")
    for name, other in openai.shared(config).items():
        a, b = file.tensors[name], file.tensors[other]
        if a != b and not np.array_equal(a.read(), b.read()):
            raise InteropError(
                f"{file.path}: {name} differs from {other}, but by its settings they are one; the "
                "file is damaged, or its merged_decoder is wrong."
            )
    return Opened(file, experiment, openai.table(config, blocks))


def vqvae_trees(opened: Opened) -> tuple[Any, VQVAEExtra]:
    """Parameters and state of a VQ-VAE. Its loudness is not in the file and becomes 1."""
    experiment = opened.experiment
    assert isinstance(experiment, VQVAEExperiment)
    leaves = {entry.path: opened.leaf(entry) for entry in opened.entries}
    books = []
    for level, hop in enumerate(experiment.model.hops):
        tokens = experiment.samples // hop * experiment.train.batch
        books.append(restored_book(jnp.asarray(leaves.pop((BOOKS, str(level)))), tokens))
    one = jnp.ones((), jnp.float32)
    return openai.nested(leaves), VQVAEExtra(tuple(books), Bandwidth(one, one, one))


def prior_params(opened: Opened, scratch: Path | None = None) -> Any:
    """Parameters of a prior."""
    entries = tqdm(opened.entries, desc=f"read {opened.file.path.name}", unit="leaf")
    return openai.nested({entry.path: opened.leaf(entry, scratch) for entry in entries})


def save_vqvae(opened: Opened, workdir: str | Path, origin: Mapping[str, Any]) -> str:
    """Writes a VQ-VAE as a run; returns the fingerprint of its codes.

    Args:
      origin: format and digest of what it was read from, kept in the run's note.
    """
    params, extra = vqvae_trees(opened)
    note = {"origin": _origin(opened, origin), "loudness": "unknown"}
    _save(opened, workdir, {"ema": params, "extra": extra}, note)
    config: Any = opened.experiment.model
    whole = openai.as_float32(params)
    return fingerprint(config, whole, extra.books)


def save_prior(
    opened: Opened, workdir: str | Path, origin: Mapping[str, Any], note: Mapping[str, Any]
) -> None:
    """Writes a prior as a run.

    Args:
      origin: as in `save_vqvae`.
      note: what else the run's note says: the fingerprint of its codes, the digest of its labels.
    """
    place = Path(workdir)
    place.mkdir(parents=True)
    whole = {"origin": _origin(opened, origin), **note}
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=place) as scratch:
        _save(opened, place, {"ema": prior_params(opened, Path(scratch))}, whole)


def _origin(opened: Opened, origin: Mapping[str, Any]) -> dict[str, Any]:
    half = [n for n, t in opened.file.tensors.items() if t.dtype == np.float16]
    return {**origin, "hps": opened.file.hps, "float16": sorted(half)}


def _save(opened: Opened, workdir: str | Path, trees: dict[str, Any], note: dict) -> None:
    config = {"experiment": to_dict(opened.experiment), **note}
    checkpoint.save_mapped(workdir, opened.file.step, trees, config)
