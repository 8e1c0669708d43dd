"""The codebook: nearest code, moving averages, random restarts (paper section 3.2).

All functions are pure; statistics are those of the global batch. N vectors, K codes, E their width.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Codebook(NamedTuple):
    """One level's codes with the moving sums that made them."""

    codes: jax.Array  # (K, E) float32
    sums: jax.Array  # (K, E) moving sum of the vectors that chose a code
    counts: jax.Array  # (K,) moving number of them


def empty(codes: int, width: int) -> Codebook:
    """A codebook that `first_codes` has yet to fill."""
    return Codebook(jnp.zeros((codes, width)), jnp.zeros((codes, width)), jnp.zeros((codes,)))


def nearest(codes: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Index (...,) of the nearest of `codes` (K, E) to x (..., E), and the squared distance.

    Ties go to the lower index.
    """
    x = x.astype(jnp.float32)
    scores = jnp.sum(codes * codes, -1) - 2.0 * x @ codes.T  # (..., K), less |x|^2
    index = jnp.argmin(scores, -1)
    best = jnp.take_along_axis(scores, index[..., None], -1)[..., 0]
    return index.astype(jnp.int32), best + jnp.sum(x * x, -1)


def random_rows(key: jax.Array, x: jax.Array, n: int) -> jax.Array:
    """n rows of x (N, E), no row twice unless N < n; then x is tiled with a little noise."""
    rows, width = x.shape
    if rows < n:
        shuffle, noise = jax.random.split(key)
        x = jnp.tile(x, (-(-n // rows), 1))
        x = x + jax.random.normal(noise, x.shape) * (0.01 / jnp.sqrt(width))
        return x[jax.random.permutation(shuffle, x.shape[0])[:n]]
    return x[jax.random.choice(key, rows, (n,), replace=False)]


def first_codes(key: jax.Array, x: jax.Array, n: int) -> Codebook:
    """A codebook of n random rows of x (N, E), each counted once."""
    codes = random_rows(key, x, n)
    return Codebook(codes, codes, jnp.ones((n,)))


def restored_book(codes: jax.Array, tokens: float) -> Codebook:
    """A codebook (K, E) whose moving sums are guessed anew, where the codes alone are known.

    Every code counts as chosen `tokens` / K times a step, `tokens` being those of a global batch.
    The published code leaves the batch size out, which makes codes restart too readily after a
    resume; here it is in.
    """
    known = jnp.asarray(codes, jnp.float32)
    counts = jnp.full((known.shape[0],), tokens / known.shape[0], jnp.float32)
    return Codebook(known, known * counts[:, None], counts)


def update(
    book: Codebook,
    x: jax.Array,
    index: jax.Array,
    fresh: jax.Array,
    decay: float,
    threshold: float,
) -> Codebook:
    """The codebook after one step.

    Args:
      x: encoder outputs (N, E) of the global batch.
      index: their codes (N,) under the old codebook.
      fresh: (K, E) vectors that replace codes whose moving count is under `threshold`.

    A restarted code keeps its moving sum and count, so it is drawn anew every step until its
    count climbs over the threshold again.
    """
    k = book.codes.shape[0]
    counts = decay * book.counts + (1 - decay) * jnp.zeros((k,)).at[index].add(1.0)
    sums = decay * book.sums + (1 - decay) * jnp.zeros_like(book.sums).at[index].add(x)
    alive = (counts >= threshold)[:, None]
    safe = jnp.where(alive, counts[:, None], 1.0)  # no 0/0 where a code is dead
    return Codebook(jnp.where(alive, sums / safe, fresh), sums, counts)


def statistics(
    old: Codebook, new: Codebook, x: jax.Array, index: jax.Array, distance: jax.Array,
    threshold: float,
) -> dict[str, jax.Array]:  # fmt: skip
    """Entropy (nats), codes used, codes alive, movement, fit and spread of one update."""
    k = old.codes.shape[0]
    counts = jnp.zeros((k,)).at[index].add(1.0)
    p = counts / counts.sum()
    return {
        "entropy": -jnp.sum(p * jnp.log(p + 1e-8)),
        "used_now": jnp.sum(counts >= 1.0),
        "alive": jnp.sum(new.counts >= threshold),
        "movement": jnp.sqrt(jnp.mean((new.codes - old.codes) ** 2)),
        "fit": distance.mean(),
        "spread": jnp.sqrt(jnp.mean((x - x.mean()) ** 2)),
    }
