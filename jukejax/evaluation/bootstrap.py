"""Intervals by the bootstrap over songs (Efron 1979): songs are drawn again, with replacement.

Tokens or frames of one song are alike, so the song is what is drawn. The percentile interval of few
songs is narrow of the truth; the number of songs belongs beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

ROUNDS = 2000
PERCENT = (2.5, 97.5)

BySong = Mapping[str, tuple[float, float]]  # id -> (value, weight)


def resampled(
    totals: NDArray[np.float64], weights: NDArray[np.float64], rounds: int = ROUNDS
) -> NDArray[np.float64]:
    """sum(totals) / sum(weights) of `rounds` draws of n songs; the same draws for the same n.

    Args:
      totals: (..., n); weights: (n,), not all 0.

    Returns:
      (..., rounds)
    """
    n, rng = len(weights), np.random.default_rng(0)
    out = np.empty((*totals.shape[:-1], rounds))
    for index in range(rounds):
        times = np.bincount(rng.integers(0, n, n), minlength=n)
        whole = times @ weights
        out[..., index] = totals @ times / whole if whole else np.nan
    return out


def interval(by_song: BySong) -> tuple[float, float] | None:
    """95 % interval of the weighted mean over songs; None of fewer than two songs."""
    return _interval(*_arrays(by_song))


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
    low, high = np.nanpercentile(resampled(totals, weights), PERCENT)
    return float(low), float(high)
