"""Runs of ours as the tensors and settings of OpenAI's release, read leaf by leaf."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jukejax import checkpoint
from jukejax.checkpoint import Checkpoints
from jukejax.config import Experiment, VQVAEExperiment
from jukejax.interop import openai, openai_settings, torch_files
from jukejax.interop.openai import BOOKS, Entry
from jukejax.interop.tensors import Array, Source
from jukejax.model_dir import load_experiment
from jukejax.training.step import abstract_state
from jukejax.training.tasks import make_task


@dataclass(frozen=True)
class Exported:
    """A run's averaged weights by OpenAI's names; a source reads its leaf when asked."""

    experiment: Experiment
    sources: dict[str, Source]
    shared: dict[str, str]  # names that are the same tensor as another
    hps: dict[str, Any]
    step: int
    origin: Mapping[str, Any]  # what an imported run came from, or empty


class _Leaves:
    """The leaves of a run, of which the last one read stays in memory."""

    def __init__(self, read: Callable[[tuple[str, ...]], Array], books: list[Array]) -> None:
        self._read, self._books = read, books
        self._last: tuple[Any, Array] = (None, np.empty(0))

    def __call__(self, path: tuple[str, ...]) -> Array:
        if path[0] == BOOKS:
            return self._books[int(path[1])]
        if self._last[0] != path:
            self._last = (None, np.empty(0))  # let go of one before the next is read
            self._last = (path, self._read(path))
        return self._last[1]


@contextmanager
def open_run(workdir: str | Path, mesh: jax.sharding.Mesh) -> Iterator[Exported]:
    """A run's weights. An imported run has the dtypes and settings that it came from."""
    experiment, note = load_experiment(workdir)
    origin = note.get("origin") or {}
    hps = _tuples(origin["hps"]) if origin.get("hps") else openai_settings.settings(experiment)
    config = experiment.model
    vq = isinstance(experiment, VQVAEExperiment)
    entries = openai.table(config, openai_settings.blocks_name(hps))
    half = set(origin.get("float16", ()))
    with checkpoint.open_existing(workdir) as checkpoints, checkpoints.ema_leaves() as read:
        leaves = _Leaves(read, _books(checkpoints, experiment, mesh) if vq else [])
        shapes = openai.leaf_shapes(config)
        sources = {
            name: Source(
                openai.tensor_shape(entry, shapes[entry.path]),
                "<f2" if name in half else "<f4",
                _reader(leaves, entry, i),
            )
            for entry in entries
            for i, name in enumerate(entry.names)
        }
        shared = openai.shared(config)
        yield Exported(experiment, sources, shared, hps, note["step"] or 0, origin)


def write_openai(exported: Exported, path: str | Path) -> None:
    """Writes a file in OpenAI's layout."""
    torch_files.write(path, exported.sources, exported.shared, exported.hps, exported.step)


def _books(
    checkpoints: Checkpoints, experiment: Experiment, mesh: jax.sharding.Mesh
) -> list[Array]:
    state = abstract_state(make_task(experiment), experiment, mesh)
    extra = checkpoints.restore({"extra": state.extra})["extra"]
    return [np.asarray(book.codes) for book in extra.books]


def _reader(leaves: _Leaves, entry: Entry, index: int) -> Any:
    return lambda: openai.scatter(entry, leaves(entry.path), index)


def _tuples(hps: Mapping[str, Any]) -> dict[str, Any]:
    """Settings out of JSON: the lists were tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in hps.items()}
