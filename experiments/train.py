"""Train a VQ-VAE on songs, or a prior on codes.

python -m experiments.train demo_vqvae --data runs/demo/songs --workdir runs/demo/vqvae
python -m experiments.train demo_prior --data runs/demo/codes --workdir runs/demo/prior

A workdir in place of the preset gives the settings of its run; with --start-from its weights too.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import tyro

from experiments import cli
from experiments.data import Training, train
from jukejax import presets

USAGE = "jukejax train PRESET --data DIR --workdir DIR [--section.field value ...]"
COMMON = ("data", "workdir", "start_from", "labels", "evaluate", "evaluate_every")


def parse(preset: str, arguments: list[str]) -> Training[Any]:
    """A command with the values of a preset, or of the run in a workdir, as defaults.

    Raises:
      ConfigError: no such preset; data or workdir in a bucket that is not mounted.
    """
    experiment: Any = _run_settings(preset) or presets.get(preset)
    missing: Any = tyro.MISSING
    kind: Any = Training
    parsed: Training[Any] = cli.parse(
        kind[type(experiment)], arguments, f"jukejax train {preset}", COMMON,
        default=Training(missing, missing, experiment), config=(tyro.conf.AvoidSubcommands,),
    )  # fmt: skip
    from jukejax.parallel.distributed import check_folder

    for folder in (parsed.data, parsed.workdir):
        check_folder(folder)
    return parsed


def _run_settings(workdir: str) -> Any:
    """The experiment of the run in a workdir, or None where there is no run."""
    if not Path(workdir).is_dir():
        return None
    from jukejax.training.checkpoint import directory, load_experiment

    return load_experiment(workdir)[0] if directory(workdir).is_dir() else None


@cli.command
def main(arguments: list[str]) -> None:
    preset, rest = cli.take_preset(arguments, USAGE)
    if not {*cli.HELP, cli.HELP_ALL} & set(rest):
        from jukejax.parallel import distributed

        distributed.start()  # before a run's settings are read, which begins to use devices
    training = parse(preset, rest)
    import jax

    train(training, print if jax.process_index() == 0 else lambda line: None)


if __name__ == "__main__":
    main(sys.argv[1:])
