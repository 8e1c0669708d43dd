"""Runs of ours as the tensors and settings of OpenAI's release, read leaf by leaf."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jukejax.config import Experiment, VQVAEExperiment
from jukejax.interop import openai, openai_settings, torch_files
from jukejax.interop.openai import BOOKS, Entry
from jukejax.interop.tensors import Array, Source
from jukejax.training import checkpoint
from jukejax.training.checkpoint import LeafPath, load_experiment
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


_TOGETHER = 1 << 28  # bytes of leaves that are read at once


class _Leaves:
    """The leaves of a run in the order of its table; the last ones read stay in memory."""

    def __init__(
        self, read: Callable[[Sequence[LeafPath]], list[Array]], sizes: Mapping[LeafPath, int]
    ) -> None:
        self._read, self._sizes = read, sizes
        self._held: dict[LeafPath, Array] = {}

    def __call__(self, path: LeafPath) -> Array:
        if path not in self._held:
            self._held = {}  # let go of these before the next are read
            order = list(self._sizes)
            paths: list[LeafPath] = []
            total = 0
            for one in order[order.index(path) :]:
                total += self._sizes[one]
                if paths and total > _TOGETHER:
                    break
                paths.append(one)
            self._held = dict(zip(paths, self._read(paths), strict=True))
        return self._held[path]


@contextmanager
def open_leaves(
    workdir: str | Path, shapes: Mapping[LeafPath, tuple[int, ...]]
) -> Iterator[Callable[[LeafPath], Array]]:
    """A function that reads a run's averaged parameters one by one, in the dtypes they have there.

    Args:
      shapes: of the leaves, in the order in which they will be asked for.
    """
    sizes = {path: 4 * math.prod(shape) for path, shape in shapes.items()}
    with checkpoint.open_existing(workdir) as checkpoints, checkpoints.ema_reader() as read:
        yield _Leaves(read, sizes)


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
    shapes = openai.leaf_shapes(config)
    books = _books(workdir, experiment, mesh) if vq else []
    ordered = {entry.path: shapes[entry.path] for entry in entries if entry.path[0] != BOOKS}
    with open_leaves(workdir, ordered) as leaves:
        sources = {
            name: Source(
                openai.tensor_shape(entry, shapes[entry.path]),
                "<f2" if name in half else "<f4",
                _reader(leaves, books, entry, i),
            )
            for entry in entries
            for i, name in enumerate(entry.names)
        }
        shared = openai.shared(config)
        yield Exported(experiment, sources, shared, hps, note["step"] or 0, origin)


def write_openai(exported: Exported, path: str | Path) -> None:
    """Writes a file in OpenAI's layout."""
    torch_files.write(path, exported.sources, exported.shared, exported.hps, exported.step)


def _books(workdir: str | Path, experiment: Experiment, mesh: jax.sharding.Mesh) -> list[Array]:
    state = abstract_state(make_task(experiment), experiment, mesh)
    with checkpoint.open_existing(workdir) as checkpoints:
        extra = checkpoints.restore({"extra": state.extra})["extra"]
    return [np.asarray(book.codes) for book in extra.books]


def _reader(
    leaves: Callable[[LeafPath], Array], books: list[Array], entry: Entry, index: int
) -> Callable[[], Array]:
    if entry.path[0] == BOOKS:
        return lambda: books[int(entry.path[1])]
    return lambda: openai.scatter(entry, leaves(entry.path), index)


def _tuples(hps: Mapping[str, Any]) -> dict[str, Any]:
    """Settings out of JSON: the lists were tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in hps.items()}
