"""What is each condition worth to a prior? Bits of windows with one condition replaced.

N windows; arrays as a prior reads them, with "song" (N,) and "place" (N,): where in its song a
window begins, in 0..1. Another song's condition comes from the next song (in cyclic order) that has
one and differs, from its window of nearest place. All other conditions stay the true ones. The
suites likelihood (held-out songs) and cascade (samples) measure and show it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jukejax import tracks
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
    condition: str  # "codes", "upper codes", "labels", "lyrics" or a track's name
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
    anything = np.ones(len(windows["song"]), bool)
    codes = rng.permuted(windows["codes"][:count], axis=1)
    yield _replaced(windows, "shuffled codes", "codes", every, codes=codes)
    if config.upper:
        assert upper_unigram is not None
        yield from _lent(windows, "upper codes", ("upper",), every, anything)
        upper = windows["upper"][:count]
        drawn = rng.choice(len(upper_unigram), upper.shape, p=upper_unigram).astype(np.int32)
        shuffled = rng.permuted(upper, axis=1)
        yield _replaced(windows, "shuffled upper codes", "upper codes", every, upper=shuffled)
        yield _replaced(windows, "random upper codes", "upper codes", every, upper=drawn)
    if config.labels:
        unknown = unknown_ids(config.labels)
        yield from _lent(windows, "labels", tuple(unknown), every, anything)
        none = {key: np.broadcast_to(ids, (count, *ids.shape)) for key, ids in unknown.items()}
        differs = [none[key] != windows[key][:count] for key in unknown]
        rows = np.flatnonzero(np.any([d.reshape(count, -1).any(1) for d in differs], axis=0))
        if len(rows):
            ids = {key: array[rows] for key, array in none.items()}
            yield _replaced(windows, "unknown labels", "labels", rows, **ids)
    if config.lyrics:
        sung = (windows["lyrics"] != 0).any(1)
        rows = np.flatnonzero(sung[:count])
        yield from _lent(windows, "lyrics", ("lyrics",), rows, sung)
        if len(rows):
            empty = np.zeros_like(windows["lyrics"][rows])
            yield _replaced(windows, "no lyrics", "lyrics", rows, lyrics=empty)
    for track in config.tracks.tracks if config.tracks else ():
        given = (windows[track.array] != tracks.ABSENT).all((1, 2))
        rows = np.flatnonzero(given[:count])
        yield from _lent(windows, track.name, (track.array,), rows, given)
        if len(rows):
            absent = np.full_like(windows[track.array][rows], tracks.ABSENT)
            yield _replaced(windows, f"no {track.name}", track.name, rows, **{track.array: absent})


def _replaced(
    windows: Windows, name: str, condition: str, rows: NDArray[np.int64], **arrays: NDArray[Any]
) -> Replaced:
    """Rows of windows with other `arrays` of a condition."""
    kept = {key: array[rows] for key, array in windows.items()}
    return Replaced(name, condition, rows, kept | arrays)


def _lent(
    windows: Windows,
    condition: str,
    keys: tuple[str, ...],
    rows: NDArray[np.int64],
    lends: NDArray[np.bool_],
) -> Iterator[Replaced]:
    """Rows with the condition (arrays of `keys`) of another song, of windows that can lend it."""

    def differs(i: int, j: int) -> bool:
        same = all(np.array_equal(windows[key][i], windows[key][j]) for key in keys)
        return bool(lends[j]) and not same

    lenders = donors(windows, rows, differs)
    rows, lenders = rows[lenders >= 0], lenders[lenders >= 0]
    if len(rows):
        lent = {key: windows[key][lenders] for key in keys}
        yield _replaced(windows, f"another song's {condition}", condition, rows, **lent)


def differences(
    subject: Subject,
    config: PriorConfig,
    scorer: scoring.Scorer,
    split: str,
    windows: Windows,
    count: int,
    upper_unigram: NDArray[np.float64] | None,
) -> list[dict[str, Any]]:
    """A row for every condition that can be replaced: bits with it replaced and with the true one.

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
    for other in replacements(config, windows, count, upper_unigram):
        pairs = subject.once(key + other.name, functools.partial(sums, other.rows, other.windows))
        true, replaced = by_song(other.rows, truth[other.rows]), by_song(other.rows, pairs)
        means = [{song: (b / n, n) for song, (b, n) in x.items()} for x in (true, replaced)]
        more, interval = bootstrap.difference(*means)
        rows.append(
            {
                "name": other.name,
                "condition": other.condition,
                "split": split,
                "truth_bits_per_token": scoring.mean(true),
                "bits_per_token": scoring.mean(replaced),
                "difference": more,
                "interval": interval,
                "songs": len(replaced),
                "windows": len(other.rows),
            }
        )
    return rows


def worth_table(levels: list[dict[str, Any]], split: str, where: str) -> Table:
    """The rows of `differences` of all levels of one split; `where` says what the split is."""
    title = (
        f"What each condition is worth, on {where}: additional bits per token when it is "
        "replaced, in the same windows. Above 0: the prior uses the condition. 95 %: paired "
        "bootstrap over songs."
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
            picture = plots.bars(bars, "additional bits per token when replaced")
            title = f"Level {row['level']}: what each condition is worth"
            figures.append(Figure(title, caption, picture))
    return figures
