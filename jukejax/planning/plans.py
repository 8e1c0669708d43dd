"""Plans: what a preset's program needs on a topology, as plain numbers that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from jukejax import costs
from jukejax.config import ConfigError, Experiment, PriorExperiment
from jukejax.planning import aot, hlo_counts
from jukejax.planning.aot import Compiled, Memory, Program, Topology

Plan = dict[str, Any]


def mesh_sizes(experiment: Experiment, devices: int) -> dict[str, int]:
    """The mesh with -1 replaced by what is left."""
    m = experiment.mesh
    sizes = {"data": m.data, "fsdp": m.fsdp, "tensor": m.tensor}
    known = 1
    for size in sizes.values():
        known *= size if size != -1 else 1
    return {axis: devices // known if size == -1 else size for axis, size in sizes.items()}


def _head(name: str, what: str, experiment: Experiment, topology: Topology) -> Plan:
    chips = len(topology.devices)
    return {
        "preset": name,
        "what": what,
        "topology": topology.name,
        "slices": topology.slices,
        "devices": chips,
        "mesh": mesh_sizes(experiment, chips),
        "parameters": costs.parameters(experiment),
        "versions": {**aot.versions(topology), "counts": hlo_counts.VERSION},
    }


def same(plan: Plan, program: Program) -> bool:
    """Whether a plan is of this program, and counted as it would be now."""
    counted = plan["versions"].get("counts") == hlo_counts.VERSION
    return counted and plan["fingerprint"] == aot.fingerprint(program)


def _memory(memory: Memory, chip: costs.Chip) -> Plan:
    available = memory.available or chip.memory
    return {
        "fits": memory.fits,
        "memory": {
            "arguments": memory.arguments,
            "temporaries": memory.temporaries,
            "peak": memory.peak,
            "chip": chip.memory,
            **({} if memory.fits else {"short": memory.peak - available}),
        },
    }


def train_plan(
    name: str, experiment: Experiment, topology: Topology, program: Program, done: Compiled
) -> Plan:
    """The plan of a compiled train step."""
    chips, chip = len(topology.devices), topology.chip
    flops, parts = costs.train_flops(experiment), experiment.train.accumulate
    plan = {
        **_head(name, "train", experiment, topology),
        "batch": experiment.train.batch,
        **({"accumulate": parts} if parts > 1 else {}),
        "remat": getattr(experiment.model, "remat", None),
        "tokens_per_step": experiment.train.batch * costs.tokens(experiment),
        "flops_per_token": flops / costs.tokens(experiment),
        "flops_per_step": flops * experiment.train.batch,
        **_memory(done.memory, chip),
        "fingerprint": aot.fingerprint(program),
    }
    if not done.memory.fits:
        return {**plan, "advice": advice(experiment, chips, done.memory)}
    counts, _ = hlo_counts.count(done.text, chips, topology.host)
    seconds = aot.bounds(counts, chip)
    longest = max(seconds.values())
    model_flops = flops * experiment.train.batch / chips
    return {
        **plan,
        "compiled_flops": counts.flops,
        "hbm_bytes": counts.hbm_bytes,
        "collectives": aot.traffic(counts),
        "heaviest_collectives": aot.heaviest(counts),
        "operations": aot.operations(counts, chip),
        "bounds_s": seconds,
        "step_s": longest,
        "mfu_ceiling": model_flops / chip.flops / longest,
    }


def decode_plan(
    name: str, experiment: PriorExperiment, topology: Topology, program: Program,
    done: Compiled, windows: int, weights: str,
) -> Plan:  # fmt: skip
    """The plan of a compiled decoding loop; times are of one token of every window."""
    chips, chip, c = len(topology.devices), topology.chip, experiment.model
    sizes = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
    weight, cached = sizes[weights], sizes[c.dtype]
    share = mesh_sizes(experiment, chips)
    # weights in another dtype than the activations' are converted once a call, before the loop
    read = costs.decode_bytes(c, windows, min(weight, cached), cached) / share["tensor"]
    plan = {
        **_head(name, "decode", experiment, topology),
        "windows": windows,
        "weights": weights,
        "cache_bytes": costs.cache_bytes(c, windows, cached),
        "read_bytes_per_token": read,
        "tokens_per_s_if_read_once": windows * chip.bandwidth / read,
        **_memory(done.memory, chip),
        "fingerprint": aot.fingerprint(program),
    }
    if not done.memory.fits:
        return {**plan, "advice": decode_advice(experiment, chips, windows, weights)}
    call, trip = hlo_counts.count(done.text, chips, topology.host)
    if trip is None:
        raise ValueError("the decoding loop was not found in the compiled program.")
    seconds = aot.bounds(trip, chip)
    longest = max(seconds.values())
    return {
        **plan,
        "hbm_bytes": trip.hbm_bytes,
        "hbm_ratio": trip.hbm_bytes / read,
        "hbm_bytes_per_call": call.hbm_bytes,  # beside the tokens': layouts changed and back
        "collectives": aot.traffic(trip),
        "operations": aot.operations(trip, chip),
        "bounds_s": seconds,
        "token_s": longest,
        "tokens_per_s_ceiling": windows / longest,
    }


# --- what does not fit ----------------------------------------------------------------------------


def advice(experiment: Experiment, devices: int, memory: Memory) -> list[str]:
    """What would make a train step smaller, by arithmetic; nothing of it has been compiled."""
    mesh, found = mesh_sizes(experiment, devices), []
    shares = mesh["data"] * mesh["fsdp"]
    each = experiment.train.batch // shares
    if each > 1:
        less = memory.temporaries // each
        found.append(
            f"--train.batch {experiment.train.batch - shares} ({each - 1} examples a device in "
            f"place of {each}): temporaries shrink by up to {less / costs.GIB:.1f} GiB; --fit "
            "finds the largest batch."
        )
    width = experiment.model.width if isinstance(experiment, PriorExperiment) else 1
    most = math.gcd(shares, width)  # where fsdp does not divide the width, tensors stay whole
    if mesh["fsdp"] < most:
        state = memory.arguments * (1 - mesh["fsdp"] / most)
        found.append(
            f"--mesh.fsdp up to {most}: parameters and optimizer state shrink by up to "
            f"{state / costs.GIB:.1f} GiB."
        )
    if isinstance(experiment, PriorExperiment) and experiment.model.remat != "layer":
        found.append("--model.remat layer: of a layer's activations only its input is kept.")
    if experiment.model.dtype == "float32":
        found.append("--model.dtype bfloat16: activations take half the room.")
    if experiment.train.state_dtype == "float32":
        found.append(
            "--train.state_dtype bfloat16: parameters and optimizer state shrink by up to "
            f"{memory.arguments / 2 / costs.GIB:.1f} GiB."
        )
    return [*found, "a larger topology, or chips with more memory."]


def decode_advice(
    experiment: PriorExperiment, devices: int, windows: int, weights: str
) -> list[str]:
    """What would make a decoding loop smaller; nothing of it has been compiled."""
    c, found = experiment.model, []
    if weights == "float32":
        saved = 2 * costs.parameters(experiment) / mesh_sizes(experiment, devices)["tensor"]
        found.append(f"--weights bfloat16: {saved / costs.GIB:.1f} GiB less a device.")
    if windows > 1:
        each = costs.cache_bytes(c, 1, 2)
        found.append(f"fewer --windows: each has {each / costs.GIB:.2f} GiB of caches in bfloat16.")
    return [*found, "--mesh.tensor: weights and caches are split over that many chips."]


@dataclass(frozen=True)
class Attempt:
    """A batch that was tried."""

    batch: int
    memory: Memory


def largest_batch(
    attempt: Callable[[int], Memory], first: int, share: int, capacity: int, limit: int = 12
) -> list[Attempt]:
    """Tries multiples of `share` until the largest that fits is known, and that the next does not.

    A batch that does not fit is refused in seconds, one that fits compiles for minutes; memory is
    nearly linear in the batch, so the search interpolates. The last that fits is the answer.

    Raises:
      ConfigError: not even one example a device fits.
    """
    tried: dict[int, Memory] = {}

    def fits(k: int) -> bool:
        if k not in tried:
            tried[k] = attempt(k * share)
        return tried[k].fits

    low, high = 0, max(first // share, 1)
    while fits(high):
        if len(tried) >= limit:
            raise ConfigError(f"batches of {high * share} and more fit; the search stops there.")
        each = max(tried[high].temporaries / high, 1.0)
        likely = int((capacity - tried[high].arguments) / each)
        low, high = high, max(likely, high) + 1
    while high - low > 1:
        above = tried[high]
        base = tried[low].peak if low else above.arguments
        each = max((above.peak - base) / (high - low), 1.0)
        likely = low + int(((above.available or capacity) - base) / each)
        guess = min(max(likely, low + 1), high - 1)
        low, high = (guess, high) if fits(guess) else (low, guess)
    if low == 0:
        short = tried[high].peak - (tried[high].available or capacity)
        raise ConfigError(
            f"Not even one example a device fits: {short / costs.GIB:.1f} GiB are lacking. Split "
            "the parameters further (--mesh.fsdp) or take a larger topology."
        )
    return [Attempt(k * share, memory) for k, memory in tried.items()]


def with_batch(experiment: Experiment, batch: int) -> Experiment:
    """The experiment with another global batch."""
    return replace(experiment, train=replace(experiment.train, batch=batch))
