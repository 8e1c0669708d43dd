"""What is each condition worth to a prior? Bits of windows with one condition replaced.

N windows; arrays as a prior reads them, with "song" (N,) and "place" (N,): where in its song a
window begins, in 0..1. Another song's condition comes from the next song (in cyclic order) that has
one and differs, from its window of nearest place. All else stays the truth. The suites likelihood
(held-out songs) and cascade (samples) measure and show it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jukejax.config import PriorConfig
from jukejax.evaluation import bootstrap, scoring
from jukejax.evaluation.pages import plots
from jukejax.evaluation.results import Columns, Figure, Table, spread
from jukejax.evaluation.subject import Subject
from jukejax.text.labels import unknown_ids

Windows = dict[str, NDArray[Any]]


class Replaced(NamedTuple):
    """Windows with one condition replaced, to compare with the same rows unchanged."""

    name: str
    condition: str  # "codes", "upper codes", "labels" or "lyrics"
    rows: NDArray[np.int64]
    windows: Windows  # of those rows


def donors(
    windows: Windows, rows: NDArray[np.int64], differs: Callable[[int, int], bool]
) -> NDArray[np.int64]:
    """For each of `rows` the row of another song that lends it a condition, or -1."""
    song, place = windows["song"], windows["place"]
    count = int(song.max()) + 1
    lenders = []
    for row in rows:
        others = [j for j in range(len(song)) if song[j] != song[row] and differs(row, j)]
        ahead = {j: ((song[j] - song[row]) % count, abs(place[j] - place[row])) for j in others}
        lenders.append(min(others, key=ahead.__getitem__, default=-1))
    return np.array(lenders, np.int64)


def replacements(
    config: PriorConfig,
    windows: Windows,
    count: int,
    upper_unigram: NDArray[np.float64] | None,
) -> Iterator[Replaced]:
    """Every replacement that the prior and the windows allow.

    Args:
      windows: the first `count` are scored; the others only lend their conditions.
      upper_unigram: how likely each code of the level above is on its own, for priors that read it.
    """
    rng, every = np.random.default_rng(0), np.arange(count)

    def with_changes(rows: NDArray[np.int64], changed: Windows) -> Windows:
        return {name: array[rows] for name, array in windows.items()} | changed

    def shuffled(array: NDArray[Any]) -> NDArray[Any]:
        return rng.permuted(array, axis=1)

    def lent(
        name: str, keys: tuple[str, ...], rows: NDArray[np.int64], needs: NDArray[np.bool_]
    ) -> Iterator[Replaced]:
        def differs(i: int, j: int) -> bool:
            same = all(np.array_equal(windows[k][i], windows[k][j]) for k in keys)
            return bool(needs[j]) and not same

        lenders = donors(windows, rows, differs)
        rows, lenders = rows[lenders >= 0], lenders[lenders >= 0]
        if len(rows):
            changed = with_changes(rows, {key: windows[key][lenders] for key in keys})
            yield Replaced(f"another song's {name}", name, rows, changed)

    shuffle = {"codes": shuffled(windows["codes"][:count])}
    yield Replaced("shuffled codes", "codes", every, with_changes(every, shuffle))
    anything = np.ones(len(windows["song"]), bool)
    if config.upper:
        assert upper_unigram is not None
        yield from lent("upper codes", ("upper",), every, anything)
        shape = windows["upper"][:count].shape
        drawn = rng.choice(len(upper_unigram), shape, p=upper_unigram).astype(np.int32)
        for name, upper in (
            ("shuffled upper codes", shuffled(windows["upper"][:count])),
            ("random upper codes", drawn),
        ):
            yield Replaced(name, "upper codes", every, with_changes(every, {"upper": upper}))
    if config.labels:
        unknown = unknown_ids(config.labels)
        yield from lent("labels", tuple(unknown), every, anything)
        size = (count, 1)
        none = {k: np.tile(unknown[k], size).reshape(windows[k][:count].shape) for k in unknown}
        named = np.any([np.any(none[k] != windows[k][:count], -1) if none[k].ndim > 1
                        else none[k] != windows[k][:count] for k in unknown], axis=0)  # fmt: skip
        rows = np.flatnonzero(named)
        if len(rows):
            changed = with_changes(rows, {k: none[k][rows] for k in unknown})
            yield Replaced("unknown labels", "labels", rows, changed)
    if config.lyrics:
        sung = (windows["lyrics"] != 0).any(1)
        rows = np.flatnonzero(sung[:count])
        yield from lent("lyrics", ("lyrics",), rows, sung)
        if len(rows):
            empty = np.zeros_like(windows["lyrics"][rows])
            yield Replaced("no lyrics", "lyrics", rows, with_changes(rows, {"lyrics": empty}))


def differences(
    subject: Subject,
    config: PriorConfig,
    scorer: scoring.Scorer,
    split: str,
    windows: Windows,
    count: int,
    upper_unigram: NDArray[np.float64] | None,
) -> list[dict[str, Any]]:
    """A row for every condition that can be replaced: bits with it replaced, beside the truth's.

    Args:
      split: what the windows are of.
      windows, count, upper_unigram: as of `replacements`. "counted" (N, T) says which tokens count;
        without it, all do.
    """
    counted = windows.get("counted", np.ones(windows["codes"].shape, bool))

    def sums(rows: NDArray[np.int64], chosen: Windows) -> list[list[float]]:
        """[bits, tokens] of each window."""
        bits, kept = scoring.score_all(scorer, chosen, subject.batch), counted[rows]
        return np.stack([np.where(kept, bits, 0).sum(1), kept.sum(1)], 1).tolist()

    def by_song(rows: NDArray[np.int64], pairs: Any) -> dict[str, list[float]]:
        song, pairs = windows["song"][rows], np.array(pairs)
        return {str(i): pairs[song == i].sum(0).tolist() for i in np.unique(song).tolist()}

    every = np.arange(count)
    first = {name: array[:count] for name, array in windows.items()}
    key = f"level {config.level}, {split}: "
    truth = np.array(subject.once(key + "truth", lambda: sums(every, first)))
    rows = []
    for one in replacements(config, windows, count, upper_unigram):
        pairs = subject.once(key + one.name, functools.partial(sums, one.rows, one.windows))
        true, replaced = by_song(one.rows, truth[one.rows]), by_song(one.rows, pairs)
        means = [{song: (b / n, n) for song, (b, n) in x.items()} for x in (true, replaced)]
        more, interval = bootstrap.difference(*means)
        rows.append(
            {
                "name": one.name,
                "condition": one.condition,
                "split": split,
                "truth_bits_per_token": scoring.mean(true),
                "bits_per_token": scoring.mean(replaced),
                "difference": more,
                "interval": interval,
                "songs": len(replaced),
                "windows": len(one.rows),
            }
        )
    return rows


def worth_table(levels: list[dict[str, Any]], split: str, where: str) -> Table:
    """The rows of `differences` of all levels of one split; `where` says what the split is."""
    title = (
        f"What each condition is worth, on {where}: bits per token more than the same windows need "
        "with the truth. Above 0: the prior uses the condition. 95 %: paired bootstrap over songs."
    )
    columns: Columns = {
        "level, replaced by": lambda row: f"{row['level']}: {row['name']}" + " *" * row["lent"],
        "truth": "{truth_bits_per_token:.3f}",
        "replaced": "{bits_per_token:.3f}",
        "more": "{difference:+.4f}",
        "95 %": lambda row: spread(row["interval"], 4),
        "windows": "{windows}",
        "songs": "{songs}",
    }
    rows = [
        {**one, "level": row["level"], "lent": one.get("lent_by_training_songs", False)}
        for row in levels
        for one in row["conditions"]
        if one["split"] == split
    ]
    return Table.of(title, columns, rows)


def worth_figures(levels: list[dict[str, Any]]) -> list[Figure]:
    """Bars of the rows of `differences`, a figure a level."""
    figures = []
    for row in levels:
        bars = [
            (
                one["name"] + " (training songs)" * (one["split"] == "train"),
                one["difference"],
                one["interval"],
            )
            for one in row["conditions"]
            if one["condition"] != "codes"
        ]
        if bars:
            caption = (
                f"Bits per token that level {row['level']} loses when a condition is replaced. "
                "Further right: the prior depends more on it; at 0 it ignores it. Lines: 95 % "
                "intervals over songs. The scale differs between levels."
            )
            picture = plots.bars(bars, "bits per token more than with the truth")
            title = f"Level {row['level']}: what each condition is worth"
            figures.append(Figure(title, caption, picture))
    return figures
