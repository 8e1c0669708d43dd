"""OpenAI's own files: vqvae.pth.tar and prior_level_N.pth.tar."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.convert.model import check_digests, check_levels, check_out, write_model
from experiments.convert.names import IdFiles, vocabularies
from jukejax import presets
from jukejax.config import ConfigError, MeshConfig, PriorExperiment, VQVAEExperiment
from jukejax.errors import InteropError
from jukejax.interop import exporting, importing, torch_files
from jukejax.interop.importing import Opened
from jukejax.interop.tensors import Checkpoint
from jukejax.model_dir import read_model_dir
from jukejax.parallel.mesh import make_mesh


@dataclass(frozen=True)
class Import:
    """Write a model directory from checkpoints of OpenAI's Jukebox."""

    vqvae: Path
    """vqvae.pth.tar"""
    prior: tuple[Path, ...]
    """prior_level_N.pth.tar, in any order."""
    out: Path
    """The model directory; must not hold a model yet."""
    sha256: tuple[str, ...] = ()
    """Digests that the files must have: the VQ-VAE's, then the priors'."""
    vqvae_preset: str | None = None
    """What the VQ-VAE is, where its file holds no settings."""
    prior_preset: tuple[str, ...] = ()
    """What each prior is, where their files hold no settings."""
    v2_ids: IdFiles | None = None
    """OpenAI's v2_artist_ids.txt and v2_genre_ids.txt: names of all published priors but the 1B."""
    v3_ids: IdFiles | None = None
    """OpenAI's v3_artist_ids.txt and v3_genre_ids.txt: names of the 1B prior."""


@dataclass(frozen=True)
class Export:
    """Write a model directory's VQ-VAE and priors as checkpoints of OpenAI's Jukebox."""

    model: Path
    """A model directory (model.json)."""
    out: Path
    """Gets vqvae.pth.tar and prior_level_N.pth.tar."""


def read_checked(command: Import) -> tuple[list[Checkpoint], list[str]]:
    """All files, the VQ-VAE first, and their digests.

    Raises:
      InteropError: a file is no checkpoint, or not the one that `--sha256` names.
    """
    paths = (command.vqvae, *command.prior)
    digests = check_digests(paths, command.sha256, "the VQ-VAE, then the priors")
    return [torch_files.read(path) for path in paths], digests


def open_all(command: Import, files: list[Checkpoint]) -> tuple[Opened, list[Opened]]:
    """The VQ-VAE and the priors, checked against their settings and each other."""
    given = presets.get(command.vqvae_preset) if command.vqvae_preset else None
    if given is not None and not isinstance(given, VQVAEExperiment):
        raise ConfigError(f"--vqvae-preset {command.vqvae_preset} is no VQ-VAE.")
    vqvae = importing.open_vqvae(files[0], given)
    assert isinstance(vqvae.experiment, VQVAEExperiment)
    names = command.prior_preset or (None,) * len(command.prior)
    if len(names) != len(command.prior):
        raise ConfigError("Give --prior-preset one name a prior, in the order of --prior.")
    priors: list[Opened] = []
    for file, name in zip(files[1:], names, strict=True):
        preset = presets.get(name) if name else None
        if preset is not None and not isinstance(preset, PriorExperiment):
            raise ConfigError(f"--prior-preset {name} is no prior.")
        if preset is not None:
            doubt(file, preset)
        opened = importing.open_prior(file, vqvae.experiment, preset)
        priors.append(opened)
    check_levels(priors)
    return vqvae, priors


def doubt(file: Checkpoint, preset: PriorExperiment) -> None:
    """Compares a preset with what the file says of itself, or says that nothing vouches for it."""
    wanted, found = preset.model.level, (file.hps or {}).get("level")
    if found is None:
        print(
            f"warning: {file.path} does not say its level. The two upsamplers' files have the same "
            f"names and shapes: it is level {wanted} by your word alone."
        )
    elif found != wanted:
        raise InteropError(
            f"{file.path} says that it is of level {found}, but its preset is of level {wanted}; "
            "name the priors and their presets in the same order."
        )


def run_import(command: Import) -> None:
    """Reads, checks, then writes."""
    check_out(command.out)
    files, digests = read_checked(command)
    vqvae, priors = open_all(command, files)
    names = vocabularies(priors, command.v2_ids, command.v3_ids)
    origins = [{"format": "openai", "sha256": digest} for digest in digests]
    write_model(command.out, vqvae, priors, origins, names)


def run_export(command: Export) -> None:
    """Writes one file a run."""
    model, mesh = read_model_dir(command.model), make_mesh(MeshConfig())
    runs = {"vqvae": model.vqvae}
    runs |= {f"prior_level_{i}": path for i, path in model.priors.items()}
    for name, workdir in runs.items():
        path = command.out / f"{name}.pth.tar"
        if path.exists():
            raise InteropError(f"{path} is there already; choose another --out.")
        with exporting.open_run(workdir, mesh) as exported:
            exporting.write_openai(exported, path)
        print(f"{path}: sha256 {torch_files.sha256(path)}")


COMMANDS = {"import": Import, "export": Export}
RUN = {"import": run_import, "export": run_export}
