"""Cost and gain of cutting a song's upsampling into chains (`--parallel-segments`).

jukejax benchmark seams --sample runs/demo/sample

A finished sample of one chain gives the upper codes and the songs' labels. Each lower level is
sampled again in N chains from the same codes and random numbers. Bits: tokens after a seam, scored
by the prior given the half window before it, at the same places of both. Joins: the difference of
the spectra of the 25 ms before and after a seam. Speed: a second run, compiled by the first, of one
song.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from experiments.benchmark.timing import timed
from jukejax.config import ConfigError, MeshConfig
from jukejax.evaluation import bootstrap, scoring
from jukejax.formatting import table
from jukejax.model_dir import LoadedPrior, LoadedVQVAE, load_model
from jukejax.parallel.mesh import batch_ways, make_mesh
from jukejax.sampling import sound
from jukejax.sampling.cascade import Sampler, begin, by_chain, sample_level, window_batch
from jukejax.sampling.job import Job
from jukejax.sampling.loop import make_loop
from jukejax.sampling.plan import Plan, Window, plan_rounds
from jukejax.sampling.request import Request, Source, open_source
from jukejax.sampling.resolve import Level, resolve
from jukejax.sampling.sample_dir import read_job

JOIN_SECONDS, FLOOR_DB = 0.025, -80.0
PARTS = (1, 8, 64)  # tokens after a seam: the first of them, to 8, to 64, to half a window


@dataclass(frozen=True)
class Command:
    """What chains cost in bits and at joins, and gain in tokens a second."""

    sample: Path
    """A finished sample directory of one chain, of all levels."""
    segments: tuple[int, ...] = (2, 4, 8)
    """Numbers of chains to cut songs into; a chain for every window is measured too."""


def make(
    job: Job, setup: Level, prior: LoadedPrior, mesh: Mesh, plan: Plan,
    upper: NDArray[np.integer],
) -> tuple[NDArray[np.integer], float]:  # fmt: skip
    """Codes (N, T) of a level by a plan, and the seconds of a second run of the first song."""

    def run(songs: int) -> NDArray[np.integer]:
        some = jax.tree.map(lambda x: x[:songs], setup.controls[0])
        control = by_chain(some, songs, plan.chains)
        rows = songs * plan.chains
        loop = make_loop(setup.config, mesh, prior.params, rows, control, plan.chains)

        assert setup.conditions is not None
        describe = setup.conditions.songs(slice(songs))
        sampler = Sampler(
            setup.config, loop, loop.place(prior.params), plan, describe, job.seed,
            np.arange(songs), control,
        )  # fmt: skip
        *_, end = sample_level(
            sampler, begin(np.zeros((songs, plan.total), np.int32)), upper[:songs]
        )
        return end.codes

    codes = run(len(job.items))
    run(1)
    return codes, timed(lambda: run(1))


def seams(plan: Plan) -> list[int]:
    """Where the chains but the first begin, in tokens."""
    return [window.given for window in plan.rounds[0][1:]]


def bits_after(
    scorer: scoring.Scorer,
    setup: Level,
    codes: NDArray[np.integer],
    upper: NDArray[np.integer],
    places: Sequence[int],
    rows: int,
) -> NDArray[np.float64]:
    """Bits (N, places, n_ctx / 2) of the tokens after places, by what is left of them in a window.

    A place so near to the end that half a window does not follow has nan at its end. The scorer is
    given `rows` songs at once.
    """
    c, bits = setup.config, []
    assert setup.conditions is not None
    half, total = c.n_ctx // 2, codes.shape[1]
    for place in places:
        start = max(0, place - half) // setup.ratio * setup.ratio
        stop = min(total, start + c.n_ctx)
        window = Window(start, stop, stop)
        batch = window_batch(c, window, codes, upper, setup.conditions)
        scores = scoring.score_all(scorer, batch, rows)
        after = np.full((len(codes), half), np.nan)
        here = scores[:, place - start : min(stop, place + half) - start]
        after[:, : here.shape[1]] = here
        bits.append(after)
    return np.stack(bits, 1)


def gaps(audio: NDArray[np.float32], places: Sequence[int], size: int) -> NDArray[np.float64]:
    """Root mean square distance in dB (N, places) of the spectra before and after samples."""
    window = np.hanning(size)

    def spectrum(start: int) -> NDArray[np.float64]:
        part = np.abs(np.fft.rfft(window * audio[:, start : start + size], axis=1))
        return np.maximum(20 * np.log10(part / (size / 4) + 1e-12), FLOOR_DB)

    differences = [spectrum(place) - spectrum(place - size) for place in places]
    return np.stack([np.sqrt(np.mean(x**2, 1)) for x in differences], 1)


def compared(cut: NDArray[np.float64], whole: NDArray[np.float64]) -> dict[str, Any]:
    """Means of two arrays (N, ...), their difference and its interval over songs."""

    def songs(x: NDArray[np.float64]) -> dict[str, tuple[float, float]]:
        return {str(i): (float(np.nanmean(row)), 1.0) for i, row in enumerate(x)}

    difference, interval = bootstrap.difference(songs(whole), songs(cut))
    return {
        "chains": float(np.nanmean(cut)), "one": float(np.nanmean(whole)),
        "difference": difference, "interval": interval,
    }  # fmt: skip


def of_level(
    source: Source, setup: Level, prior: LoadedPrior, model: LoadedVQVAE, mesh: Mesh,
    segments: Sequence[int],
) -> list[dict[str, Any]]:  # fmt: skip
    """A row for one chain and for each number of chains."""
    c, job = setup.config, source.job
    upper, kept = source.codes[c.level + 1], source.codes[c.level]
    total, half = kept.shape[1], c.n_ctx // 2
    scorer = scoring.make_scorer(c, prior.params, mesh)
    rows_at_once = -(-len(kept) // batch_ways(mesh)) * batch_ways(mesh)
    size = round(JOIN_SECONDS * c.sample_rate)

    def decoded(codes: NDArray[np.integer]) -> NDArray[np.float32]:
        parts = list(sound.decoder(model, c.level)(codes))
        return np.clip(np.concatenate(parts, 1), -1.0, 1.0)

    rows: list[dict[str, Any]] = []
    whole, audio = kept, decoded(kept)
    for chains in dict.fromkeys((1, *segments, -(-total // c.n_ctx))):
        plan = plan_rounds(total, c.n_ctx, job.hop_fraction[c.level], setup.ratio, 0, chains)
        made, seconds = make(job, setup, prior, mesh, plan, upper)
        row = {
            "level": c.level, "chains": plan.chains, "rounds": len(plan.rounds),
            "steps": plan.steps(), "tokens_per_second": total / seconds,
        }  # fmt: skip
        if chains == 1:
            row["as_sampled"] = bool((made == whole).all())
        else:
            places = seams(plan)
            cut, one = (
                bits_after(scorer, setup, z, upper, places, rows_at_once) for z in (made, whole)
            )
            borders = [0, *(part for part in PARTS if part < half), half]
            row["bits"] = {
                f"{a + 1} to {b}": compared(cut[..., a:b], one[..., a:b])
                for a, b in itertools.pairwise(borders)
            }
            at = [
                place * c.hop for place in places if size <= place * c.hop <= audio.shape[1] - size
            ]
            row["join_db"] = compared(gaps(decoded(made), at, size), gaps(audio, at, size))
        rows.append(row)
    return rows


def run(command: Command) -> dict[str, Any]:
    """The rows of all levels with codes above, top first."""
    mesh = make_mesh(MeshConfig())
    loaded = load_model(read_job(command.sample / "job.json")[1].model, mesh)
    source = open_source(command.sample, (), loaded)
    job, folder, model = source.job, loaded.directory, loaded.vqvae
    samples = job.samples(model.config.sample_rate, model.config.block)
    short = [
        z.shape[1] * hop < samples for z, hop in zip(source.codes, model.config.hops, strict=True)
    ]
    if any(short) or job.parallel_segments > 1 or any(job.given) or job.max_batch:
        raise ConfigError(
            f"{command.sample} must have finished songs without a prompt, of one chain and one "
            "batch; make them with `jukejax sample`."
        )
    rows = []
    for setup in resolve(Request(job, []), loaded):
        if setup.config.upper:
            prior = folder.load_prior(mesh, model, setup.level)
            with jax.set_mesh(mesh):
                rows += of_level(source, setup, prior, model, mesh, command.segments)
    return {"songs": len(job.items), "seconds": job.seconds, "rows": rows}


def _difference(pair: dict[str, Any]) -> str:
    text = f"{pair['chains']:.3f} ({pair['difference']:+.3f}"
    if pair["interval"]:
        text += f"; {pair['interval'][0]:+.3f} to {pair['interval'][1]:+.3f}"
    return text + ")"


def lines(figures: dict[str, Any]) -> list[str]:
    """Two tables: what chains gain, and what seams cost."""
    gains, costs = [], []
    one = {r["level"]: r["tokens_per_second"] for r in figures["rows"] if r["chains"] == 1}
    for row in figures["rows"]:
        name, speed = [str(row["level"]), str(row["chains"])], row["tokens_per_second"]
        gain = f"{speed / one[row['level']]:.2f}"
        gains.append([*name, str(row["rounds"]), f"{row['steps']:,}", f"{speed:,.0f}", gain])
        for part, pair in row.get("bits", {}).items():
            costs.append([*name, f"bits of tokens {part}", _difference(pair)])
        if "join_db" in row:
            costs.append([*name, "dB at joins", _difference(row["join_db"])])
    same = [str(row["as_sampled"]) for row in figures["rows"] if row["chains"] == 1]
    return [
        f"{figures['songs']} songs of {figures['seconds']:g} s; tokens/s of one song.",
        table(("level", "chains", "rounds", "steps", "tokens/s", "gain"), gains),
        "After seams (difference from the same places of one chain, with 95 % over songs):",
        table(("level", "chains", "what", "at seams"), costs),
        f"One chain gives the sample's own codes: {', '.join(same)}",
    ]
