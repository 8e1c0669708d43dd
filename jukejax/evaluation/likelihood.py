"""How many bits does a prior need for a held-out token, and how many would counting need?

The same tokens are scored by the prior and by two models that count the training codes:

- unigram: p(b) = (n(b) + 1) / (N + K), add-one smoothing;
- bigram: p(b | a) = (c(a, b) + alpha p(b)) / (c(a) + alpha), counts interpolated with the unigram
  (MacKay and Peto 1995). alpha is the power of two under which the training pairs are likeliest,
  each left out of the counts in its turn.

The first token of a window, before which the prior knows no music either, is scored by the unigram
in both. B batch, T tokens of a window, K codes, N training tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from jukejax.checkpoint import CheckpointError
from jukejax.config import PriorConfig
from jukejax.models.prior import token_bits
from jukejax.parallel.mesh import COMPUTE, put_batch

HostBatch = dict[str, np.ndarray]
Scorer = Callable[[HostBatch], NDArray[np.float64]]
ALPHAS = tuple(2.0**k for k in range(-6, 25))


# --- models that count ----------------------------------------------------------------------------


class Counts(NamedTuple):
    """How often codes and pairs of neighbours occur in the training songs of one level."""

    tokens: NDArray[np.int64]  # (K,)
    pairs: NDArray[np.int64]  # (K, K): [a, b] counts b right after a


def empty_counts(codes: int) -> Counts:
    """Counts of nothing, for `count`."""
    return Counts(np.zeros(codes, np.int64), np.zeros((codes, codes), np.int64))


def count(counts: Counts, sequence: NDArray[Any]) -> None:
    """Adds one song's codes (T,) of a level to the counts, in place.

    Raises:
      CheckpointError: a code is not below K.
    """
    k = len(counts.tokens)
    sequence = sequence.astype(np.int64)
    if len(sequence) and sequence.max() >= k:
        raise CheckpointError(
            f"The codes go up to {sequence.max()}, but the prior knows {k} of them; encode the "
            "songs with the VQ-VAE that it was trained for."
        )
    counts.tokens[:] += np.bincount(sequence, minlength=k)
    pairs, times = np.unique(sequence[:-1] * k + sequence[1:], return_counts=True)
    counts.pairs.reshape(-1)[pairs] += times


class CountModel(NamedTuple):
    """Unigram and bigram fitted to training codes."""

    counts: Counts
    unigram: NDArray[np.float64]  # (K,) probabilities
    alpha: float

    def unigram_bits(self, codes: NDArray[Any]) -> NDArray[np.float64]:
        """Bits of each token of windows (B, T), on its own."""
        return -np.log2(self.unigram[codes])

    def bigram_bits(self, codes: NDArray[Any]) -> NDArray[np.float64]:
        """Bits of each token of windows (B, T), given the one before it in the window."""
        a, b = codes[:, :-1], codes[:, 1:]
        after = self.counts.pairs.sum(1)
        p = (self.counts.pairs[a, b] + self.alpha * self.unigram[b]) / (after[a] + self.alpha)
        return np.concatenate([self.unigram_bits(codes[:, :1]), -np.log2(p)], axis=1)


def fit(counts: Counts) -> CountModel:
    """The unigram and the bigram of training codes."""
    tokens = counts.tokens
    unigram = (tokens + 1.0) / (tokens.sum() + len(tokens))
    return CountModel(counts, unigram, choose_alpha(counts))


def choose_alpha(counts: Counts) -> float:
    """The alpha of `ALPHAS` with the fewest bits over all training pairs, each left out in turn."""
    tokens = counts.tokens
    a, b = np.nonzero(counts.pairs)
    times = counts.pairs[a, b]
    rest = counts.pairs.sum(1)[a] - 1.0
    unigram = tokens[b] / (tokens.sum() - 1.0 + len(tokens))  # add-one without the token itself

    def bits(alpha: float) -> float:
        return -float(times @ np.log2((times - 1.0 + alpha * unigram) / (rest + alpha)))

    return min(ALPHAS, key=bits)


# --- the prior ------------------------------------------------------------------------------------


def make_scorer(config: PriorConfig, params: Any, mesh: Mesh) -> Scorer:
    """A function from a batch of what the prior reads to the bits (B, T) of its music tokens.

    B must be a multiple of the devices that the mesh splits a batch over.
    """

    @jax.jit
    def jitted(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
        with nn.logical_axis_rules(list(COMPUTE)):
            return token_bits(config, params, batch)["music"]

    def scorer(batch: HostBatch) -> NDArray[np.float64]:
        with jax.set_mesh(mesh):
            return np.asarray(jitted(params, put_batch(mesh, batch)), np.float64)

    return scorer


def evaluate(
    config: PriorConfig, scorer: Scorer, model: CountModel, batches: Iterable[HostBatch]
) -> dict[str, Any]:
    """Bits per token of the prior and of the counting models on the same tokens.

    Args:
      scorer: as `make_scorer` gives it.
      batches: what the prior reads, with "valid" (B,) bool: rows that count, and "song" (B,) int.

    Returns:
      "bits_per_token" and "bits_per_second" (of audio) of the prior; "unigram_bits_per_token",
      "bigram_bits_per_token", "uniform_bits_per_token"; "alpha"; "tokens", "windows", "songs".

    Raises:
      CheckpointError: the prior's bits are not finite, or there is no window.
    """
    sums = dict.fromkeys(("bits", "unigram_bits", "bigram_bits"), 0.0)
    tokens = windows = 0
    songs: set[int] = set()
    for batch in batches:
        valid = batch["valid"]
        found = scorer({k: v for k, v in batch.items() if k not in ("valid", "song")})[valid]
        if not np.isfinite(found).all():
            raise CheckpointError(
                f"The prior of level {config.level} gives bits that are not finite on held-out "
                f"window {windows + int(np.argmin(np.isfinite(found).all(1)))}: its weights are "
                "damaged or its training diverged; go back to an earlier checkpoint."
            )
        codes = batch["codes"][valid]
        sums["bits"] += float(found.sum())
        sums["unigram_bits"] += float(model.unigram_bits(codes).sum())
        sums["bigram_bits"] += float(model.bigram_bits(codes).sum())
        tokens, windows = tokens + codes.size, windows + len(codes)
        songs |= set(batch["song"][valid].tolist())
    if not tokens:
        raise CheckpointError(
            f"There is no held-out window for the prior of level {config.level}; hold out longer "
            "songs."
        )
    means = {f"{name}_per_token": total / tokens for name, total in sums.items()}
    rate = config.sample_rate / config.hop
    return {
        "level": config.level,
        **means,
        "bits_per_second": means["bits_per_token"] * rate,
        "uniform_bits_per_token": math.log2(config.codes),
        "alpha": model.alpha,
        "tokens": tokens,
        "windows": windows,
        "songs": len(songs),
    }
