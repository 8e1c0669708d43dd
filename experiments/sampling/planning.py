"""What a job would make, by numbers alone: windows, memory, time."""

from __future__ import annotations

import itertools
from pathlib import Path

from experiments.sampling.setup import LevelSetup
from jukejax.config import ConfigError, VQVAEConfig
from jukejax.evaluation.report import table
from jukejax.parallel.mesh import Mesh
from jukejax.sampling.job import Job
from jukejax.sampling.memory import bandwidth, free_memory
from jukejax.sampling.plan import Window
from jukejax.sampling.sample_dir import SampleDir
from jukejax.training.metrics import format_seconds


def size_text(size: float) -> str:
    """Bytes in words: 3.2 GiB, 41.0 MiB."""
    unit, name = (2**30, "GiB") if size >= 2**30 else (2**20, "MiB")
    return f"{size / unit:,.{1 if size >= unit / 10 else 3}f} {name}"


def peak_bytes(job: Job, setups: list[LevelSetup], mesh: Mesh, stream: bool) -> int:
    """The most that a job takes on a device: its largest level, or all weights and caches."""
    largest = max(some.stop - some.start for some in job.batches())
    batch = min(largest, len(job.items))
    memories = [setup.memory(batch, mesh) for setup in setups if setup.windows]
    if not stream:
        return max((m.peak for m in memories), default=0)
    kept = sum(m.weights + len(job.batches()) * m.caches for m in memories)
    return kept + max((max(m.prefill, m.loading) for m in memories), default=0)


def check_memory(job: Job, setups: list[LevelSetup], mesh: Mesh, stream: bool) -> None:
    """Raises ConfigError where a job cannot fit into the device's memory, or the host's."""
    needed, free = peak_bytes(job, setups, mesh, stream), free_memory()
    if not free or needed <= free:
        return
    batch = max(len(job.items[some]) for some in job.batches())
    ways = ["leave out --stream"] * stream + [f"give a --max-batch below {batch}"] * (batch > 1)
    raise ConfigError(
        f"The job takes about {size_text(needed)}, but {size_text(free)} are free; "
        f"{', or '.join(ways) or 'use a machine with more memory'}. --plan shows what takes how "
        "much."
    )


def window_lines(windows: tuple[Window, ...]) -> list[str]:
    """Windows in words, equal ones counted."""
    lines = []
    groups = itertools.groupby(windows, lambda w: (w.given - w.start, w.stop - w.given))
    for (given, made), group in groups:
        some = list(group)
        first, last = some[0], some[-1]
        count = "1 window " if len(some) == 1 else f"{len(some)} windows"
        each = "" if len(some) == 1 else " each"
        lines.append(
            f"  {count:>12} given {given:,} made {made:,}{each}: tokens {first.given:,} to "
            f"{last.stop:,}"
        )
    return lines


def measured_speed(out: Path, level: int) -> float:
    """Tokens a second (of a batch at once) that a sample directory saw; 0: none."""
    if not (out / "job.json").exists():
        return 0.0
    for entry in SampleDir.open(out).record["levels"]:
        if entry["level"] == level and entry.get("steps") and entry["seconds_to_sample"]:
            return entry["steps"] / entry["seconds_to_sample"]
    return 0.0


def plan_text(
    job: Job, config: VQVAEConfig, setups: list[LevelSetup], mesh: Mesh, out: Path, stream: bool
) -> str:
    """Windows, memory on a device and time of a job."""
    samples = job.samples(config.sample_rate, config.hops[-1])
    songs, batches = len(job.items), [len(job.items[some]) for some in job.batches()]
    lines = [
        f"{songs} song{'s' * (songs != 1)} of {job.seconds:g} s, sampled "
        f"{' + '.join(map(str, batches))} at once; codes for "
        f"{samples / config.sample_rate:g} s, cut to length in the sound."
    ]
    rows, total, speed = [], 0.0, bandwidth()
    for setup in setups:
        memory = setup.memory(max(batches), mesh)
        steps = sum(w.stop - w.given for w in setup.windows)
        measured = measured_speed(out, setup.level)
        rate = measured or speed / memory.read
        seconds = steps * len(batches) / rate
        total += seconds
        lines += [f"level {setup.level}: {samples // setup.config.hop:,} tokens a song"]
        lines += window_lines(setup.windows) or ["  nothing to make: its codes are given"]
        sizes = (memory.weights, memory.caches, memory.prefill, memory.peak)
        rows.append(
            (
                str(setup.level),
                f"{steps:,}",
                *(size_text(size) for size in sizes),
                f"{rate:.3g} {'measured' if measured else 'at best'}",
                format_seconds(seconds),
            )
        )
    head = ("level", "to make", "weights", "caches", "prefill", "peak", "tokens/s", "time")
    peak = peak_bytes(job, setups, mesh, stream)
    lines += [
        "",
        table(head, rows),
        "",
        f"At most {size_text(peak)} at once of {size_text(free_memory())} free. "
        f"Time: {format_seconds(total)} without prefills; 'at best' reads each weight once a "
        f"token at the {speed / 1e9:.1f} GB/s measured now, 'measured' is what {out} saw so far.",
    ]
    return "\n".join(lines)
