"""Lower bounds on sampling time on a chip, from bytes and bandwidth.

jukejax benchmark limits

Nothing is run. A token takes at least the time to read the weights and the keys and values it needs
once (`costs.decode_bytes`), and that of its FLOPs at the chip's peak; a window's known codes cost
their forward FLOPs at the peak. Everything else (launches, norms, sampling, collectives) counts as
free, so real programs are slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jukejax import costs, presets
from jukejax.config import PriorConfig, PriorExperiment
from jukejax.formatting import table
from jukejax.sampling.plan import plan_rounds

CHIPS = {**costs.GPUS, **costs.CHIPS}
LEVELS = ("upsampler_level_0", "upsampler_level_1", "prior_5b")  # bottom first
HOPS = (0.5, 0.5, 0.125)  # the published hop fractions, bottom first
KEYS = 2  # bytes of a cached number (bfloat16); weights are bfloat16 or int8


@dataclass(frozen=True)
class Command:
    """Lower bounds on sampling time on a chip, for the published models."""

    seconds: float = 60.0
    """Length of a song."""
    segments: tuple[int, ...] = (1, 4, 11, 41)
    """Chains that the upsampling of a song is cut into, as one batch; 1: the exact chain."""


class Bound(NamedTuple):
    """Least seconds of one level for a batch of songs, and whether it fits one chip."""

    seconds: float
    fits: bool


def level_bound(
    c: PriorConfig, chip: costs.Chip, songs: int, weight: int, total: int, hop: float, segments: int
) -> Bound:
    """A level of `songs` songs of `total` tokens each, every one cut into `segments` chains."""
    plan = plan_rounds(total, c.n_ctx, hop, 1, chains=segments)
    batch = songs * plan.chains
    flops = costs.decode_flops(c)
    read = costs.decode_bytes(c, batch, weight, KEYS)
    token = max(read / chip.bandwidth, batch * flops / chip.flops)
    given = songs * sum(window.given - window.start for window in plan.windows)
    seconds = plan.steps() * token + given * flops / chip.flops
    weights = weight * costs.parameters(PriorExperiment(model=c))
    return Bound(seconds, weights + costs.cache_bytes(c, batch, KEYS) <= chip.memory)


def song_bound(
    chip: costs.Chip, songs: int, weight: int, seconds: float, segments: int
) -> dict[str, Any]:
    """Bounds of all levels; `segments` cuts the upsamplers, never the top level."""
    levels = []
    for level, (name, hop) in enumerate(zip(LEVELS, HOPS, strict=True)):
        c = presets.get(name).model
        assert isinstance(c, PriorConfig)
        total = round(seconds * c.sample_rate / c.hop)
        cut = segments if level < len(LEVELS) - 1 else 1
        levels.append(level_bound(c, chip, songs, weight, total, hop, cut))
    each = [bound.seconds / songs for bound in levels]
    return {
        "levels": each,
        "fits": [bound.fits for bound in levels],
        "one_after_another": sum(each),
        "pipelined": max(each),
    }


def run(command: Command) -> dict[str, Any]:
    """Bounds by chip, weights, batch and segments, in seconds per song."""
    rows = [
        {"chip": name, "weights": weights, "songs": songs, "segments": segments}
        | song_bound(chip, songs, itemsize, command.seconds, segments)
        for name, chip in CHIPS.items()
        for weights, itemsize in (("bfloat16", 2), ("int8", 1))
        for songs in (1, 16)
        for segments in command.segments
    ]
    return {"seconds": command.seconds, "rows": rows}


def lines(figures: dict[str, Any]) -> Sequence[str]:
    """The table and its assumptions."""
    header = ("chip", "weights", "songs", "chains", "top", "middle", "bottom", "in turn", "at once")

    def cell(seconds: float, fits: bool) -> str:
        return f"{seconds:.2f}" + ("" if fits else "*")

    rows = [
        (
            row["chip"],
            row["weights"],
            str(row["songs"]),
            str(row["segments"]),
            *(cell(s, f) for s, f in zip(row["levels"][::-1], row["fits"][::-1], strict=True)),
            cell(row["one_after_another"], all(row["fits"])),
            cell(row["pipelined"], all(row["fits"])),
        )
        for row in figures["rows"]
    ]
    return (
        f"Lower bounds in seconds for {figures['seconds']:g} s of music and one song of the batch, "
        "on one chip; 5B top prior and two 1B upsamplers.",
        table(header, rows),
        "*: weights and caches are more than one chip's memory; the bound is of its bandwidth.",
        "chains: parts of a song that the upsamplers sample as one batch (each level at most one a "
        "window); 1 is the exact chain.",
        "in turn: one level after another. at once: a chip a level, lower ones as codes come.",
    )
