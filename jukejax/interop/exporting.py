"""Runs of ours as the tensors and settings of OpenAI's release, read leaf by leaf."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jukejax import files
from jukejax.config import MeshConfig, VQVAEExperiment
from jukejax.interop import openai, openai_settings, torch_files
from jukejax.interop.importing import check_out
from jukejax.interop.openai import BOOKS, Entry, Published
from jukejax.interop.tensors import Array, Source
from jukejax.model_dir import read_model_dir
from jukejax.parallel.mesh import make_mesh
from jukejax.training import checkpoint
from jukejax.training.checkpoint import LeafPath, load_experiment
from jukejax.training.step import abstract_state
from jukejax.training.tasks import make_task

_TOGETHER = 1 << 28  # bytes of leaves that are read at once: each read costs a tenth of a second


@dataclass(frozen=True)
class Exported:
    """A run's averaged weights by OpenAI's names; each source reads its leaf when asked."""

    experiment: Published
    sources: dict[str, Source]
    shared: dict[str, str]  # names of the same tensor as another
    hps: dict[str, Any]
    step: int
    origin: Mapping[str, Any]  # of an imported run: what it came from; else empty


@contextmanager
def open_leaves(
    workdir: str | Path, shapes: Mapping[LeafPath, tuple[int, ...]]
) -> Iterator[Callable[[LeafPath], Array]]:
    """A function that reads a run's averaged parameters, in the dtypes they are stored in.

    Args:
      shapes: of the leaves, in the order in which they will be asked for.
    """
    groups: list[list[LeafPath]] = []
    size = _TOGETHER
    for path, shape in shapes.items():
        size += 4 * math.prod(shape)
        if size > _TOGETHER:
            groups.append([])
            size = 4 * math.prod(shape)
        groups[-1].append(path)
    group_of = {path: group for group in groups for path in group}
    loaded: dict[LeafPath, Array] = {}
    with checkpoint.open_existing(workdir) as checkpoints, checkpoints.ema_reader() as read:

        def leaf(path: LeafPath) -> Array:
            if path not in loaded:
                loaded.clear()  # before the next are read
                loaded.update(zip(group_of[path], read(group_of[path]), strict=True))
            return loaded[path]

        yield leaf


@contextmanager
def open_run(workdir: str | Path) -> Iterator[Exported]:
    """A run's weights. An imported run has the dtypes and settings that it came with."""
    experiment, note = load_experiment(workdir)
    experiment = openai.published(experiment, workdir)
    origin = note.get("origin") or {}
    hps = _tuples(origin["hps"]) if origin.get("hps") else openai_settings.settings(experiment)
    config = experiment.model
    entries = openai.table(config, openai_settings.blocks_name(hps))
    half = set(origin.get("float16", ()))
    shapes = openai.leaf_shapes(config)
    books = _books(workdir, experiment) if isinstance(experiment, VQVAEExperiment) else []
    ordered = {entry.path: shapes[entry.path] for entry in entries if entry.path[0] != BOOKS}
    with open_leaves(workdir, ordered) as leaf:
        sources = {
            name: Source(
                openai.tensor_shape(entry, shapes[entry.path]),
                "<f2" if name in half else "<f4",
                _reader(leaf, books, entry, i),
            )
            for entry in entries
            for i, name in enumerate(entry.names)
        }
        shared = openai.shared(config)
        yield Exported(experiment, sources, shared, hps, note["step"] or 0, origin)


def _books(workdir: str | Path, experiment: Published) -> list[Array]:
    state = abstract_state(make_task(experiment), experiment, make_mesh(MeshConfig()))
    with checkpoint.open_existing(workdir) as checkpoints:
        extra = checkpoints.restore({"extra": state.extra})["extra"]
    return [np.asarray(book.codes) for book in extra.books]


def _reader(
    leaf: Callable[[LeafPath], Array], books: list[Array], entry: Entry, index: int
) -> Callable[[], Array]:
    if entry.path[0] == BOOKS:
        return lambda: books[int(entry.path[1])]
    return lambda: openai.scatter(entry, leaf(entry.path), index)


def _tuples(hps: Mapping[str, Any]) -> dict[str, Any]:
    """Settings out of JSON, whose lists were tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in hps.items()}


def export_openai(model: Path, out: Path) -> None:
    """Writes a model directory's runs as vqvae.pth.tar and prior_level_N.pth.tar in `out`.

    Raises:
      InteropError: `out` is not empty, or OpenAI's format does not support a prior.
    """
    check_out(out)
    folder = read_model_dir(model)
    runs = {"vqvae": folder.vqvae}
    runs |= {f"prior_level_{level}": workdir for level, workdir in folder.priors.items()}
    with files.atomic_folder(out) as written:
        for name, workdir in runs.items():
            with open_run(workdir) as run:
                path = written / f"{name}.pth.tar"
                torch_files.write(path, run.sources, run.shared, run.hps, run.step)
    for path in sorted(out.iterdir(), reverse=True):
        print(f"{path}: sha256 {torch_files.sha256(path)}")
