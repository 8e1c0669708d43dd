"""Packs a model directory: averaged weights, label names and a model card, in one folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from jax.sharding import Mesh

from jukejax import files
from jukejax.config import RendererExperiment, to_dict
from jukejax.errors import ConfigError
from jukejax.model_dir import NAME, ModelDir, averaged, read_model_dir
from jukejax.training import packed
from jukejax.training.adversarial import RENDERER
from jukejax.training.checkpoint import load_experiment

CARD = "README.md"


def ship(directory: ModelDir, out: Path, card: Path, mesh: Mesh) -> ModelDir:
    """Packs a model directory: its averaged weights, label names and model card, in one folder.

    Priors and renderer are stored in bfloat16, and read as float32 again. The VQ-VAE stays float32:
    its codes and its fingerprint are those that they learned.

    Args:
      out: the folder to write; may not exist, or is empty.
      card: a text in Markdown: data, licences, figures, limits.
      mesh: where weights are loaded.

    Raises:
      ConfigError: `out` is not empty, or there is no card.
      CheckpointError, DataError: a part of the model is missing or damaged.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty; give another --out for the packed model.")
    if not card.is_file():
        raise ConfigError(f"--card {card}: there is no such file; write the model card first.")
    sources = set(directory.label_files.values())
    labels = {
        str(level): "labels.json" if len(sources) == 1 else f"labels_{level}.json"
        for level in directory.label_files
    }
    priors = {str(level): f"prior_{level}.safetensors" for level in sorted(directory.priors)}
    vqvae, renderer = "vqvae.safetensors", "renderer.safetensors"
    with files.atomic_folder(out) as folder:
        pack_run(directory.vqvae, folder / vqvae, mesh, "float32")
        for level, name in priors.items():
            pack_run(directory.prior(int(level)), folder / name, mesh, "bfloat16")
        if directory.renderer:
            pack_run(directory.renderer, folder / renderer, mesh, "bfloat16")
        for level, name in labels.items():
            shutil.copyfile(directory.labels(int(level)), folder / name)
        shutil.copyfile(card, folder / CARD)
        digests = {path.name: packed.sha256(path) for path in sorted(folder.iterdir())}
        value = {"vqvae": vqvae, "priors": priors, "labels": labels, packed.FILES: digests}
        more = {"renderer": renderer} if directory.renderer else {}
        files.write_json(folder / NAME, value | more)
    return read_model_dir(out)


def pack_run(workdir: str | Path, path: Path, mesh: Mesh, dtype: str) -> None:
    """Writes the averaged weights of a run as a file of a packed model.

    Of a renderer without its discriminators, which are for training alone.
    """
    experiment, note = load_experiment(workdir)
    trees, step = averaged(workdir, experiment, mesh)
    if isinstance(experiment, RendererExperiment):
        loss = replace(experiment.model.loss, adversarial=0.0, features=0.0)
        experiment = replace(experiment, model=replace(experiment.model, loss=loss))
        trees["ema"] = {RENDERER: trees["ema"][RENDERER]}
    config = {"experiment": to_dict(experiment), **note, "step": step}
    packed.write(path, trees, config, dtype)
