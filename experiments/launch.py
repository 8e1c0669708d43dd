"""Train on many processes or hosts, and start them again when they are stopped or killed.

python -m experiments.launch prior_5b --on local --data D --workdir W --processes 2 --devices 4
python -m experiments.launch prior_5b --on slurm --data D --workdir W --nodes 8
python -m experiments.launch prior_5b --on gke --data D --workdir W --topology v5e:16x16 \\
    --image I --claim C
python -m experiments.launch prior_5b --on tpu-vm --data D --workdir W --topology v5e:16x16 --zone Z

`local` runs them. The others write what is to be submitted to WORKDIR/launch, and print the
command that submits it. --dry-run prints all and does nothing. All other options are those of
`experiments.train`. Logs are in WORKDIR/logs and compiled programs in WORKDIR/compiled; exit codes
mean the same everywhere (`experiments.cli`).
"""

from __future__ import annotations

import shlex
import sys
from typing import Any

import jax
import tyro

from experiments import cli, training
from experiments.launch_targets import TARGETS, Job, Local
from experiments.supervise import Supervisor
from jukejax import files
from jukejax.config import ConfigError

COMMAND_USAGE = "python -m experiments.launch PRESET --on TARGET --data DIR --workdir DIR [...]"


def take_option(arguments: list[str], name: str) -> tuple[str, list[str]]:
    """The value of an option, `--name value` or `--name=value`, and the other arguments."""
    for i, argument in enumerate(arguments):
        if argument == name and i + 1 < len(arguments):
            return arguments[i + 1], arguments[:i] + arguments[i + 2 :]
        if argument.startswith(name + "="):
            return argument.partition("=")[2], arguments[:i] + arguments[i + 1 :]
    return "", arguments


def parse(arguments: list[str]) -> tuple[Any, Job]:
    """Where to run, and what.

    Raises:
      ConfigError: no such target.
    """
    preset, rest = cli.take_preset(arguments, COMMAND_USAGE)
    name, rest = take_option(rest, "--on")
    if name not in TARGETS:
        raise ConfigError(f"--on is {name!r}; it must be one of {', '.join(TARGETS)}.")
    program = f"python -m experiments.launch {preset} --on {name}"
    kind: Any = TARGETS[name]
    target, rest = tyro.cli(kind, args=rest, prog=program, return_unknown_args=True)
    parsed = training.parse(preset, rest)  # mistakes are said here, not on many hosts
    command = (sys.executable, "-m", "experiments.train", preset, *rest)
    return target, Job(preset, parsed.workdir.absolute(), command, parsed.experiment.train.steps)


@cli.command
def main(arguments: list[str]) -> None:
    jax.config.update("jax_platforms", "cpu")  # the accelerators are for the processes started here
    target, job = parse(arguments)
    if isinstance(target, Local):
        plan = target.plan(job)
        if not target.dry_run:
            sys.exit(Supervisor(plan).run())
        for index in range(plan.processes):
            told = [f"{k}={shlex.quote(v)}" for k, v in plan.environment(index, 0).items()]
            print(*told, shlex.join(plan.command), ">>", plan.log_path(index))
        return
    folder = job.workdir / "launch"
    for name, text in target.files(job).items():
        if target.dry_run:
            print(f"# --- {folder / name}\n{text}")
        else:
            files.write_text(folder / name, text)
    print("# --- submit with" if target.dry_run else "Submit with:")
    print(target.submit(job, folder))


if __name__ == "__main__":
    main(sys.argv[1:])
