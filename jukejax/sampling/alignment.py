"""Alignment of lyrics and music: attention from music tokens to lyric characters.

A head's weights in a window are (T, E): the attention of music token t to lyric state i. State i
has read the characters before i, so its weight counts for character i - 1, the last one it has
read; state 0 has read none of the window and counts for none.

T tokens of a window, E its lyric characters, F frames of a song, C characters of its lyrics.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jukejax.config import PriorConfig
from jukejax.errors import CheckpointError
from jukejax.models import attention
from jukejax.patterns import CROSS, PRIME, layer_patterns
from jukejax.sampling.cascade import Describe, window_batch
from jukejax.sampling.inside import Reader
from jukejax.sampling.plan import Window

FRAME = 16  # tokens averaged into one frame of an alignment, at most: 46 ms as published
FLOOR = 1e-5  # smaller weights count as this in the search for a path

Weights = NDArray[np.float32]


class Head(NamedTuple):
    """One head of one layer, both counted from 0."""

    layer: int
    head: int


class SongCodes(NamedTuple):
    """A song to align: its codes (n,), windows, conditioning and number of lyric tokens.

    `describe` maps a window's offset in samples to its conditioning arrays, of one row each, and
    `lyric` to the number of the first lyric token in them (-k: k tokens of padding come first).
    """

    codes: NDArray[Any]
    windows: Sequence[Window]
    describe: Describe
    lyric: Callable[[int], int]
    characters: int


class Found(NamedTuple):
    """The attention of one head to one song's lyrics."""

    weights: Weights  # (F, C)
    monotonicity: float  # mean over windows of `kendall`
    windows: int  # how many that is the mean of


def lyric_layers(config: PriorConfig) -> list[int]:
    """The layers that attend only to lyrics."""
    patterns = layer_patterns(config.attn_order, config.depth)
    return [i for i, pattern in enumerate(patterns) if pattern in (CROSS, PRIME)]


def lyric_heads(config: PriorConfig) -> list[Head]:
    """Every head of every layer that attends to lyrics."""
    return [Head(layer, head) for layer in lyric_layers(config) for head in range(config.heads)]


def frame_tokens(config: PriorConfig) -> int:
    """Tokens of a frame; a window is a whole number of frames."""
    return math.gcd(config.n_ctx, FRAME)


def frame_seconds(config: PriorConfig, frames: int) -> NDArray[np.float32]:
    """Where frames begin, in seconds from the first code."""
    hop = frame_tokens(config) * config.hop / config.sample_rate
    return (np.arange(frames) * hop).astype(np.float32)


def head_weights(config: PriorConfig, kept: Any, head: int | jax.Array) -> jax.Array:
    """Attention (B, T, E) float32 of one head of a layer, from what the layer kept ("lyrics").

    In a prior whose lyrics are a prefix the layer may attend to some music too, so rows sum to
    less than 1.
    """
    assert config.lyrics is not None
    q, k = (x.reshape(*x.shape[:2], config.heads, -1)[:, :, head] for x in kept)
    return attention.weights(q, k, config.prefix_len)[..., : config.lyrics.tokens]


@partial(jax.jit, static_argnums=0)
def _frames(
    config: PriorConfig, kept: Any, head: jax.Array, pool: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Weights averaged over a window's frames (B, T / frame, E), and summed by `pool` (B, F, T)."""
    weights = head_weights(config, kept, head)
    b, _, e = weights.shape
    own = weights.reshape(b, -1, frame_tokens(config), e).mean(2)
    return own, jnp.einsum("bft,bte->bfe", pool, weights)


def kendall(weights: NDArray[Any]) -> float:
    """How monotonic attention (F, E) is, from -1 to 1: the expected Kendall's tau.

    Draw two frames, and a character from the attention of each: P(the later frame's character
    comes later) - P(it comes earlier). This is Kendall's rank correlation tau_a (Kendall 1938) of
    time and character under the attention: 0 for attention that does not move, however sharp, near
    0 where it is spread out, and 1 where each frame attends to a later character than all before.
    """
    a = np.asarray(weights, np.float64)
    before = np.cumsum(a, axis=1) - a  # [s, j]: mass of frame s on characters before j
    later = a @ before.T  # [t, s]: P(frame t's character comes after frame s's)
    pairs = len(a) * (len(a) - 1) / 2
    return float(np.tril(later, -1).sum() - np.triu(later, 1).sum()) / max(pairs, 1)


def align(
    config: PriorConfig, read: Reader, song: SongCodes, heads: Sequence[Head], batch: int
) -> dict[Head, Found]:
    """The attention of heads over a full song and its lyrics.

    Each token has the weights of the window that sampled it: of overlapping windows, the first.
    Monotonicity is the mean over single windows: over a song, even attention that never moves
    would follow the part of the lyrics that each window is conditioned on.

    Args:
      read: a reader that keeps "lyrics".
      batch: windows per batch.

    Raises:
      CheckpointError: attention is not finite.
    """
    tokens, n = frame_tokens(config), len(song.codes)
    shape = (-(-n // tokens), song.characters)
    weights = {head: np.zeros(shape, np.float32) for head in heads}
    scores: dict[Head, list[float]] = {head: [] for head in heads}
    for windows, layers, pool in _read_windows(config, read, song, batch):
        for head in heads:
            own, pooled = (
                np.asarray(x) for x in _frames(config, layers[head.layer], head.head, pool)
            )
            for row, window in enumerate(windows):
                first = song.lyric(window.start * config.hop) - 1  # of state 0
                if not np.isfinite(own[row]).all():
                    raise CheckpointError(
                        f"Layer {head.layer} of the prior of level {config.level} has attention "
                        "that is not finite: its weights are damaged or its training diverged; use "
                        "an earlier checkpoint."
                    )
                low, high = max(0, -first), min(own.shape[2], song.characters - first)
                if low >= high:
                    continue
                frames = (window.stop - window.start) // tokens
                if frames > 1:
                    scores[head].append(kendall(own[row, :frames, low:high]))
                at = window.start // tokens
                part = weights[head][at : at + pooled.shape[1], first + low : first + high]
                part += pooled[row, : len(part), low:high]
    sizes = np.minimum(tokens, n - tokens * np.arange(shape[0]))[:, None].astype(np.float32)
    return {
        head: Found(weights[head] / sizes, float(np.mean(s)) if s else 0.0, len(s))
        for head, s in scores.items()
    }


def _read_windows(
    config: PriorConfig, read: Reader, song: SongCodes, batch: int
) -> Iterator[tuple[Sequence[Window], list[Any], NDArray[np.float32]]]:
    """Batches of windows, what layers keep of them, and the frames of the tokens they sampled.

    The last batch is padded with its first window.
    """
    tokens = frame_tokens(config)
    for i in range(0, len(song.windows), batch):
        windows = list(song.windows[i : i + batch])
        filled = windows + windows[:1] * (batch - len(windows))
        inputs = [
            window_batch(
                config,
                dataclasses.replace(window, given=window.stop),
                song.codes[None].astype(np.int32),
                None,
                song.describe,
            )
            for window in filled
        ]
        pool = np.zeros((batch, config.n_ctx // tokens + 1, config.n_ctx), np.float32)
        for row, window in enumerate(windows):
            made = np.arange(window.given, window.stop)
            pool[row, made // tokens - window.start // tokens, made - window.start] = 1.0
        joined = {name: np.concatenate([x[name] for x in inputs]) for name in inputs[0]}
        yield windows, read(joined), pool


# --- times of words -------------------------------------------------------------------------------


def path(weights: NDArray[Any]) -> NDArray[np.int64]:
    """The most likely monotonic path: a character for each of F frames, never an earlier one.

    Dynamic programming: c_0 <= c_1 <= ... that maximises sum_t log max(weights[t, c_t], FLOOR);
    any number of characters may be skipped at once. Of equal paths, the one that moves later.
    """
    scores = np.log(np.maximum(np.asarray(weights, np.float64), FLOOR))
    frames, characters = scores.shape
    numbers = np.arange(characters)
    came = np.zeros((frames, characters), np.int32)
    best = scores[0]
    for t in range(1, frames):
        most = np.maximum.accumulate(best)
        came[t] = np.maximum.accumulate(np.where(best >= most, numbers, 0))
        best = scores[t] + most
    out = np.zeros(frames, np.int64)
    out[-1] = int(np.argmax(best))
    for t in range(frames - 1, 0, -1):
        out[t - 1] = came[t, out[t]]
    return out


def onsets(
    reading: NDArray[np.int64], seconds: NDArray[Any], end: float, characters: NDArray[Any]
) -> NDArray[np.float64]:
    """When a path (F,) first reaches characters (n,): seconds (n,); `end` where it never does.

    Args:
      seconds: (F,) at which frames begin.
    """
    frames = np.searchsorted(reading, characters, side="left")
    return np.append(np.asarray(seconds, np.float64), end)[frames]


def timed_words(
    text: str, reading: NDArray[np.int64], seconds: NDArray[Any], end: float
) -> list[tuple[str, float, float, int, int]]:
    """Words of the text with times: (word, start_s, end_s, first_char, end_char).

    A word starts when the path first reaches its first character, and ends when it first passes its
    last. Words before the path's beginning, or after its end, are left out.
    """
    words = [(m.group(), m.start(), m.end()) for m in re.finditer(r"\S+", text)]
    firsts, ends = (np.array([w[i] for w in words], int) for i in (1, 2))
    starts, stops = (onsets(reading, seconds, end, x) for x in (firsts, ends))
    return [
        (word, float(start), float(stop), first, last)
        for (word, first, last), start, stop in zip(words, starts, stops, strict=True)
        if last > reading[0] and first <= reading[-1]
    ]
