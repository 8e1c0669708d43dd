"""The suite `cascade`: do sampling and scoring use the same conditions?

Tokens that a prior drew under some conditions are on average no less probable under these than
under any others (Gibbs' inequality). So if it uses a condition at all, replacing it must cost bits
on its own samples; if it does not, sampling and scoring condition the prior differently.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jukejax.errors import CheckpointError
from jukejax.evaluation import conditions, sample_sets, scoring
from jukejax.evaluation.results import Figure, Table
from jukejax.evaluation.subject import Result, Subject, Suite, evenly
from jukejax.model_dir import LoadedModel
from jukejax.sampling.cascade import window_batch
from jukejax.sampling.request import Request
from jukejax.sampling.resolve import Level, resolve
from jukejax.sampling.sample_dir import SampleDir, read_job

WINDOWS = 256  # of a level, evenly over its songs, at most
ABOUT = (
    "Samples are tokens whose conditions are known: the prior drew them under exactly these. On "
    "average nothing else can make them more probable, so if a prior uses a condition, replacing "
    "it must cost bits here, with an interval above 0. Below 0 there is a fault in sampling or "
    "scoring. Near 0, the prior ignores the condition. It says nothing about how good the model "
    "is; held-out songs do (likelihood). Tokens are scored in the windows that made them, after "
    "the codes these were given. A temperature below 1, top-k or top-p break the rule a little."
)


def made_windows(
    resolved: Level, codes: NDArray[np.int32], upper: NDArray[np.int32] | None, most: int
) -> conditions.Windows:
    """Windows that made a level's codes (S, T), at most `most` of each song, evenly spread.

    Returns:
      what the prior reads, "song", "place", and "counted": which tokens a window made.
    """
    c, songs, parts = resolved.config, np.arange(len(codes)), []

    assert resolved.conditions is not None
    for window in evenly(resolved.plan.windows, most):
        complete = dataclasses.replace(window, given=window.stop)
        place = window.start + np.arange(c.n_ctx)
        counted = (place >= window.given) & (place < window.stop)
        parts.append(
            window_batch(c, complete, codes, upper, resolved.conditions)
            | {
                "song": songs,
                "place": np.full(len(codes), window.start / codes.shape[1]),
                "counted": np.tile(counted, (len(codes), 1)),
            }
        )
    return joined(parts)


def joined(parts: list[conditions.Windows]) -> conditions.Windows:
    """The windows of all parts, one after the other."""
    return {name: np.concatenate([x[name] for x in parts]) for name in parts[0]}


def levels_of(
    subject: Subject, path: Path
) -> Iterator[tuple[Level, NDArray[np.int32], NDArray[np.int32] | None]]:
    """Level, codes and upper codes of each level of a sample directory that a prior made.

    Raises:
      CheckpointError: it is not finished, or was made by other weights than these.
      ConfigError: it is not a sample directory.
    """
    sample, (_, job) = SampleDir.open(path), read_job(path / "job.json")
    made_by = {entry["level"]: entry["weights"] for entry in sample.record["levels"]}
    hops = subject.vqvae.config.hops
    samples = job.samples(subject.vqvae.config.sample_rate, subject.vqvae.config.block)

    model = LoadedModel(subject.directory, subject.vqvae, subject.mesh)

    def load(level: int) -> NDArray[np.int32]:
        codes, done = sample.load(level, (len(job.items), samples // hops[level]))
        if done.min() < codes.shape[1]:
            raise CheckpointError(f"{path} is not finished; sample there again to continue.")
        return codes.astype(np.int32)

    for resolved in resolve(Request(job, []), model):
        was = made_by[resolved.level]
        if was != resolved.weights:
            raise CheckpointError(
                f"{path} was made with {was}, but {subject.directory.path} has {resolved.weights}; "
                "give samples of this model as it is now."
            )
        yield (
            resolved,
            load(resolved.level),
            load(resolved.level + 1) if resolved.config.upper else None,
        )


def of_level(subject: Subject, parts: list[Any]) -> dict[str, Any]:
    """Figures of one prior from (level, codes, upper codes) of each sample directory."""
    config = parts[0][0].config
    songs = sum(len(codes) for _, codes, _ in parts)
    most = max(1, WINDOWS // songs)
    several = [made_windows(resolved, codes, upper, most) for resolved, codes, upper in parts]
    first = 0
    for windows, (_, codes, _) in zip(several, parts, strict=True):
        windows["song"] += first
        first += len(codes)
    windows = joined(several)
    unigram = None
    if config.upper:
        drawn = np.concatenate([upper.ravel() for *_, upper in parts])
        unigram = np.bincount(drawn, minlength=config.codes) / len(drawn)
    prior = subject.load_prior(config.level)
    scorer = scoring.make_scorer(config, prior.params, subject.mesh)
    count = len(windows["codes"])
    worth = conditions.differences(subject, config, scorer, "samples", windows, count, unigram)
    return {
        "level": config.level,
        "step": prior.step,
        "songs": songs,
        "tokens": int(windows["counted"].sum()),
        "conditions": worth,
    }


def measure(subject: Subject) -> Result:
    """Figures of every prior whose tokens the samples hold, top level first."""
    folders = sample_sets.sample_dirs(subject)
    by_level: dict[int, list[Any]] = {}
    for path in folders:
        for part in levels_of(subject, path):
            by_level.setdefault(part[0].level, []).append(part)
    ordered = sorted(by_level.items(), reverse=True)
    return {
        "folders": [str(path) for path in folders],
        "levels": [of_level(subject, parts) for _, parts in ordered],
    }


def tables(result: Result) -> list[Table]:
    return [conditions.worth_table(result["levels"], "samples", "the model's own samples")]


def figures(result: Result) -> list[Figure]:
    return conditions.worth_figures(result["levels"])


SUITE = Suite(
    title="Known cascade",
    about=ABOUT,
    measure=measure,
    tables=tables,
    figures=figures,
    needs=("vqvae", "priors", "labels"),
    source=sample_sets.source,
)
