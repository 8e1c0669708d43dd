"""Baselines for a prior: models that count the training codes of a level.

- unigram: p(b) = (n(b) + 1) / (N + K), add-one smoothing;
- bigram: p(b | a) = (c(a, b) + alpha p(b)) / (c(a) + alpha), counts interpolated with the unigram
  (MacKay and Peto 1995). alpha is the power of two with the highest leave-one-out likelihood of the
  training pairs;
- `KneserNey`: n-grams of higher orders.

The first token of a window, for which the prior has no earlier codes either, is scored by the
unigram. Where codes have groups (`VQVAEConfig.groups`), each place in the group is counted by
itself, with the codes before it. B batch, T tokens of a window, K codes, N training tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jukejax.errors import CheckpointError

ALPHAS = tuple(2.0**k for k in range(-6, 25))
Keys = NDArray[np.uint64]
Floats = NDArray[np.float64]


class Counts(NamedTuple):
    """How often codes and pairs of neighbours occur in the training songs of one level."""

    tokens: NDArray[np.int64]  # (K,)
    pairs: NDArray[np.int64]  # (K, K): [a, b] counts b right after a


def empty_counts(codes: int) -> Counts:
    """Zero counts, for `count`."""
    return Counts(np.zeros(codes, np.int64), np.zeros((codes, codes), np.int64))


def count(counts: Counts, sequence: NDArray[Any], place: int = 0, groups: int = 1) -> None:
    """Adds one song's codes (T,) of a level to the counts, in place: those at a place of groups.

    Raises:
      CheckpointError: a code is not below K.
    """
    k = len(counts.tokens)
    sequence = sequence.astype(np.int64)
    if len(sequence) and sequence.max() >= k:
        raise CheckpointError(
            f"The codes go up to {sequence.max()}, but the prior has {k} codes; encode the songs "
            "with the VQ-VAE that it was trained for."
        )
    counts.tokens[:] += np.bincount(sequence[place::groups], minlength=k)
    pairs = (sequence[:-1] * k + sequence[1:])[(place - 1) % groups :: groups]
    pairs, times = np.unique(pairs, return_counts=True)
    counts.pairs.reshape(-1)[pairs] += times


class CountModel(NamedTuple):
    """Unigram and bigram fitted to training codes."""

    counts: Counts
    unigram: Floats  # (K,) probabilities
    alpha: float

    def unigram_bits(self, codes: NDArray[Any]) -> Floats:
        """Bits (B, T) of each token of windows (B, T), without context."""
        return -np.log2(self.unigram[codes])

    def bigram_bits(self, codes: NDArray[Any]) -> Floats:
        """Bits (B, T) of each token of windows (B, T), given the one before it in the window."""
        a, b = codes[:, :-1], codes[:, 1:]
        after = self.counts.pairs.sum(1)
        p = (self.counts.pairs[a, b] + self.alpha * self.unigram[b]) / (after[a] + self.alpha)
        return np.concatenate([self.unigram_bits(codes[:, :1]), -np.log2(p)], axis=1)


def unigram(tokens: NDArray[np.int64]) -> Floats:
    """Probabilities (K,) from how often each code occurs."""
    return (tokens + 1.0) / (tokens.sum() + len(tokens))


def fit(counts: Counts) -> CountModel:
    """The unigram and the bigram of training codes."""
    return CountModel(counts, unigram(counts.tokens), choose_alpha(counts))


def choose_alpha(counts: Counts) -> float:
    """The alpha of `ALPHAS` with the fewest leave-one-out bits over all training pairs."""
    tokens = counts.tokens
    a, b = np.nonzero(counts.pairs)
    times = counts.pairs[a, b]
    rest = counts.pairs.sum(1)[a] - 1.0
    unigram = tokens[b] / (tokens.sum() - 1.0 + len(tokens))  # add-one without the token itself

    def bits(alpha: float) -> float:
        return -float(times @ np.log2((times - 1.0 + alpha * unigram) / (rest + alpha)))

    return min(ALPHAS, key=bits)


# --- higher orders --------------------------------------------------------------------------------


class Discounted(NamedTuple):
    """One order under one way of counting, with its absolute discount."""

    counts: NDArray[np.int64]  # by n-gram
    totals: NDArray[np.int64]  # by context: the sum over its continuations
    distinct: NDArray[np.int64]  # by context: how many of them have a count
    discount: float


class Order(NamedTuple):
    """The distinct n-grams of one length, as numbers in base K, ascending."""

    keys: Keys
    contexts: Keys
    often: Discounted  # how often it occurs
    after: Discounted  # after how many different codes it occurs


class KneserNey:
    """Interpolated Kneser-Ney n-grams (Chen and Goodman 1999, section 4.1.6), exact counts.

    p(w | h) = max(c(hw) - D, 0) / c(h) + D n(h) / c(h) p(w | h without its first code), where n(h)
    is the number of different codes after h and D = n1 / (n1 + 2 n2), with n1 and n2 the numbers of
    n-grams that occur once and twice. c is the number of occurrences in the highest order, and the
    number of different codes before in the others; below the first order p is 1 / K. At a window's
    beginning the order is limited by the tokens before.
    """

    def __init__(
        self,
        sequences: Sequence[NDArray[Any]],
        codes: int,
        order: int = 5,
        place: int = 0,
        groups: int = 1,
    ) -> None:
        """Counts songs (T,) of codes below K: n-grams that end at a place of groups.

        Memory is at most 70 bytes per token and order.

        Raises:
          ValueError: n-grams of that order do not fit into 64 bits.
        """
        if codes**order > 2**64:
            raise ValueError(f"{order}-grams of {codes} codes do not fit into 64 bits")
        self.codes, self.place, self.groups = codes, place, groups
        distinct = [self._distinct(sequences, n) for n in range(1, order + 1)]
        self.orders = []
        for n, (keys, counts) in enumerate(distinct, 1):
            after = np.zeros(len(keys), np.int64)
            if n < order:
                suffixes = distinct[n][0] % np.uint64(codes**n)
                suffixes, times = np.unique(suffixes, return_counts=True)
                after[np.searchsorted(keys, suffixes)] = times
            contexts, first = np.unique(keys // np.uint64(codes), return_index=True)
            ways = (self._discounted(c, first) for c in (counts, after))
            self.orders.append(Order(keys, contexts, *ways))

    def _distinct(
        self, sequences: Sequence[NDArray[Any]], n: int
    ) -> tuple[Keys, NDArray[np.int64]]:
        keys = [self._keys(sequence[None], n)[0] for sequence in sequences if len(sequence) >= n]
        keys = [key[(self.place + 1 - n) % self.groups :: self.groups] for key in keys]
        return np.unique(np.concatenate([np.zeros(0, np.uint64), *keys]), return_counts=True)

    def _keys(self, codes: NDArray[Any], n: int) -> Keys:
        """The n-grams of windows (B, T) as numbers, by their last token: (B, T - n + 1)."""
        length = codes.shape[1] - n + 1
        keys = np.zeros((len(codes), length), np.uint64)
        for i in range(n):
            keys = keys * np.uint64(self.codes) + codes[:, i : i + length].astype(np.uint64)
        return keys

    @staticmethod
    def _discounted(counts: NDArray[np.int64], first: NDArray[np.int64]) -> Discounted:
        once, twice = (int((counts == times).sum()) for times in (1, 2))
        totals, distinct = (
            np.add.reduceat(x.astype(np.int64), first) if len(first) else np.zeros(0, np.int64)
            for x in (counts, counts > 0)
        )
        discount = once / (once + 2 * twice) if once and twice else 0.5
        return Discounted(counts, totals, distinct, discount)

    def bits(self, codes: NDArray[Any], orders: Sequence[int]) -> dict[int, Floats]:
        """Bits (B, T) of each token of windows (B, T) given those before it, for each order."""
        p = np.full(codes.shape, 1.0 / self.codes)
        highest = {}
        for n in range(1, min(max(orders), codes.shape[1]) + 1):
            order, keys = self.orders[n - 1], self._keys(codes, n)
            gram = _find(order.keys, keys)
            context = _find(order.contexts, keys // np.uint64(self.codes))
            if n in orders:
                highest[n] = p.copy()
                highest[n][:, n - 1 :] = _interpolate(order.often, gram, context, p[:, n - 1 :])
            p[:, n - 1 :] = _interpolate(order.after, gram, context, p[:, n - 1 :])
        return {n: -np.log2(highest.get(n, p)) for n in orders}


def _find(values: Keys, wanted: Keys) -> NDArray[np.int64]:
    """Index of each wanted number in ascending values, or -1."""
    if not len(values):
        return np.full(wanted.shape, -1)
    flat = wanted.reshape(-1)
    ascending = np.argsort(flat)  # so that the search reads neighbouring memory
    places = np.empty(len(flat), np.int64)
    places[ascending] = np.searchsorted(values, flat[ascending])
    places = np.minimum(places, len(values) - 1)
    return np.where(values[places] == flat, places, -1).reshape(wanted.shape)


def _interpolate(
    way: Discounted, gram: NDArray[np.int64], context: NDArray[np.int64], lower: Floats
) -> Floats:
    if not len(way.totals):
        return lower.copy()
    counts = np.where(gram >= 0, way.counts[gram], 0)
    totals = np.where(context >= 0, way.totals[context], 0)
    rest = way.discount * way.distinct[context] * lower
    p = (np.maximum(counts - way.discount, 0) + rest) / np.maximum(totals, 1)
    return np.where(totals > 0, p, lower)
