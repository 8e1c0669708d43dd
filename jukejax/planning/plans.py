"""Plans: what a preset's program needs on a topology, as plain numbers for JSON."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from jukejax import costs
from jukejax.config import ConfigError, Experiment, PriorConfig, PriorExperiment
from jukejax.planning import aot, hlo_counts
from jukejax.planning.aot import Compiled, Memory, Topology
from jukejax.planning.hlo_counts import Counts

Plan = dict[str, Any]
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
_MOST_BATCHES = 12  # that `fit` tries


@dataclass(frozen=True)
class Target:
    """What is planned: a preset's train step, or its decoding loop over a batch of windows."""

    preset: str
    experiment: Experiment
    topology: Topology
    windows: int | None = None  # None: the train step
    weights: str = "float32"  # format of the stack's matrices when decoding

    @property
    def mesh(self) -> dict[str, int]:
        return mesh_sizes(self.experiment, len(self.topology.devices))


def mesh_sizes(experiment: Experiment, devices: int) -> dict[str, int]:
    """The mesh by axis; the axis of size -1 gets the remaining devices."""
    m = experiment.mesh
    sizes = {"data": m.data, "fsdp": m.fsdp, "tensor": m.tensor}
    known = math.prod(size for size in sizes.values() if size != -1)
    return {axis: devices // known if size == -1 else size for axis, size in sizes.items()}


def make(target: Target, known: Plan | None = None) -> Plan:
    """Compiles the target's program; `known` is returned if it is a plan of the same program.

    Raises:
      ConfigError: the target cannot be lowered, or its compiler is not installed.
    """
    e, topology = target.experiment, target.topology
    if target.windows is None:
        program = aot.lower_train(e, topology)
    elif isinstance(e, PriorExperiment):
        program = aot.lower_decode(e, topology, target.windows, target.weights)
    else:
        raise ConfigError(f"{target.preset} is no prior: --what decode is the loop over tokens.")
    fingerprint = aot.fingerprint(program)
    if known is not None and _is_of(known, fingerprint):
        return known
    return of_compiled(target, fingerprint, aot.compile_program(program))


def with_evaluation(target: Target, plan: Plan) -> Plan:
    """A train step's plan with the memory of the run's evaluations, the largest of them.

    A plan that has it, or is of decoding, is returned itself.
    """
    if target.windows is not None or "evaluation" in plan:
        return plan
    chip = target.topology.chip.memory
    sizes = []
    for program in aot.lower_evaluation(target.experiment, target.topology):
        memory = aot.compile_program(program).memory
        needed = memory.peak - memory.arguments  # temporaries and results
        peak = program.arguments + needed if memory.fits else memory.peak
        fits = memory.fits and peak <= chip
        sizes.append({"temporaries": needed, "peak": peak, "fits": fits})
    return {**plan, "evaluation": max(sizes, key=lambda size: size["peak"])}


def _is_of(plan: Plan, fingerprint: str) -> bool:
    counted = plan["versions"].get("counts") == hlo_counts.VERSION
    return counted and plan["fingerprint"] == fingerprint


def of_compiled(target: Target, fingerprint: str, compiled: Compiled) -> Plan:
    """The plan of a compiled program; its times are of a step, or of one token of every window."""
    chip, train = target.topology.chip, target.windows is None
    about, figures = (_about_train, _train) if train else (_about_decode, _decode)
    plan = {
        "preset": target.preset,
        "what": "train" if train else "decode",
        "topology": target.topology.name,
        "slices": target.topology.slices,
        "devices": len(target.topology.devices),
        "mesh": target.mesh,
        "parameters": costs.parameters(target.experiment),
        "versions": {**aot.versions(target.topology), "counts": hlo_counts.VERSION},
        **about(target),
        **_memory(compiled.memory, chip),
        "fingerprint": fingerprint,
    }
    if not compiled.memory.fits:
        advice = train_advice(target, compiled.memory) if train else decode_advice(target)
        return {**plan, "advice": advice}
    counts, trip = hlo_counts.count(compiled.text, plan["devices"], target.topology.host)
    return plan | figures(target, plan, counts, trip)


def _memory(memory: Memory, chip: costs.Chip) -> Plan:
    sizes = {
        "arguments": memory.arguments,
        "temporaries": memory.temporaries,
        "peak": memory.peak,
        "chip": chip.memory,
    }
    if not memory.fits:
        sizes["short"] = memory.peak - (memory.available or chip.memory)
    return {"fits": memory.fits, "memory": sizes}


def _about_train(target: Target) -> Plan:
    e = target.experiment
    flops, parts = costs.train_flops(e), e.train.accumulate
    return {
        "batch": e.train.batch,
        **({"accumulate": parts} if parts > 1 else {}),
        "remat": getattr(e.model, "remat", None),
        "tokens_per_step": e.train.batch * costs.tokens(e),
        "flops_per_token": flops / costs.tokens(e),
        "flops_per_step": flops * e.train.batch,
    }


def _train(target: Target, plan: Plan, counts: Counts, _: Counts | None) -> Plan:
    chip = target.topology.chip
    seconds = aot.bounds(counts, chip)
    longest = max(seconds.values())
    return {
        "compiled_flops": counts.flops,
        "hbm_bytes": counts.hbm_bytes,
        "collectives": aot.traffic(counts),
        "heaviest_collectives": aot.heaviest(counts),
        "operations": aot.operations(counts, chip),
        "bounds_s": seconds,
        "step_s": longest,
        "mfu_ceiling": plan["flops_per_step"] / plan["devices"] / chip.flops / longest,
    }


def _about_decode(target: Target) -> Plan:
    c, windows = target.experiment.model, target.windows
    assert isinstance(c, PriorConfig) and windows is not None
    weight, cached = _BYTES[target.weights], _BYTES[c.dtype]
    # weights in another dtype than the activations' are converted once a call, before the loop
    read = costs.decode_bytes(c, windows, min(weight, cached), cached) / target.mesh["tensor"]
    return {
        "windows": windows,
        "weights": target.weights,
        "cache_bytes": costs.cache_bytes(c, windows, cached),
        "read_bytes_per_token": read,
        "tokens_per_s_if_read_once": windows * target.topology.chip.bandwidth / read,
    }


def _decode(target: Target, plan: Plan, call: Counts, trip: Counts | None) -> Plan:
    if trip is None:
        raise ValueError("the compiled program has no loop of unknown length: not the decoding.")
    chip = target.topology.chip
    seconds = aot.bounds(trip, chip)
    longest = max(seconds.values())
    return {
        "hbm_bytes": trip.hbm_bytes,
        "hbm_ratio": trip.hbm_bytes / plan["read_bytes_per_token"],
        "hbm_bytes_per_call": call.hbm_bytes,  # outside the loop: layouts changed and back
        "collectives": aot.traffic(trip),
        "operations": aot.operations(trip, chip),
        "bounds_s": seconds,
        "token_s": longest,
        "tokens_per_s_ceiling": plan["windows"] / longest,
    }


# --- programs that do not fit ---------------------------------------------------------------------


def train_advice(target: Target, memory: Memory) -> list[str]:
    """What would make a train step smaller, by arithmetic; none of it has been compiled."""
    e, mesh, advice = target.experiment, target.mesh, []
    ways = mesh["data"] * mesh["fsdp"]
    each = e.train.batch // ways
    if each > 1:
        less = memory.temporaries // each
        advice.append(
            f"--train.batch {e.train.batch - ways} ({each - 1} examples a device instead of "
            f"{each}): temporaries shrink by up to {less / costs.GIB:.1f} GiB; --fit searches the "
            "largest batch."
        )
    width = e.model.width if isinstance(e, PriorExperiment) else 1
    most = math.gcd(ways, width)  # arrays whose width fsdp does not divide are not split
    if mesh["fsdp"] < most:
        state = memory.arguments * (1 - mesh["fsdp"] / most)
        advice.append(
            f"--mesh.fsdp up to {most}: parameters and optimizer state shrink by up to "
            f"{state / costs.GIB:.1f} GiB."
        )
    if isinstance(e, PriorExperiment) and e.model.remat != "layer":
        advice.append("--model.remat layer: of a layer's activations only its input is kept.")
    if e.model.dtype == "float32":
        advice.append("--model.dtype bfloat16: activations take half the memory.")
    if e.train.state_dtype == "float32":
        advice.append(
            "--train.state_dtype bfloat16: parameters and optimizer state shrink by up to "
            f"{memory.arguments / 2 / costs.GIB:.1f} GiB."
        )
    return [*advice, "a larger topology, or chips with more memory."]


def decode_advice(target: Target) -> list[str]:
    """What would make a decoding loop smaller; none of it has been compiled."""
    advice = []
    if target.weights == "float32":
        saved = 2 * costs.parameters(target.experiment) / target.mesh["tensor"]
        advice.append(f"--weights bfloat16: {saved / costs.GIB:.1f} GiB less a device.")
    c = target.experiment.model
    if target.windows != 1 and isinstance(c, PriorConfig):
        each = costs.cache_bytes(c, 1, 2)
        advice.append(
            f"fewer --windows: the caches of one are {each / costs.GIB:.2f} GiB (bfloat16)."
        )
    return [*advice, "--mesh.tensor: weights and caches are split over that many chips."]


def fit(target: Target, say: Callable[[str], None]) -> Plan:
    """The plan of the largest global batch that fits.

    Raises:
      ConfigError: not even one example a device fits.
    """
    e = target.experiment

    def attempt(batch: int) -> Plan:
        train = replace(e.train, batch=batch)
        plan = make(replace(target, experiment=replace(e, train=train)))
        peak = plan["memory"]["peak"] / costs.GIB
        say(f"batch {batch}: peak {peak:.2f} GiB, {'fits' if plan['fits'] else 'does not fit'}")
        return plan

    share = target.mesh["data"] * target.mesh["fsdp"] * e.train.accumulate
    return largest_batch(attempt, e.train.batch, share)


def largest_batch(attempt: Callable[[int], Plan], first: int, share: int) -> Plan:
    """The plan of the largest multiple of `share` that fits; the next multiple has been tried too.

    A batch that does not fit is refused in seconds, one that fits compiles for minutes. Memory is
    nearly linear in the batch, so the search interpolates.

    Raises:
      ConfigError: not even one example a device fits.
    """
    plans: dict[int, Plan] = {}  # by multiple of `share`

    def fits(k: int) -> bool:
        if k not in plans:
            plans[k] = attempt(k * share)
        return plans[k]["fits"]

    def available(k: int) -> int:
        memory = plans[k]["memory"]
        return memory["peak"] - memory["short"] if "short" in memory else memory["chip"]

    low, high = 0, max(first // share, 1)
    while fits(high):
        if len(plans) >= _MOST_BATCHES:
            raise ConfigError(f"batches of {high * share} and more fit; the search stops there.")
        memory = plans[high]["memory"]
        each = max(memory["temporaries"] / high, 1.0)
        likely = int((memory["chip"] - memory["arguments"]) / each)
        low, high = high, max(likely, high) + 1
    while high - low > 1:
        above = plans[high]["memory"]
        base = plans[low]["memory"]["peak"] if low else above["arguments"]
        each = max((above["peak"] - base) / (high - low), 1.0)
        likely = low + int((available(high) - base) / each)
        guess = min(max(likely, low + 1), high - 1)
        low, high = (guess, high) if fits(guess) else (low, guess)
    if low == 0:
        short = plans[high]["memory"]["short"]
        raise ConfigError(
            f"Not even one example a device fits: {short / costs.GIB:.1f} GiB are missing. Split "
            "the parameters further (--mesh.fsdp) or take a larger topology."
        )
    return plans[low]
