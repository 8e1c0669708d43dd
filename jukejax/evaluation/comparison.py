"""Scores of two models side by side, and which is better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from jukejax.evaluation import bootstrap
from jukejax.evaluation.report import Score


def compare(first: Sequence[Score], second: Sequence[Score]) -> list[dict[str, Any]]:
    """The scores that both have, by name: values, second - first, its 95 % interval, the better.

    Where both have figures by song, values and difference are those of the songs of both, and the
    interval is of the paired bootstrap over them. Else, where both have an interval, theirs are
    taken as independent and normal. "better" is "first" or "second" where the interval leaves out
    0, "unclear" where it does not, and "" where there is none or no direction is better.
    """
    others = {score.name: score for score in second}
    return [_pair(score, others[score.name]) for score in first if score.name in others]


def _pair(a: Score, b: Score) -> dict[str, Any]:
    values, songs = (a.value, b.value), 0
    interval: tuple[float, float] | None = None
    if a.by_song is not None and b.by_song is not None:
        both = [song for song in a.by_song if song in b.by_song]
        songs = len(both)
        if both:
            mine = {song: a.by_song[song] for song in both}
            weights = {song: weight for song, (_, weight) in mine.items()}
            theirs = {song: (b.by_song[song][0], weights[song]) for song in both}
            values = _mean(mine), _mean(theirs)
            _, interval = bootstrap.difference(mine, theirs)
    elif a.interval is not None and b.interval is not None:
        half = math.hypot(*((high - low) / 2 for low, high in (a.interval, b.interval)))
        interval = (b.value - a.value - half, b.value - a.value + half)
    difference = values[1] - values[0]
    return {
        "name": a.name,
        "first": values[0],
        "second": values[1],
        "difference": difference,
        "interval": interval,
        "songs": songs,
        "better": _better(a.better, difference, interval),
    }


def _mean(by_song: bootstrap.BySong) -> float:
    return sum(v * w for v, w in by_song.values()) / sum(w for _, w in by_song.values())


def _better(wanted: str, difference: float, interval: tuple[float, float] | None) -> str:
    if not wanted or interval is None:
        return ""
    if interval[0] <= 0 <= interval[1]:
        return "unclear"
    return "second" if (difference < 0) == (wanted == "lower") else "first"
