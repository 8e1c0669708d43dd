"""A level, window by window, in chunks of tokens; after every chunk there is something to save."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jukejax.config import PriorConfig
from jukejax.sampling.decode import Stream, music
from jukejax.sampling.draw import Control
from jukejax.sampling.loop import Loop
from jukejax.sampling.plan import Window

Describe = Callable[[int], dict[str, np.ndarray]]
SECONDS = 2.0  # between two moments at which work can be saved


@dataclass(frozen=True)
class Level:
    """What one level of a batch of songs is made by.

    Attributes:
      params: as `loop.place` gives them.
      describe: offset of a window in samples -> the label arrays of its batch.
      items: (B,) numbers of the songs, for their random numbers.
    """

    config: PriorConfig
    loop: Loop
    params: Any
    windows: tuple[Window, ...]
    describe: Describe
    seed: int
    items: np.ndarray
    control: Control


class Progress(NamedTuple):
    """How far a level has come.

    The window under way cannot be told from codes alone: a prefix model that drew a lyric character
    goes on from it, and its code is 0. So what was drawn is kept too.
    """

    codes: np.ndarray  # (B, total) int32, of which the first `done` are made
    done: int
    drawn: np.ndarray  # (B, n) int32: the last n of them as ids of the stack's vocabulary


def uniforms(seed: int, items: np.ndarray, level: int, first: int, count: int) -> jax.Array:
    """Numbers in [0, 1) (B, count) for song positions first .. first + count - 1 of a level.

    A function of (seed, item, level, position) alone: how songs are batched, cut into windows or
    interrupted does not change them.
    """
    key = jax.random.fold_in(jax.random.key(seed), level)

    def one(item: jax.Array, position: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, item), position))

    over_positions = jax.vmap(one, (None, 0))
    return jax.vmap(over_positions, (0, None))(jnp.asarray(items), first + jnp.arange(count))


_uniforms = jax.jit(uniforms, static_argnums=(2, 4))


class _Pace:
    """How many tokens take about `seconds`, learned from the last ones."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.tokens = seconds, 8

    def learn(self, tokens: int, seconds: float) -> None:
        wanted = tokens * self.seconds / max(seconds, 1e-9)
        self.tokens = int(min(max(wanted, 1), 4 * self.tokens))


def sample_level(
    level: Level, progress: Progress, upper: np.ndarray | None, seconds: float = SECONDS
) -> Iterator[Progress]:
    """Makes what is still to be made of a level; yields after about every `seconds`.

    Going on from any progress gives the codes of one that was never interrupted, bit for bit: a
    window under way is begun as it was, and what was drawn passes through the same program again.

    Args:
      upper: codes of the level above (B, total / ratio), for an upsampler. A window reads them when
        it begins; `plan.codes_above` says how many.

    Yields:
      the progress; `codes` is one array that is filled on, `drawn` is empty between windows.
    """
    config, codes, done, drawn = level.config, progress.codes.copy(), progress.done, progress.drawn
    pace = _Pace(seconds)
    for window in level.windows:
        if window.stop <= done:
            continue
        for stream, done in _fill_window(level, window, codes, drawn, upper, pace):
            made = slice(window.given - window.start, done - window.start)
            codes[:, window.given : done] = np.asarray(music(config, stream))[:, made]
            drawn = np.asarray(stream.tokens)[:, config.prefix_len :][:, made]
            if done == window.stop:
                drawn = drawn[:, :0]
            yield Progress(codes, done, drawn)


def _fill_window(
    level: Level,
    window: Window,
    codes: np.ndarray,
    drawn: np.ndarray,
    upper: np.ndarray | None,
    pace: _Pace,
) -> Iterator[tuple[Stream, int]]:
    """A window after every chunk, and how many of the song's tokens are done; after `drawn`."""
    config, loop, done = level.config, level.loop, window.given + drawn.shape[1]
    batch = window_batch(config, window, codes, upper, level.describe)
    stream = loop.start(level.params, batch, window.given - window.start)
    u = _uniforms(level.seed, level.items, config.level, window.start, config.n_ctx)

    def advance(stream: Stream, *positions: int) -> Stream:
        first, stop, known = (p - window.start for p in positions)
        return loop.fill(level.params, stream, u, first, stop, level.control, known)

    if done > window.given:
        tokens = np.array(stream.tokens)
        first = config.prefix_len + window.given - window.start
        tokens[:, first : first + drawn.shape[1]] = drawn
        stream = stream._replace(tokens=jax.device_put(tokens, loop.formats[1].tokens))
        stream = advance(stream, window.given, done, done)
    while done < window.stop:
        began, first, done = time.perf_counter(), done, min(done + pace.tokens, window.stop)
        stream = advance(stream, first, done, first)
        stream.tokens.block_until_ready()
        pace.learn(done - first, time.perf_counter() - began)
        yield stream, done


def window_batch(
    config: PriorConfig,
    window: Window,
    codes: np.ndarray,
    upper: np.ndarray | None,
    describe: Describe,
) -> dict[str, Any]:
    """The batch that a prior reads for a window; what is not there yet is 0.

    A song that ends inside the window holds the last code above to the window's end.
    """
    given = codes[:, window.start : window.given]
    tokens = np.zeros((codes.shape[0], config.n_ctx), np.int32)
    tokens[:, : given.shape[1]] = given
    batch = {"codes": tokens, **describe(window.start * config.hop)}
    if config.upper is not None:
        assert upper is not None
        first, count = window.start // config.upper.ratio, config.n_ctx // config.upper.ratio
        above = upper[:, first : first + count]
        short = count - above.shape[1]
        batch["upper"] = np.pad(above, ((0, 0), (0, short)), mode="edge").astype(np.int32)
    return batch
