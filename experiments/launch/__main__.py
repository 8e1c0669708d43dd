"""The command: parse, check the training options, run or write files."""

from __future__ import annotations

import shlex
import sys
from typing import Any

from experiments import cli, training
from experiments.launch.google import Gke, TpuVm
from experiments.launch.job import Job, Target
from experiments.launch.slurm import Slurm
from experiments.launch.supervise import Local, Supervisor
from jukejax import files

TARGETS: dict[str, type[Target]] = {"local": Local, "tpu-vm": TpuVm, "gke": Gke, "slurm": Slurm}
USAGE = (
    f"jukejax launch PRESET --on {'|'.join(TARGETS)} --data DIR --workdir DIR ...\n"
    "All options of `jukejax train PRESET` are passed on to it.\n\n"
    "Example: jukejax launch prior_5b --on slurm --data data/codes --workdir runs/prior"
)


def take_option(arguments: list[str], name: str) -> tuple[str, list[str]]:
    """The value of an option, `--name value` or `--name=value`, and the other arguments."""
    for i, argument in enumerate(arguments):
        if argument == name and i + 1 < len(arguments):
            return arguments[i + 1], arguments[:i] + arguments[i + 2 :]
        if argument.startswith(name + "="):
            return argument.partition("=")[2], arguments[:i] + arguments[i + 1 :]
    return "", arguments


def parse(arguments: list[str]) -> tuple[Any, Job]:
    """The target and the job: options that are not the target's are those of training."""
    preset, rest = cli.take_preset(arguments, USAGE)
    name, rest = take_option(rest, "--on")
    about = {name: (kind.__doc__ or "").splitlines()[0] for name, kind in TARGETS.items()}
    asks = [word for word in rest if word in cli.HELP]
    name, _ = cli.choose(about, [name] if name else asks, USAGE, "What --on takes:")
    program = f"jukejax launch {preset} --on {name}"
    target, rest = cli.parse(TARGETS[name], rest, program, return_unknown_args=True)
    import jax

    jax.config.update("jax_platforms", "cpu")  # accelerators are for the processes started here
    parsed = training.parse(preset, rest, program)  # mistakes are reported here, not on many hosts
    command = (sys.executable, "-m", "experiments.train", preset, *rest)
    return target, Job(preset, parsed.workdir.absolute(), command)


@cli.command
def main(arguments: list[str]) -> None:
    target, job = parse(arguments)
    if isinstance(target, Local):
        plan = target.plan(job)
        if not target.dry_run:
            sys.exit(Supervisor(plan).run())
        for index in range(plan.processes):
            variables = plan.environment(index, 0).items()
            words = [f"{name}={shlex.quote(value)}" for name, value in variables]
            print(*words, shlex.join(plan.command), ">>", plan.log_path(index))
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
