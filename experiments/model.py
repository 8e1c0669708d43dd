"""Model directories: a VQ-VAE, its priors, a renderer and label names, as one model to sample from.

jukejax model make --vqvae runs/vqvae --priors runs/top runs/middle runs/bottom \\
    --labels data/codes/labels.json --out runs/model
jukejax model show runs/model
jukejax model ship runs/model --card card.md --out small-songs
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from experiments import cli
from jukejax import locks
from jukejax.config import MeshConfig, PriorExperiment, model_kind
from jukejax.errors import ConfigError, JukejaxError

if TYPE_CHECKING:
    from jukejax.model_dir import LoadedVQVAE, ModelDir


@dataclass(frozen=True)
class Make:
    """Write a model directory, after checking that its parts belong together.

    Example: jukejax model make --vqvae runs/vqvae --priors runs/top runs/middle runs/bottom
    --labels data/codes/labels.json --out runs/model
    """

    vqvae: Path
    """Workdir of the VQ-VAE's run."""
    out: Path
    """Gets model.json, with paths relative to it."""
    priors: tuple[Path, ...] = ()
    """Workdirs of the priors' runs, in any order: the runs say which level they are of; none for a
    VQ-VAE alone, which can be evaluated."""
    renderer: Path | None = None
    """Workdir of the run of a renderer of the VQ-VAE's codes, for `jukejax sample --render`."""
    labels: tuple[str, ...] = ()
    """The labels.json of the codes that the priors were trained on; where levels have different
    ones, a file each: --labels 2=new.json 1=old.json."""


@dataclass(frozen=True)
class Show:
    """Say what a model directory names, and whether it belongs together.

    Example: jukejax model show runs/model
    """

    model: tyro.conf.Positional[Path]
    """A model directory."""


@dataclass(frozen=True)
class Ship:
    """Pack a model into one folder that is complete in itself, priors in bfloat16.

    Example: jukejax model ship runs/model --card card.md --out small-songs
    """

    model: tyro.conf.Positional[Path]
    """A model directory."""
    out: Path
    """The folder to write: weights, label names, model card, and model.json with their SHA-256. In
    jukejax/shipped it is found by its name."""
    card: Path
    """The model card in Markdown: data, licences, compute, figures, limits."""


def by_level(priors: tuple[Path, ...]) -> dict[int, Path]:
    """The workdirs of priors by the level that each run was of.

    Raises:
      ConfigError: one is not of a prior, or two are of one level.
      CheckpointError: one is not a training run.
    """
    from jukejax.model_dir import load_experiment

    levels: dict[int, Path] = {}
    for run in priors:
        experiment, _ = load_experiment(run)
        if not isinstance(experiment, PriorExperiment):
            kind = model_kind(type(experiment))
            option = kind.split()[-1].replace("-", "").lower()
            raise ConfigError(f"{run} is the run of {kind}; give it as --{option}.")
        level = experiment.model.level
        if level in levels:
            raise ConfigError(
                f"{levels[level]} and {run} are both priors of level {level}; give one a level."
            )
        levels[level] = run
    return levels


def label_files(labels: tuple[str, ...], levels: Any) -> dict[int, Path]:
    """The file of label names of each level, from `FILE` or `LEVEL=FILE ...`.

    Raises:
      ConfigError: a file has no level although there are several, or a level has no prior.
    """
    if len(labels) == 1 and "=" not in labels[0]:
        return dict.fromkeys(levels, Path(labels[0]))
    files = {}
    for word in labels:
        level, _, path = word.partition("=")
        if not path or level not in map(str, levels):
            raise ConfigError(
                f"--labels has {word!r}; give one file, or LEVEL=FILE for levels that have a prior "
                f"({', '.join(map(str, sorted(levels)))})."
            )
        files[int(level)] = Path(path)
    return files


def mistakes(directory: ModelDir, vqvae: LoadedVQVAE) -> Iterator[str]:
    """A sentence for each part of a model directory that does not belong to the others."""
    from jukejax.sampling.conditions import check_labels
    from jukejax.text.labels import Vocabulary

    for level in sorted(directory.priors, reverse=True):
        try:
            config, note = directory.checked_config(vqvae, level)
            if config.labels and level not in directory.label_files:
                yield f"The prior of level {level} is conditioned on labels; give its --labels."
            elif config.labels:
                check_labels(config, note, Vocabulary.load(directory.labels(level)), directory)
        except JukejaxError as error:
            yield str(error)
    if directory.renderer:
        try:
            directory.checked_renderer(vqvae)
        except JukejaxError as error:
            yield str(error)


def lines(directory: ModelDir, vqvae: LoadedVQVAE) -> Iterator[str]:
    """What a model directory names, a line each, top level first."""
    config = vqvae.config
    yield (
        f"VQ-VAE {vqvae.fingerprint} of {directory.vqvae}, step {vqvae.step}: {config.levels} "
        f"levels of {config.codes} codes, {config.sample_rate} Hz"
    )
    for level in sorted(directory.priors, reverse=True):
        prior, note = directory.prior_config(level)
        seconds = prior.n_ctx * prior.hop / prior.sample_rate
        conditions = [name for name in ("labels", "lyrics", "upper") if getattr(prior, name)]
        yield (
            f"level {level}: {directory.priors[level]}, step {note['step']}: windows of "
            f"{seconds:.1f} s, conditioned on {', '.join(conditions) or 'nothing'}"
        )
    absent = [str(i) for i in range(config.levels) if i not in directory.priors]
    if absent:
        yield f"no prior for level{'s' if len(absent) > 1 else ''} {', '.join(absent)}"
    if directory.renderer:
        renderer, note = directory.checked_renderer(vqvae)
        yield f"renderer of level {renderer.level}: {directory.renderer}, step {note['step']}"


def run(command: Make | Show | Ship) -> None:
    """Makes, shows or packs a model directory.

    Raises:
      ConfigError: what does not belong together, a sentence each.
      CheckpointError: there is no such run or model directory.
    """
    from jukejax import model_dir, packing
    from jukejax.parallel.mesh import make_mesh

    if isinstance(command, Make):
        priors = by_level(command.priors)
        labels = label_files(command.labels, priors)
        directory = model_dir.ModelDir(
            command.out, command.vqvae, priors, labels, renderer=command.renderer
        )
    else:
        directory = model_dir.read_model_dir(command.model)
    mesh = make_mesh(MeshConfig())
    vqvae = model_dir.load_vqvae(directory.vqvae, mesh)
    wrong = list(mistakes(directory, vqvae))
    if wrong:
        raise ConfigError("\n  ".join([f"{directory.path} does not fit together:", *wrong]))
    if isinstance(command, Make):
        shared = len(set(labels.values())) == 1 and labels.keys() == priors.keys()
        names: Any = labels[min(labels)] if shared else labels
        model_dir.write_model_dir(command.out, command.vqvae, priors, names, command.renderer)
    if isinstance(command, Ship):
        directory = packing.ship(directory, command.out, command.card, mesh)
        size = sum(path.stat().st_size for path in command.out.iterdir())
        print(f"{len(list(command.out.iterdir()))} files, {size / 1e6:.1f} MB")
    print("\n".join([f"{directory.path}", *(f"  {line}" for line in lines(directory, vqvae))]))


ACTIONS = {"make": Make, "show": Show, "ship": Ship}


@cli.command
def main(arguments: list[str]) -> None:
    about = {name: (kind.__doc__ or "").splitlines()[0] for name, kind in ACTIONS.items()}
    action, rest = cli.choose(about, arguments, "jukejax model make|show|ship ...")
    command: Make | Show | Ship = cli.parse(ACTIONS[action], rest, f"jukejax model {action}")
    lock = locks.writing(command.out) if isinstance(command, Make) else contextlib.nullcontext()
    with lock:
        run(command)


if __name__ == "__main__":
    main(sys.argv[1:])
