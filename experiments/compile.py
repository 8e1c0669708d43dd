"""Plan a pod without owning one: compile a preset's train step or decoding loop for chips afar.

python -m experiments.compile prior_5b_lyrics --topology v5e:16x16 --mesh.data 4 --mesh.fsdp 64 \\
    --train.batch 256
python -m experiments.compile prior_5b --topology v5e:2x2 --what decode --mesh.tensor 4
python -m experiments.compile prior_5b --topology h100:8x8 --mesh.fsdp 8 --train.batch 256
python -m experiments.compile plans [NAME ...]  # the table experiments/plans/README.md
python -m experiments.compile shardings  # experiments/plans/shardings: where everything lies
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

# Read when jax is imported: this process has no TPU and need not look for one; what libtpu asks
# the machine is answered beforehand; several such processes may run at once.
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

import tyro

from experiments import cli, plan_table, sharding_table
from jukejax import costs, presets
from jukejax.config import ConfigError, Experiment, PriorExperiment
from jukejax.planning import aot
from jukejax.planning import plans as planning
from jukejax.sampling.job import Weights

USAGE = "python -m experiments.compile PRESET --topology v5e:16x16 [--section.field value ...]"
GIB = costs.GIB
E = TypeVar("E")


@dataclass(frozen=True)
class Command(Generic[E]):
    """Compile a preset's program for a topology of chips and say what it needs. Nothing is run."""

    topology: str
    """Chips and shape of a slice: v5e:16x16, v6e:16x16, v5p:4x4x8, v4:4x4x8; or hosts and the GPUs
    of each: h100:8, h100:8x8."""
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
    """What the stack's matrices are held in (decode)."""
    json: bool = False
    """Print one JSON object and nothing else."""


def parse(preset: str, arguments: list[str]) -> Command[Any]:
    """A command with the preset's values as defaults."""
    experiment: Any = presets.get(preset)
    missing: Any = tyro.MISSING
    cls: Any = Command
    return tyro.cli(
        cls[type(experiment)],
        args=arguments,
        default=Command(missing, experiment),
        prog=f"python -m experiments.compile {preset}",
        config=(tyro.conf.AvoidSubcommands,),
    )


def plan_train(
    name: str, experiment: Experiment, topology: aot.Topology, known: planning.Plan | None = None
) -> planning.Plan:
    """Compiles a train step; `known` is given back if it is the plan of the same program."""
    program = aot.lower_train(experiment, topology)
    if known is not None and planning.same(known, program):
        return known
    done = aot.compile_program(program)
    return planning.train_plan(name, experiment, topology, program, done)


def plan_decode(
    name: str, experiment: Experiment, topology: aot.Topology, windows: int, weights: str,
    known: planning.Plan | None = None,
) -> planning.Plan:  # fmt: skip
    """Compiles a decoding loop, like `plan_train`."""
    if not isinstance(experiment, PriorExperiment):
        raise ConfigError(f"{name} is no prior: --what decode is for the loop over tokens.")
    program = aot.lower_decode(experiment, topology, windows, weights)
    if known is not None and planning.same(known, program):
        return known
    done = aot.compile_program(program)
    return planning.decode_plan(name, experiment, topology, program, done, windows, weights)


def fit(name: str, experiment: Experiment, topology: aot.Topology, say: Any) -> planning.Plan:
    """The plan of the largest global batch that fits."""
    mesh = planning.mesh_sizes(experiment, len(topology.devices))
    plans: dict[int, planning.Plan] = {}

    def attempt(batch: int) -> aot.Memory:
        plan = plan_train(name, planning.with_batch(experiment, batch), topology)
        plans[batch] = plan
        m = plan["memory"]
        say(f"batch {batch}: peak {gib(m['peak'])}, {'fits' if plan['fits'] else 'does not fit'}")
        available = None if plan["fits"] else m["peak"] - m["short"]
        return aot.Memory(plan["fits"], m["arguments"], m["temporaries"], m["peak"], available)

    share = mesh["data"] * mesh["fsdp"] * experiment.train.accumulate
    tried = planning.largest_batch(attempt, experiment.train.batch, share, topology.chip.memory)
    return plans[max(a.batch for a in tried if a.memory.fits)]


def make_plan(entry: plan_table.Entry, kept: planning.Plan | None) -> planning.Plan:
    """The plan of an entry of the table."""
    experiment, topology = entry.experiment(), aot.topology(entry.topology, entry.slices)
    if entry.windows is None:
        return plan_train(entry.preset, experiment, topology, kept)
    return plan_decode(entry.preset, experiment, topology, entry.windows, entry.weights, kept)


def gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"


def render(plan: planning.Plan) -> str:
    """A plan for reading."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan["mesh"].items())
    slices = f"{plan['slices']} x " if plan["slices"] > 1 else ""
    lines = [
        f"{plan['preset']}, {plan['what']}, on {slices}{plan['topology']} "
        f"({plan['devices']} devices: {mesh})",
        f"parameters          {plan['parameters']:,}",
    ]
    if plan["what"] == "train":
        lines += [
            f"global batch        {plan['batch']:,} examples, {plan['tokens_per_step']:,} tokens"
            + (f", in {plan['accumulate']} microbatches" if "accumulate" in plan else ""),
            f"model FLOPs         {plan['flops_per_token']:.4g} a token, "
            f"{plan['flops_per_step']:.4g} a step",
        ]
    else:
        lines += [
            f"windows             {plan['windows']}, weights {plan['weights']}, "
            f"caches {gib(plan['cache_bytes'])} in all",
            f"must be read        {plan['read_bytes_per_token'] / 1e9:.3f} GB a token and device: "
            f"at most {plan['tokens_per_s_if_read_once']:,.1f} tokens/s",
        ]
    m = plan["memory"]
    verdict = "fits" if plan["fits"] else f"DOES NOT FIT: {gib(m['short'])} are lacking"
    lines.append(
        f"memory a device     arguments {gib(m['arguments'])} + temporaries "
        f"{gib(m['temporaries'])}: peak {gib(m['peak'])} of {gib(m['chip'])}; {verdict}"
    )
    lines += [f"  would help: {line}" for line in plan.get("advice", [])]
    if not plan["fits"]:
        return "\n".join(lines)
    unit = "step" if plan["what"] == "train" else "token"
    for kind, t in plan["collectives"].items():
        lines.append(f"{kind:20}{t['count']:,} a {unit}, {t['bytes'] / 1e9:.3f} GB sent a device")
    for one in plan.get("heaviest_collectives", []):
        sent = f"{one['bytes'] / 1e9:8.3f} GB in {one['times']} x {one['kind']}"
        lines.append(f"  {sent}: ...{one['of'][-60:]}")
    shares = ", ".join(f"{k} {v:.1%}" for k, v in plan["operations"].items() if v >= 0.005)
    bounds = ", ".join(f"{k} {v:.4g} s" for k, v in plan["bounds_s"].items())
    of_what = "charges by peaks" if "jax-cuda12-plugin" in plan["versions"] else "compiler's cycles"
    lines += [f"{of_what:20}{shares}", f"bounds a {unit:11}{bounds}"]
    if plan["what"] == "train":
        rate = plan["tokens_per_step"] / plan["step_s"] / plan["devices"]
        lines.append(
            f"not faster than     {plan['step_s']:.4g} s a step, {rate:,.0f} tokens/s a device: "
            f"MFU of at most {plan['mfu_ceiling']:.1%}"
        )
    else:
        lines += [
            f"HBM traffic         {plan['hbm_bytes'] / 1e9:.3f} GB a token and device, "
            f"{plan['hbm_ratio']:.3f} of what must be read; {plan['hbm_bytes_per_call'] / 1e9:.3f} "
            "GB a call beside",
            f"not faster than     {plan['tokens_per_s_ceiling']:,.1f} tokens/s",
        ]
    return "\n".join(lines)


@cli.command
def main(arguments: list[str]) -> None:
    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    name, rest = cli.take_preset(arguments, USAGE)
    if name == "plans":
        plan_table.regenerate(make_plan, rest, say)
        return
    if name == "shardings":
        sharding_table.regenerate()
        return
    command = parse(name, rest)
    if command.fit and command.what == "decode":
        raise ConfigError("--fit searches the batch of a train step; leave out --what decode.")
    topology = aot.topology(command.topology, command.slices)
    if command.what == "decode":
        plan = plan_decode(name, command.experiment, topology, command.windows, command.weights)
    elif command.fit:
        plan = fit(name, command.experiment, topology, say)
    else:
        plan = plan_train(name, command.experiment, topology)
    print(json.dumps(plan) if command.json else render(plan))
    if not plan["fits"]:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
