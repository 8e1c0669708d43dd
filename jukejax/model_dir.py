"""Model directories: a `model.json` that names a VQ-VAE, its priors by level, and label names.

    {"vqvae": "../vqvae", "priors": {"2": "../prior", ...}, "labels": "labels.json",
     "renderer": "../renderer"}

"renderer" may be missing, and "labels" may name a file a level instead, as "priors" does:
{"2": "labels_v3.json", ...}. Paths are relative to the file and lead to workdirs of runs; the
averaged weights of the latest checkpoint are what is loaded.

A packed model is a model directory that is complete in itself: files of `jukejax.training.packed`
in place of workdirs, label names, a model card, and in `model.json` "files", the SHA-256 of each.
Those in `SHIPPED`, which come with the package, are found by name.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jukejax import files, stored
from jukejax.config import (
    Experiment,
    PriorConfig,
    PriorExperiment,
    RendererConfig,
    RendererExperiment,
    VQVAEConfig,
    VQVAEExperiment,
    model_kind,
    to_dict,
)
from jukejax.errors import CheckpointError, JukejaxError
from jukejax.models.bottleneck import Codebook
from jukejax.training import packed
from jukejax.training.adversarial import RENDERER
from jukejax.training.checkpoint import load_experiment, open_existing
from jukejax.training.step import abstract_state
from jukejax.training.tasks import make_task

NAME = packed.MODEL
SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True)
class LoadedVQVAE:
    """A VQ-VAE in memory; `fingerprint` identifies its weights and codebooks."""

    config: VQVAEConfig
    params: Any
    books: tuple[Codebook, ...]
    step: int
    fingerprint: str


@dataclass(frozen=True)
class LoadedPrior:
    """A prior in memory; `fingerprint` is of the VQ-VAE whose codes it was trained on."""

    config: PriorConfig
    params: Any
    step: int
    fingerprint: str


@dataclass(frozen=True)
class LoadedRenderer:
    """A renderer in memory, and the codes that it renders."""

    config: RendererConfig
    params: Any
    book: jax.Array  # (K, E) the codes of its level
    step: int
    weights: str  # of `weights_name`


@dataclass(frozen=True)
class LoadedModel:
    """A model directory with its VQ-VAE in memory; the rest is loaded when it is needed."""

    directory: ModelDir
    vqvae: LoadedVQVAE
    mesh: Mesh

    @functools.cached_property
    def renderer(self) -> LoadedRenderer:
        """The renderer, checked as by `ModelDir.checked_renderer`."""
        return self.directory.load_renderer(self.mesh, self.vqvae)


def _load(workdir: str | Path, mesh: Mesh, kind: type) -> tuple[Any, dict[str, Any], Any, int]:
    experiment, note = load_experiment(workdir)
    if not isinstance(experiment, kind):
        raise CheckpointError(
            f"{workdir} is the run of {model_kind(type(experiment))}, not of {model_kind(kind)}."
        )
    trees, step = averaged(workdir, experiment, mesh)
    return experiment.model, note, trees, step


def averaged(workdir: str | Path, experiment: Experiment, mesh: Mesh) -> tuple[Any, int]:
    """`ema` and `extra` of a run's latest checkpoint, and its step."""
    # models are float32, whatever the storage in training
    wide = replace(experiment, train=replace(experiment.train, state_dtype="float32"))
    state = abstract_state(make_task(experiment), wide, mesh)
    with open_existing(workdir) as checkpoints:
        step = checkpoints.latest
        trees = checkpoints.restore({"ema": state.ema, "extra": state.extra})
    assert step is not None
    return trees, step


def weights_name(vqvae: LoadedVQVAE, note: dict[str, Any]) -> str:
    """What identifies the weights of a VQ-VAE and a prior: fingerprint, run and step."""
    return f"VQ-VAE {vqvae.fingerprint}, run {note.get('run', 'unnamed')} step {note['step']}"


def load_vqvae(workdir: str | Path, mesh: Mesh) -> LoadedVQVAE:
    """The VQ-VAE trained in `workdir`."""
    config, _, trees, step = _load(workdir, mesh, VQVAEExperiment)
    books = trees["extra"].books
    mark = fingerprint(config, trees["ema"], books)
    return LoadedVQVAE(config, trees["ema"], books, step, mark)


def load_prior(workdir: str | Path, mesh: Mesh) -> LoadedPrior:
    """The prior trained in `workdir`."""
    config, note, trees, step = _load(workdir, mesh, PriorExperiment)
    return LoadedPrior(config, trees["ema"], step, note.get("fingerprint", ""))


def load_renderer(workdir: str | Path, mesh: Mesh, vqvae: LoadedVQVAE) -> LoadedRenderer:
    """The renderer trained in `workdir` on the codes of a VQ-VAE."""
    config, note, trees, step = _load(workdir, mesh, RendererExperiment)
    book = vqvae.books[config.level].codes
    return LoadedRenderer(config, trees["ema"][RENDERER], book, step, weights_name(vqvae, note))


def fingerprint(config: VQVAEConfig, params: Any, books: tuple[Codebook, ...]) -> str:
    """16 hexadecimal digits of the SHA-256 of a VQ-VAE's config, weights and codes."""
    digest = hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode())
    for leaf in jax.tree.leaves((params, [book.codes for book in books])):
        digest.update(np.ascontiguousarray(jax.device_get(leaf)).tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class ModelDir:
    """The content of a `model.json`, with absolute paths."""

    path: Path
    vqvae: Path
    priors: dict[int, Path]
    label_files: dict[int, Path]
    renderer: Path | None = field(default=None, kw_only=True)

    @property
    def name(self) -> str:
        """What a job calls it: its path, or the name of a model that comes with the package."""
        return self.path.name if self.path.parent == SHIPPED else str(self.path)

    def prior(self, level: int) -> Path:
        """The workdir of a level's prior; CheckpointError where none is named."""
        if level not in self.priors:
            raise CheckpointError(
                f"{self.path} names no prior for level {level}; name its run in `jukejax model "
                "make --priors`."
            )
        return self.priors[level]

    def labels(self, level: int) -> Path:
        """The label names of a level's prior; CheckpointError where none are named."""
        if level not in self.label_files:
            raise CheckpointError(
                f"{self.path} names no labels for level {level}; name them in `jukejax model "
                "make --labels`."
            )
        return self.label_files[level]

    def prior_config(self, level: int) -> tuple[PriorConfig, dict[str, Any]]:
        """The config of a level's prior and the note saved beside it; no weights are read."""
        experiment, note = load_experiment(self.prior(level))
        if not isinstance(experiment, PriorExperiment):
            raise CheckpointError(
                f"{self.priors[level]}, which {self.path} names, is not the run of a prior."
            )
        if experiment.lora:
            raise CheckpointError(
                f"{self.priors[level]} has adapters alone; name its adapter.safetensors, which is "
                "read as the merged prior."
            )
        return experiment.model, note

    def checked_config(self, vqvae: LoadedVQVAE, level: int) -> tuple[PriorConfig, dict[str, Any]]:
        """As `prior_config`, checked against the VQ-VAE.

        Raises:
          CheckpointError: the level has no prior, or one trained on codes of another VQ-VAE.
        """
        config, note = self.prior_config(level)
        self._require_codes_of(vqvae, note, f"The prior in {self.priors[level]} learned")
        if config.level != level:
            raise CheckpointError(
                f"{self.path} names {self.priors[level]} for level {level}, but it is a prior of "
                f"level {config.level}."
            )
        return config, note

    def _require_codes_of(self, vqvae: LoadedVQVAE, note: dict[str, Any], what: str) -> None:
        """CheckpointError where a run, by the note beside it, learned codes of another VQ-VAE."""
        learned = note.get("fingerprint", "")
        if learned != vqvae.fingerprint:
            raise CheckpointError(
                f"{what} codes of VQ-VAE {learned}, but {self.path} names VQ-VAE "
                f"{vqvae.fingerprint}; train it on codes of this one, or name the other."
            )

    def load_prior(self, mesh: Mesh, vqvae: LoadedVQVAE, level: int) -> LoadedPrior:
        """The prior of a level, checked as by `checked_config`."""
        self.checked_config(vqvae, level)
        return load_prior(self.prior(level), mesh)

    def checked_renderer(self, vqvae: LoadedVQVAE) -> tuple[RendererConfig, dict[str, Any]]:
        """The config of the renderer and the note saved beside it; no weights are read.

        Raises:
          CheckpointError: none is named, or one trained on codes of another VQ-VAE.
        """
        if self.renderer is None:
            raise CheckpointError(
                f"{self.path} names no renderer; train one and name its run in `jukejax model "
                "make --renderer`."
            )
        experiment, note = load_experiment(self.renderer)
        if not isinstance(experiment, RendererExperiment):
            raise CheckpointError(
                f"{self.renderer}, which {self.path} names, is not the run of a renderer."
            )
        self._require_codes_of(vqvae, note, f"The renderer in {self.renderer} learned")
        return experiment.model, note

    def load_renderer(self, mesh: Mesh, vqvae: LoadedVQVAE) -> LoadedRenderer:
        """The renderer, checked as by `checked_renderer`."""
        self.checked_renderer(vqvae)
        assert self.renderer is not None
        return load_renderer(self.renderer, mesh, vqvae)


def write_model_dir(
    path: str | Path,
    vqvae: str | Path,
    priors: Mapping[int, str | Path],
    labels: str | Path | Mapping[int, str | Path],
    renderer: str | Path | None = None,
) -> None:
    """Writes `path`/model.json with paths relative to it; `labels` is one file, or one a level."""
    folder = Path(path).resolve()

    def relative(target: str | Path) -> str:
        return os.path.relpath(Path(target).resolve(), folder)

    def by_level(targets: Mapping[int, str | Path]) -> dict[str, str]:
        return {str(level): relative(target) for level, target in sorted(targets.items())}

    folder.mkdir(parents=True, exist_ok=True)
    value = {
        "vqvae": relative(vqvae),
        "priors": by_level(priors),
        "labels": by_level(labels) if isinstance(labels, Mapping) else relative(labels),
        **({"renderer": relative(renderer)} if renderer is not None else {}),
    }
    files.write_json(folder / NAME, value)


def read_model_dir(path: str | Path) -> ModelDir:
    """Reads a model directory.

    Args:
      path: the folder, or the name of a model that comes with the package.

    Raises:
      CheckpointError, DataError: there is no `model.json`, or it or a packed file is damaged.
    """
    folder = _folder(path)
    try:
        fields: dict[str, stored.Types] = {"vqvae": str, "priors": dict, "labels": (str, dict)}
        remedy = "make it again with `jukejax model make`."
        value = stored.read_object(folder / NAME, fields, remedy)
        for name in value.get(packed.FILES, ()):
            packed.check_file(folder / name)
        stored.check_fields(value, {}, str(folder / NAME), remedy, {"renderer": str})
        labels = value["labels"]
        if not isinstance(labels, dict):
            labels = dict.fromkeys(value["priors"], labels)
        renderer = value.get("renderer")
        paths = [value["vqvae"], *value["priors"].values(), *labels.values(), renderer or ""]
        if any(b"\0" in path.encode() for path in paths):
            raise ValueError("a path has a NUL character")
        return ModelDir(
            folder,
            folder / value["vqvae"],
            {int(level): folder / p for level, p in value["priors"].items()},
            {int(level): folder / p for level, p in labels.items()},
            renderer=folder / renderer if renderer else None,
        )
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is not a model directory (no {NAME}); make one with `jukejax model make`"
            f"{_names_near(str(path))}."
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        if isinstance(error, JukejaxError):
            raise
        raise CheckpointError(
            f"{folder / NAME} is damaged: priors and labels must be by level, with text as paths "
            f"({error}); {remedy}"
        ) from error


def shipped() -> list[str]:
    """The names of the models that come with the package."""
    return sorted(file.parent.name for file in SHIPPED.glob(f"*/{NAME}"))


def _folder(model: str | Path) -> Path:
    """The folder of a model directory, or else of the shipped model of that name."""
    if not Path(model).exists() and str(model) in shipped():
        return SHIPPED / model
    return Path(model).resolve()


def _names_near(name: str) -> str:
    """What a message says of shipped models where there is none called `name`."""
    if not (names := shipped()):
        return ""
    near = difflib.get_close_matches(name, names, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f", or name a model that comes with jukejax: {', '.join(names)}{hint}"


def load_model(path: str | Path, mesh: Mesh) -> LoadedModel:
    """A model directory, with its VQ-VAE on the devices of a mesh.

    Raises:
      CheckpointError: there is no model directory or no VQ-VAE.
    """
    directory = read_model_dir(path)
    return LoadedModel(directory, load_vqvae(directory.vqvae, mesh), mesh)
