"""What sampling a job takes, computed before anything is sampled: windows, memory, time."""

from __future__ import annotations

import itertools
from pathlib import Path

import jax.numpy as jnp

from jukejax import costs, presets
from jukejax.config import ConfigError, PriorConfig, VQVAEConfig
from jukejax.formatting import format_seconds, size_text, table
from jukejax.parallel.mesh import Mesh
from jukejax.sampling.job import Item, Job, Options
from jukejax.sampling.memory import bandwidth, free_memory
from jukejax.sampling.plan import Plan, Window
from jukejax.sampling.request import new_job
from jukejax.sampling.resolve import Level, resolve_shapes
from jukejax.sampling.sample_dir import SampleDir


def peak_bytes(levels: list[Level], mesh: Mesh, stream: bool) -> int:
    """Peak bytes of a job on one device: of its largest level or, streamed, of all levels."""
    sampled = [level for level in levels if level.plan.rounds]
    memories = [level.memory(mesh) for level in sampled]
    if not stream:
        return max((m.peak for m in memories), default=0)
    resident = sum(
        m.weights + len(s.batches) * m.caches for s, m in zip(sampled, memories, strict=True)
    )
    return resident + max((max(m.prefill, m.loading) for m in memories), default=0)


def memory_text(needed: int, free: int) -> str:
    """The peak memory of a job beside what is free (0: unknown)."""
    return f"At most {size_text(needed)} at once{f' of {size_text(free)} free' if free else ''}."


def check_memory(levels: list[Level], mesh: Mesh, stream: bool) -> str:
    """The peak memory of a job beside the free memory, as a sentence.

    Raises:
      ConfigError: it cannot fit into the memory of the device, or of the host.
    """
    needed, free = peak_bytes(levels, mesh, stream), free_memory()
    if not free or needed <= free:
        return memory_text(needed, free)
    songs = max(level.largest for level in levels)
    rows = max(level.largest * level.plan.chains for level in levels)
    chains = any(level.plan.chains > 1 for level in levels)
    ways = ["leave out --stream"] * stream
    ways += [f"give a --max-batch below {rows}"] * (songs > 1)
    ways += ["give fewer --parallel-segments"] * chains
    raise ConfigError(
        f"The job takes about {size_text(needed)}, but {size_text(free)} are free; "
        f"{', or '.join(ways) or 'use a machine with more memory'}. --plan shows the memory of "
        "each part."
    )


def window_lines(windows: tuple[Window, ...]) -> list[str]:
    """One line per run of windows of equal size."""
    lines = []
    groups = itertools.groupby(windows, lambda w: (w.given - w.start, w.stop - w.given))
    for (given, made), group in groups:
        run = list(group)
        first, last = run[0], run[-1]
        count = "1 window " if len(run) == 1 else f"{len(run)} windows"
        each = "" if len(run) == 1 else " each"
        lines.append(
            f"  {count:>12} given {given:,} made {made:,}{each}: tokens {first.given:,} to "
            f"{last.stop:,}"
        )
    return lines


def plan_lines(plan: Plan) -> list[str]:
    """A level's windows as text; with several chains, of the first and the last."""
    if plan.chains == 1:
        return window_lines(plan.windows) or ["  nothing to sample: its codes are given"]
    lengths = [sum(w.stop - w.given for w in line) for line in zip(*plan.rounds, strict=True)]
    each = " to ".join(f"{n:,}" for n in sorted({min(lengths), max(lengths)}))
    return [
        f"  {plan.chains} chains side by side of {each} tokens, in {len(plan.rounds)} "
        f"round{'s' * (len(plan.rounds) != 1)} of one window each; the first and the last:",
        *(f"  {x}" for i in (0, -1) for x in window_lines(_chain(plan, i))),
    ]


def _chain(plan: Plan, number: int) -> tuple[Window, ...]:
    """The windows of one chain that sample something."""
    line = [round[number] for round in plan.rounds]
    return tuple(window for window in line if window.stop > window.given)


def measured_speed(out: Path, level: int) -> float:
    """Steps per second measured in a sample directory; 0: none."""
    if not (out / "job.json").exists():
        return 0.0
    for entry in SampleDir.open(out).record["levels"]:
        if entry["level"] == level and entry.get("steps") and entry["seconds_to_sample"]:
            return entry["steps"] / entry["seconds_to_sample"]
    return 0.0


def plan_text(
    job: Job, config: VQVAEConfig, levels: list[Level], mesh: Mesh, out: Path, stream: bool
) -> str:
    """Windows, memory per device and time of a job, as text."""
    samples = job.samples(config.sample_rate, config.block)
    songs = len(job.items)
    lines = [
        f"{songs} song{'s' * (songs != 1)} of {job.seconds:g} s; codes for "
        f"{samples / config.sample_rate:g} s, cut to length in the sound."
    ]
    rows, total, speed = [], 0.0, bandwidth()
    for level in levels:
        memory, plan = level.memory(mesh), level.plan
        batches = [batch.stop - batch.start for batch in level.batches]
        measured = measured_speed(out, level.level)
        cached = jnp.dtype(level.config.dtype).itemsize
        batch = level.largest * plan.chains
        keys = costs.decode_bytes(level.config, batch, 0, cached)
        rate = measured or speed / (memory.read + keys)
        seconds = plan.steps() * len(batches) / rate
        total += seconds
        lines += [
            f"level {level.level}: {plan.total:,} tokens a song, "
            f"{' + '.join(map(str, batches))} sampled at once"
        ]
        lines += plan_lines(plan)
        sizes = (memory.weights, memory.caches, memory.prefill, memory.peak)
        rows.append(
            (
                str(level.level),
                f"{plan.total - plan.given:,}",
                f"{batch:,}",
                f"{plan.steps():,}",
                *(size_text(size) for size in sizes),
                f"{rate:.3g} {'measured' if measured else 'at best'}",
                format_seconds(seconds),
            )
        )
    head = ("level", "to make", "batch", "steps", "weights", "caches", "prefill", "peak",
            "steps/s", "time")  # fmt: skip
    lines += [
        "",
        table(head, rows),
        "",
        memory_text(peak_bytes(levels, mesh, stream), free_memory())
        + f" Time: {format_seconds(total)} without prefills. A step samples one token per row of a "
        "batch; 'at best' reads each weight, and the keys and values attended to, once per step at "
        f"the {speed / 1e9:.1f} GB/s measured now, "
        f"'measured' is what {out} saw so far.",
    ]
    return "\n".join(lines)


def plan_presets(
    names: tuple[str, ...], options: Options, mesh: Mesh, out: Path, stream: bool
) -> str:
    """The plan of new songs by models of which only the presets are known.

    Raises:
      ConfigError: the presets are not a VQ-VAE and a prior for each of its levels.
    """
    models = [presets.get(name).model for name in names]
    priors = {c.level: c for c in models if isinstance(c, PriorConfig)}
    vqvae = next((c for c in models if isinstance(c, VQVAEConfig)), None)
    if vqvae is None or sorted(priors) != list(range(vqvae.levels)):
        raise ConfigError(
            f"presets is {' '.join(names)}; name a VQ-VAE and a prior for each level."
        )
    job = new_job(options, (Item(),) * options.count, "")
    return plan_text(job, vqvae, resolve_shapes(job, vqvae, priors), mesh, out, stream)
