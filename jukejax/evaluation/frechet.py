"""Distances of two sets of vectors: Fréchet distance, and precision, recall, density, coverage.

Fréchet distance of the Gaussians fitted to two sets (Dowson & Landau 1982; of audio embeddings,
Kilgour et al. 2019): |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). From n vectors it is too large by
about a / n; the limit is the value at 1/n = 0 of a line through distances of subsets of several
sizes (Chong & Forsyth 2020). Windows of one song are similar, so intervals are of a bootstrap over
songs. All in float64. n, m vectors, D numbers each.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]
SIZES = 8  # of subsets, from a quarter of the set to all of it
LEAST = 8  # vectors that a limit takes: subsets of several sizes, all of two or more
DRAWS = 100  # of the bootstrap


class Gaussian(NamedTuple):
    mean: Vectors  # (D,)
    covariance: Vectors  # (D, D)
    root: Vectors  # its symmetric square root


def root(matrix: Vectors) -> Vectors:
    """The symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def fit(vectors: NDArray[Any]) -> Gaussian:
    """The Gaussian of a set (n, D), n of at least 2."""
    x = np.asarray(vectors, np.float64)
    covariance = np.atleast_2d(np.cov(x, rowvar=False))
    return Gaussian(x.mean(axis=0), covariance, root(covariance))


def distance(real: Gaussian, vectors: NDArray[Any]) -> float:
    """The Fréchet distance of a set (n, D), n of at least 2, from `real`."""
    x = np.asarray(vectors, np.float64)
    gap = x.mean(axis=0) - real.mean
    x = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    # tr (C1 C2)^(1/2) is the sum of the singular values of x2 C1^(1/2), where x2' x2 = C2
    shared = np.linalg.svd(x @ real.root, compute_uv=False).sum()
    total = gap @ gap + np.trace(real.covariance) + (x * x).sum() - 2.0 * shared
    return max(0.0, float(total))


class Limit(NamedTuple):
    value: float  # of the line at 1/n = 0
    slope: float
    sizes: list[int]
    distances: list[float]


def limit(real: Gaussian, vectors: NDArray[Any], seed: int = 0) -> Limit:
    """Fréchet distances of random subsets of several sizes, and their line over 1/n at 0.

    Args:
      vectors: (n, D), n of at least `LEAST`.
    """
    rng = np.random.default_rng(seed)
    n = len(vectors)
    sizes = [round(x) for x in np.linspace(n / 4, n, SIZES)]
    distances = [distance(real, vectors[rng.permutation(n)[:size]]) for size in sizes]
    slope, value = np.polyfit(1.0 / np.array(sizes), distances, 1)
    return Limit(float(value), float(slope), sizes, distances)


class Estimate(NamedTuple):
    value: float
    low: float | None
    high: float | None  # 95 %; None for one song


def _basic(value: float, draws: list[float]) -> Estimate:
    """The basic bootstrap interval, from 0 on, which removes the bias of redrawing."""
    if not draws:
        return Estimate(value, None, None)
    low, high = np.quantile(draws, (0.025, 0.975))
    return Estimate(value, max(0.0, float(2 * value - high)), max(0.0, float(2 * value - low)))


def estimate(
    real: Gaussian, vectors: NDArray[Any], songs: NDArray[Any], seed: int = 0
) -> tuple[Estimate, Estimate | None, Limit | None]:
    """The distance of a set (n, D) and its limit for infinite n, with 95 % intervals.

    None for the limit of fewer than `LEAST` vectors; one song has no interval.

    Args:
      songs: (n,) the song of each vector; songs are redrawn, with all their vectors.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(songs == song) for song in np.unique(songs)]
    plain, limits = [], []
    for draw in range(DRAWS if len(members) > 1 else 0):
        chosen = rng.integers(0, len(members), len(members))
        drawn = vectors[np.concatenate([members[i] for i in chosen])]
        if len(drawn) > 1:
            plain.append(distance(real, drawn))
        if len(drawn) >= LEAST:
            limits.append(limit(real, drawn, seed=draw).value)
    estimated = _basic(distance(real, vectors), plain)
    if len(vectors) < LEAST:
        return estimated, None, None
    line = limit(real, vectors, seed)
    return estimated, _basic(line.value, limits), line


def neighbours(real: NDArray[Any], made: NDArray[Any], k: int = 5) -> dict[str, float]:
    """Precision, recall (Kynkäänniemi et al. 2019), density, coverage (Naeem et al. 2020).

    A vector's ball has the radius of its k-th nearest neighbour in its own set. Precision: part of
    `made` inside any real ball. Recall: part of `real` inside any made ball. Density: mean number
    of real balls that contain a made vector, over k. Coverage: part of the real balls that contain
    a made vector.
    """
    k = min(k, len(real) - 1, len(made) - 1)
    balls = np.sort(_distances(real, real), axis=1)[:, k]
    made_balls = np.sort(_distances(made, made), axis=1)[:, k]
    between = _distances(real, made)  # (n, m)
    inside = between < balls[:, None]
    return {
        "precision": float(inside.any(axis=0).mean()),
        "recall": float((between < made_balls).any(axis=1).mean()),
        "density": float(inside.sum(axis=0).mean() / k),
        "coverage": float((between.min(axis=1) < balls).mean()),
        "k": k,
    }


def _distances(a: NDArray[Any], b: NDArray[Any]) -> Vectors:
    """Euclidean distances (n, m) of all pairs."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2.0 * a @ b.T
    return np.sqrt(np.maximum(squares, 0.0))
