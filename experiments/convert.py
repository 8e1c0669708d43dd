"""Take OpenAI's checkpoints, or give ours back in their layout.

python -m experiments.convert import --format openai --vqvae vqvae.pth.tar \\
    --prior prior_level_0.pth.tar prior_level_1.pth.tar prior_level_2.pth.tar --out runs/5b
python -m experiments.convert export --format openai --model runs/5b --out files

Every file is read and checked whole before anything is written.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from data_pipeline.errors import DataError
from data_pipeline.labels import UNKNOWN, Vocabulary, normalise
from experiments import cli
from jukejax import presets
from jukejax.config import (
    ConfigError,
    LabelsConfig,
    MeshConfig,
    PriorExperiment,
    VQVAEExperiment,
)
from jukejax.interop import convert, torch_files
from jukejax.interop.convert import Opened
from jukejax.interop.errors import InteropError
from jukejax.model_dir import NAME, read_model_dir, write_model_dir
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
    format: Literal["openai"] = "openai"
    sha256: tuple[str, ...] = ()
    """Digests that the files must have: the VQ-VAE's, then the priors'."""
    vqvae_preset: str | None = None
    """What the VQ-VAE is, where its file holds no settings."""
    prior_preset: tuple[str, ...] = ()
    """What each prior is, where their files hold no settings."""
    artist_ids: Path | None = None
    """OpenAI's file of artists, lines of name;id."""
    genre_ids: Path | None = None
    """OpenAI's file of genres, lines of name;id."""


@dataclass(frozen=True)
class Export:
    """Write a model directory's VQ-VAE and priors as checkpoints of OpenAI's Jukebox."""

    model: Path
    """A model directory (model.json)."""
    out: Path
    """Gets vqvae.pth.tar and prior_level_N.pth.tar."""
    format: Literal["openai"] = "openai"


Command = (
    Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[Export, tyro.conf.subcommand("export")]
)


def read_checked(command: Import) -> tuple[list[torch_files.Checkpoint], list[str]]:
    """All files, the VQ-VAE first, and their digests.

    Raises:
      InteropError: a file is no checkpoint, or not the one that `--sha256` names.
    """
    paths = (command.vqvae, *command.prior)
    if command.sha256 and len(command.sha256) != len(paths):
        raise ConfigError(
            f"--sha256 has {len(command.sha256)} digests for {len(paths)} files; give the "
            "VQ-VAE's first, then one a prior."
        )
    digests = []
    for i, path in enumerate(paths):
        digest = torch_files.sha256(path)
        print(f"{path}: sha256 {digest}")
        if command.sha256 and command.sha256[i].lower() != digest:
            raise InteropError(
                f"{path} has SHA-256 {digest}, not {command.sha256[i]}; download it again."
            )
        digests.append(digest)
    return [torch_files.read(path) for path in paths], digests


def open_all(command: Import, files: list[torch_files.Checkpoint]) -> tuple[Opened, list[Opened]]:
    """The VQ-VAE and the priors, checked against their settings and each other."""
    given = presets.get(command.vqvae_preset) if command.vqvae_preset else None
    if given is not None and not isinstance(given, VQVAEExperiment):
        raise ConfigError(f"--vqvae-preset {command.vqvae_preset} is no VQ-VAE.")
    vqvae = convert.open_vqvae(files[0], given)
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
        opened = convert.open_prior(file, vqvae.experiment, preset)
        if any(level(p) == level(opened) for p in priors):
            raise InteropError(
                f"{file.path} is a second prior of level {level(opened)}; give one a level."
            )
        priors.append(opened)
    return vqvae, priors


def doubt(file: torch_files.Checkpoint, preset: PriorExperiment) -> None:
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


def level(opened: Opened) -> int:
    """The level of a prior."""
    assert isinstance(opened.experiment, PriorExperiment)
    return opened.experiment.model.level


def read_ids(path: Path | None, kind: str, count: int) -> tuple[str, ...]:
    """`count` names by id, out of lines of name;id; where none is given, the kind and the id."""
    names = [UNKNOWN] + [f"{kind} {i}" for i in range(1, count)]
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    seen: set[int] = set()
    for line in lines:
        name, _, number = line.rpartition(";")
        if not number.strip().isdigit() or int(number) >= count:
            raise DataError(f"{path}: {line!r} is no name;id with an id under {count}")
        if (i := int(number)) and i not in seen:
            names[i] = normalise(name)
            seen.add(i)
    if count > 1 and not path:
        print(f"No --{kind}-ids: the {count} {kind}s are called '{kind} 1', '{kind} 2' and so on.")
    return tuple(names)


def vocabulary(command: Import, priors: list[Opened]) -> Vocabulary:
    """Names of the artists and genres of the highest prior."""
    tables: list[LabelsConfig] = []
    for opened in sorted(priors, key=level, reverse=True):
        assert isinstance(opened.experiment, PriorExperiment)
        if opened.experiment.model.labels:
            tables.append(opened.experiment.model.labels)
    if len({(t.artists, t.genres) for t in tables}) > 1:
        print(
            "warning: the priors have artist and genre tables of different sizes. labels.json "
            "names the highest prior's; the same ids mean other artists to the others."
        )
    top = tables[0] if tables else LabelsConfig(artists=1, genres=1)
    artists = read_ids(command.artist_ids, "artist", top.artists)
    return Vocabulary(artists, read_ids(command.genre_ids, "genre", top.genres))


def run_import(command: Import) -> None:
    """Reads, checks, then writes."""
    out = command.out
    if out.exists() and any(out.iterdir()):
        raise InteropError(f"{out} is not empty; choose another --out.")
    files, digests = read_checked(command)
    vqvae, priors = open_all(command, files)
    names = vocabulary(command, priors)
    mark = convert.save_vqvae(vqvae, out / "vqvae", digests[0])
    print(f"{out / 'vqvae'}: codes {mark}. Loudness is not in OpenAI's files; it is set to 1.")
    places: dict[int, str | Path] = {}
    for opened, digest in zip(priors, digests[1:], strict=True):
        places[level(opened)] = out / f"prior_level_{level(opened)}"
        convert.save_prior(opened, places[level(opened)], digest, mark)
        print(f"{places[level(opened)]}: {len(opened.file.tensors)} tensors")
    names.save(out / "labels.json")
    write_model_dir(out, out / "vqvae", places, out / "labels.json")
    print(f"Model: {out / NAME}")


def run_export(command: Export) -> None:
    """Writes one file a run."""
    model, mesh = read_model_dir(command.model), make_mesh(MeshConfig())
    runs = {"vqvae": model.vqvae}
    runs |= {f"prior_level_{i}": path for i, path in model.priors.items()}
    for name, workdir in runs.items():
        path = command.out / f"{name}.pth.tar"
        if path.exists():
            raise InteropError(f"{path} is there already; choose another --out.")
        convert.export(workdir, path, mesh)
        print(f"{path}: sha256 {torch_files.sha256(path)}")


@cli.command
def main(arguments: list[str]) -> None:
    command: Import | Export = tyro.cli(
        Command,
        args=arguments,
        prog="python -m experiments.convert",
    )
    if isinstance(command, Import):
        run_import(command)
    else:
        run_export(command)


if __name__ == "__main__":
    main(sys.argv[1:])
