"""Percentile intervals by the bootstrap over songs (Efron 1979), drawn with replacement.

Tokens or frames of one song are similar, so whole songs are drawn. The interval of few songs is too
narrow; show the number of songs with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

ROUNDS = 2000
PERCENT = (2.5, 97.5)

BySong = Mapping[str, tuple[float, float]]  # id -> (value, weight)


def resampled(totals: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """sum(totals) / sum(weights) over draws of n songs, both (n,): (ROUNDS,); seeded."""
    n, rng = len(weights), np.random.default_rng(0)
    at_once, means = max(1, 10**6 // n), []
    for first in range(0, ROUNDS, at_once):
        drawn = rng.integers(0, n, (min(at_once, ROUNDS - first), n))
        means.append(totals[drawn].sum(1) / weights[drawn].sum(1))
    return np.concatenate(means)


def interval(by_song: BySong) -> tuple[float, float] | None:
    """95 % interval of the weighted mean over songs; None for fewer than two songs."""
    return _interval(*_arrays(by_song))


def median_interval(values: Mapping[str, Sequence[float]]) -> tuple[float, float] | None:
    """95 % interval of the median of all values, by song; None for fewer than two songs."""
    groups = [np.array(group) for group in values.values() if len(group)]
    if len(groups) < 2:
        return None
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(groups), (ROUNDS, len(groups)))
    medians = [np.median(np.concatenate([groups[i] for i in drawn])) for drawn in draws]
    low, high = np.percentile(medians, PERCENT)
    return float(low), float(high)


def difference(first: BySong, second: BySong) -> tuple[float, tuple[float, float] | None]:
    """Weighted mean of second - first over the songs of both, and its paired 95 % interval.

    The weights are those of `first`. Raises ValueError where no song is in both.
    """
    both = [song for song in first if song in second]
    if not both:
        raise ValueError("no song is in both")
    pairs = {s: (second[s][0] - first[s][0], first[s][1]) for s in both}
    totals, weights = _arrays(pairs)
    return float(totals.sum() / weights.sum()), _interval(totals, weights)


def _arrays(by_song: BySong) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values, weights = np.array(list(by_song.values()), np.float64).reshape(-1, 2).T
    return values * weights, weights


def _interval(
    totals: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, float] | None:
    if len(weights) < 2:
        return None
    low, high = np.percentile(resampled(totals, weights), PERCENT)
    return float(low), float(high)
