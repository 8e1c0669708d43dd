"""Directories of HuggingFace's port: config.json, weights and, where they are, label names."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from experiments.convert import tokenizer
from experiments.convert.model import check_digests, check_out, prior_config, write_model
from experiments.convert.names import IdFiles, vocabularies
from jukejax import files
from jukejax.config import MeshConfig
from jukejax.interop import exporting, huggingface, torch_files
from jukejax.model_dir import read_model_dir
from jukejax.parallel.mesh import make_mesh
from jukejax.text.labels import Vocabulary


@dataclass(frozen=True)
class Import:
    """Write a model directory from a directory of HuggingFace's Jukebox."""

    source: Path
    """A directory with config.json and weights: safetensors or PyTorch's, whole or in shards."""
    out: Path
    """The model directory; must not hold a model yet."""
    sha256: tuple[str, ...] = ()
    """Digests that the files of weights must have, in the order of their names."""
    v2_ids: IdFiles | None = None
    """OpenAI's files of artists and genres of v2; else the names in the tokenizer's files."""
    v3_ids: IdFiles | None = None
    """The same of v3."""


@dataclass(frozen=True)
class Export:
    """Write a model directory's VQ-VAE and priors as a directory of HuggingFace's Jukebox."""

    model: Path
    """A model directory (model.json)."""
    out: Path
    """Gets config.json and model.safetensors; and the tokenizer's files, if labels have names."""


def run_import(command: Import) -> None:
    """Reads, checks, then writes."""
    check_out(command.out)
    files = huggingface.find_weights(command.source).files
    order = "the files of weights, in the order of their names"
    digests = check_digests(files, command.sha256, order)
    source = huggingface.open_directory(command.source)
    for note in source.notes:
        print(f"warning: {note}")
    names = None
    if command.v2_ids is None and command.v3_ids is None:
        names = tokenizer.read(command.source, list(map(prior_config, source.priors)))
    if names is None:
        names = vocabularies(source.priors, command.v2_ids, command.v3_ids)
    origin = {
        "format": "huggingface",
        "sha256": {path.name: digest for path, digest in zip(files, digests, strict=True)},
    }
    origins = [origin | {"absent": absent} for absent in source.absent]
    write_model(command.out, source.vqvae, source.priors, origins, names)


def run_export(command: Export) -> None:
    """Writes all runs into one directory."""
    check_out(command.out)
    model, mesh = read_model_dir(command.model), make_mesh(MeshConfig())
    configs = {level: model.prior_config(level)[0] for level in model.priors}
    with ExitStack() as stack:
        vqvae = stack.enter_context(exporting.open_run(model.vqvae, mesh))
        priors = {
            level: stack.enter_context(exporting.open_run(path, mesh))
            for level, path in model.priors.items()
        }
        place = stack.enter_context(files.atomic_folder(command.out))
        huggingface.write(place, vqvae, priors)
        names = {
            i: Vocabulary.load(model.labels(i)) for i, config in configs.items() if config.labels
        }
        for name, value in tokenizer.files(names, configs).items():
            files.write_json(place / name, value)
    weights = command.out / huggingface.WEIGHTS
    print(f"{weights}: sha256 {torch_files.sha256(weights)}")


COMMANDS = {"import": Import, "export": Export}
RUN = {"import": run_import, "export": run_export}
