"""The VQ-VAE's bottleneck (paper section 3): quantize, then learn the codes.

`quantize` replaces encoder outputs by their nearest codes, with the straight-through gradient and
the commitment loss. `learn` updates the codes, without a gradient, by exponential moving averages
(EMA) with random restarts of codes that are hardly used.

With `VQVAEConfig.groups` G an encoder output has G codes, and is near the sum of their vectors:
each describes what those before it leave (residual quantisation; SoundStream, Zeghidour et al.
2021, section 3.3). The codebook is then G codebooks, one after the other.

All functions are pure; statistics are those of the global batch. B batch, T encoder outputs in
time, N = B T G, K codes of the codebook, E their width.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jukejax.config import VQVAEConfig


class Codebook(NamedTuple):
    """One level's codes, and the moving averages that they are computed from."""

    codes: jax.Array  # (G K, E) float32
    sums: jax.Array  # (G K, E) EMA of the sum of the vectors assigned to each code in a step
    counts: jax.Array  # (G K,) EMA of their number


class Assigned(NamedTuple):
    """What a batch's codes describe and the codes, output by output, without gradients."""

    vectors: jax.Array  # (..., E): encoder outputs, or what the codes before leave of them
    codes: jax.Array  # (...) int32
    distance: jax.Array  # (...) squared, between them


class Quantized(NamedTuple):
    """Encoder outputs through the bottleneck."""

    vectors: jax.Array  # (B, T, E) of the nearest codes; the gradient goes to the encoder outputs
    codes: jax.Array  # (B, T G) int32
    commitment: jax.Array  # () commitment loss
    assigned: Assigned  # of N, what `learn` reads of the batch


def quantize(book: Codebook, x: jax.Array, groups: int = 1) -> Quantized:
    """Encoder outputs x (B, T, E) float32 to their nearest codes.

    Straight-through estimator: codes in the forward pass, the identity in the backward pass. The
    commitment loss mean |code - x|^2 pulls encoder outputs to their codes; codes get no gradient.
    """
    found = assign(book.codes, lax.stop_gradient(x), groups)
    vectors = look_up(book.codes, found.codes, groups)
    commitment = jnp.mean((vectors - x) ** 2)
    straight_through = x + lax.stop_gradient(vectors - x)
    flat = Assigned(
        found.vectors.reshape(-1, x.shape[-1]), found.codes.reshape(-1), found.distance.reshape(-1)
    )
    return Quantized(straight_through, found.codes, commitment, flat)


def assign(book: jax.Array, x: jax.Array, groups: int = 1) -> Assigned:
    """The nearest codes of a codebook (G K, E) to encoder outputs x (..., T, E): (..., T G)."""
    rest, found = x.astype(jnp.float32), []
    for stage in jnp.split(book, groups):
        codes, distance = nearest(stage, rest)
        found.append(Assigned(rest, codes, distance))
        rest = rest - stage[codes]

    def together(*stages: jax.Array) -> jax.Array:
        """The stages' arrays with the codes of one output after the other."""
        time = x.ndim - 2
        both = jnp.stack(stages, time + 1)  # (..., T, G) or (..., T, G, E)
        return both.reshape(*both.shape[:time], -1, *both.shape[time + 2 :])

    return Assigned(*map(together, *found))


def look_up(book: jax.Array, codes: jax.Array, groups: int = 1) -> jax.Array:
    """The vectors (..., T, E) of codes (..., T G) of a codebook (G K, E)."""
    stages = enumerate(jnp.split(book, groups))
    return reduce(jnp.add, (stage[codes[..., i::groups]] for i, stage in stages))


def learn(
    config: VQVAEConfig, key: jax.Array, book: Codebook, batch: Assigned
) -> tuple[Codebook, dict[str, jax.Array]]:
    """The codebook after one step (EMA update, random restarts), and the step's `statistics`."""
    decay, threshold, g = config.codebook_decay, config.restart_threshold, config.groups
    stages = []
    for i, old in enumerate(zip(*(jnp.split(x, g) for x in book), strict=True)):
        vectors, codes = batch.vectors[i::g], batch.codes[i::g]
        fresh = random_rows(_key_of(key, i), vectors, config.codes)
        stages.append(update(Codebook(*old), vectors, codes, fresh, decay, threshold))
    new = Codebook(*map(jnp.concatenate, zip(*stages, strict=True)))
    return new, statistics(book, new, batch, threshold, g)


def _key_of(key: jax.Array, stage: int) -> jax.Array:
    return jax.random.fold_in(key, stage) if stage else key


def nearest(codes: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Index (...,) of the nearest of `codes` (K, E) to x (..., E), and the squared distance.

    Ties go to the lower index. The product is in full float32 on every device: in bfloat16, which
    is a TPU's default, training would choose other codes than encoding for 2 to 3 % of vectors.
    """
    x = x.astype(jnp.float32)
    products = jnp.matmul(2.0 * x, codes.T, precision=lax.Precision.HIGHEST)
    scores = jnp.sum(codes * codes, -1) - products  # (..., K), less |x|^2
    index = jnp.argmin(scores, -1)
    best = jnp.take_along_axis(scores, index[..., None], -1)[..., 0]
    return index.astype(jnp.int32), best + jnp.sum(x * x, -1)


def random_rows(key: jax.Array, x: jax.Array, n: int) -> jax.Array:
    """n rows of x (N, E), no row twice unless N < n; then x is tiled with a little noise.

    One of each n-th part of x, from a random beginning: every row is as likely as any other, and no
    device sorts N random numbers, as drawing by a permutation would.
    """
    place, within = jax.random.split(key)
    rows, width = x.shape
    if rows < n:
        place, noise = jax.random.split(place)
        x = jnp.tile(x, (-(-n // rows), 1))
        x = x + jax.random.normal(noise, x.shape) * (0.01 / jnp.sqrt(width))
    rows = len(x)
    part = rows // n
    index = jnp.arange(n) * part + jax.random.randint(within, (n,), 0, part)
    return x[(jax.random.randint(place, (), 0, rows) + index) % rows]


def first_codes(key: jax.Array, x: jax.Array, n: int, groups: int = 1) -> Codebook:
    """The first codebook: n random encoder outputs of x (N, E), each with a count of 1.

    Of groups each has n, of what the first codes before leave.
    """
    stages: list[jax.Array] = []
    for i in range(groups):
        stages.append(random_rows(_key_of(key, i), x, n))
        if i + 1 < groups:
            x = x - stages[i][nearest(stages[i], x)[0]]
    codes = jnp.concatenate(stages)
    return Codebook(codes, codes, jnp.ones((n * groups,)))


def restored_book(codes: jax.Array, tokens: float) -> Codebook:
    """A codebook (G K, E) of which only the codes are known: its moving averages are estimated.

    Every code counts as assigned `tokens` / (G K) times per step, `tokens` being those of a global
    batch. The published code leaves out the batch size, so after a resume too many codes restart.
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
    """The codebook after one step: EMA of the codes, random restart of those that are hardly used.

    Args:
      x: encoder outputs (N, E) of the global batch.
      index: their codes (N,) under the old codebook.
      fresh: (K, E) random encoder outputs, which replace codes with a count under `threshold`.
      decay: of the moving averages.

    A restarted code keeps its moving sum and count, so it restarts at every step until its count
    reaches the threshold again.
    """
    k = book.codes.shape[0]
    counts = decay * book.counts + (1 - decay) * jnp.zeros((k,)).at[index].add(1.0)
    sums = decay * book.sums + (1 - decay) * jnp.zeros_like(book.sums).at[index].add(x)
    alive = (counts >= threshold)[:, None]
    safe = jnp.where(alive, counts[:, None], 1.0)  # no 0/0 where a code is dead
    return Codebook(jnp.where(alive, sums / safe, fresh), sums, counts)


def statistics(
    old: Codebook, new: Codebook, batch: Assigned, threshold: float, groups: int = 1
) -> dict[str, jax.Array]:
    """Figures of one update, each a float32 scalar.

    Entropy of the codes (nats), codes used in the batch, codes with a count of at least
    `threshold`, root mean square change of the codes, mean squared distance of encoder outputs to
    their codes, root mean square of the encoder outputs about their mean.
    """
    x, k = batch.vectors, old.codes.shape[0]
    first = jnp.arange(len(batch.codes)) % groups * (k // groups)
    counts = jnp.zeros((k,)).at[first + batch.codes].add(1.0)
    p = counts / counts.sum()
    return {
        "entropy": -jnp.sum(p * jnp.log(p + 1e-8)),
        "used_now": jnp.sum(counts >= 1.0),
        "alive": jnp.sum(new.counts >= threshold),
        "movement": jnp.sqrt(jnp.mean((new.codes - old.codes) ** 2)),
        "fit": batch.distance.mean(),
        "spread": jnp.sqrt(jnp.mean((x - x.mean()) ** 2)),
    }
