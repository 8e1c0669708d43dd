"""Plan a pod without owning one: compile a preset's train step or decoding loop for other chips.

jukejax compile prior_5b_lyrics --topology v5e:16x16 --mesh.data 4 --mesh.fsdp 64 \\
    --train.batch 256
jukejax compile prior_5b --topology v5e:2x2 --what decode --mesh.tensor 4
jukejax compile prior_5b --topology h100:8x8 --mesh.fsdp 8 --train.batch 256
jukejax compile plans [NAME ...]  # the table experiments/plans/README.md
jukejax compile shardings  # experiments/plans/shardings: how all arrays are sharded
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

# Read when jax is imported: this process needs no TPU and need not look for one; libtpu's questions
# to the machine are answered here; several such processes may run at once.
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

import tyro

from experiments import cli
from jukejax import exit_codes, locks, presets
from jukejax.config import ConfigError, PriorExperiment
from jukejax.sampling.job import Weights

USAGE = """jukejax compile PRESET|plans|shardings --topology v5e:16x16 [--section.field value ...]

Example: jukejax compile prior_5b --topology v5e:2x2 --what decode --mesh.tensor 4"""
COMMON = ("topology", "slices", "what", "fit", "windows", "weights")
FOLDER = Path(__file__).parent / "plans"
E = TypeVar("E")


@dataclass(frozen=True)
class Command(Generic[E]):
    """Compile a preset's program for a topology and print what it needs. Nothing is run."""

    topology: str
    """Chips and shape of a slice: v5e:16x16, v6e:16x16, v5p:4x4x8, v4:4x4x8; or hosts x GPUs of a
    host: h100:8, h100:8x8."""
    experiment: Annotated[E, tyro.conf.arg(name="")]
    slices: int = 1
    """Slices of that shape, joined by the data centre's network along mesh.data."""
    what: Literal["train", "decode"] = "train"
    """The train step, or the loop that decodes one token at a time."""
    fit: bool = False
    """Search the largest global batch that fits."""
    windows: int = 1
    """Windows decoded together (decode)."""
    weights: Weights = "float32"
    """Format of the stack's matrices (decode)."""
    json: bool = False
    """Print the plan as one JSON object instead."""


def parse(preset: str, arguments: list[str]) -> Command[Any]:
    """A command with the preset's values as defaults."""
    experiment: Any = presets.get(preset)
    missing: Any = tyro.MISSING
    cls: Any = Command
    what = " --what decode --windows 4" if isinstance(experiment, PriorExperiment) else ""
    example = f"jukejax compile {preset} --topology v5e:2x2{what}"
    return cli.parse(
        cls[type(experiment)], arguments, f"jukejax compile {preset}", COMMON,
        description=f"{Command.__doc__}\n\nExample: {example}",
        default=Command(missing, experiment), config=(tyro.conf.AvoidSubcommands,),
    )  # fmt: skip


@cli.command
def main(arguments: list[str]) -> None:
    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    name, rest = cli.take_preset(arguments, USAGE)
    command = parse(name, rest) if name not in ("plans", "shardings") else None
    if command is None and {*cli.HELP, cli.HELP_ALL} & set(rest):
        print(f"usage: {USAGE}\n\n{__doc__}")
        sys.exit(exit_codes.DONE)
    if name == "shardings" and rest:
        raise ConfigError(f"compile shardings takes no arguments, but {' '.join(rest)} is given.")
    from jukejax.planning import plans, shardings, table, text
    from jukejax.planning.topologies import topology

    if command is None:
        with locks.writing(FOLDER):
            if name == "plans":
                return table.regenerate(FOLDER, rest, say)
            return shardings.regenerate(FOLDER)
    decode = command.what == "decode"
    if command.fit and decode:
        raise ConfigError("--fit searches the batch of a train step; leave out --what decode.")
    chips = topology(command.topology, command.slices)
    windows = command.windows if decode else None
    target = plans.Target(name, command.experiment, chips, windows, command.weights)
    plan = plans.fit(target, say) if command.fit else plans.make(target)
    plan = plans.with_evaluation(target, plan)
    print(json.dumps(plan) if command.json else text.render(plan))
    if not (plan["fits"] and plan.get("evaluation", plan)["fits"]):
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
