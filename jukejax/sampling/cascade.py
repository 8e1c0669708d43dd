"""A level, round by round of windows, in chunks of tokens; after every chunk it can be saved.

S songs, C chains that a song is cut into (1, where it is not); a batch has C S rows, all songs of
the first chain first.
"""

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
from jukejax.sampling.plan import Plan, Round, Window, positions

Describe = Callable[[int], dict[str, np.ndarray]]
SECONDS = 2.0  # between two moments at which work can be saved


@dataclass(frozen=True)
class Level:
    """What one level of a batch of songs is made by.

    Attributes:
      params: as `loop.place` gives them.
      describe: offset of a window in samples -> the label arrays (S, ...) of its songs.
      items: (S,) numbers of the songs, for their random numbers.
      control: of a row of the batch each, as `by_chain` gives it.
    """

    config: PriorConfig
    loop: Loop
    params: Any
    plan: Plan
    describe: Describe
    seed: int
    items: np.ndarray
    control: Control


class Progress(NamedTuple):
    """How far a level has come.

    The round under way cannot be told from codes alone: a prefix model that drew a lyric character
    goes on from it, and its code is 0. So what was drawn is kept too.
    """

    codes: np.ndarray  # (S, total) int32; `Plan.made` says which are there
    rounds: int  # that are over
    drawn: np.ndarray  # (C S, n): the round under way, as ids of the stack's vocabulary


def begin(codes: np.ndarray) -> Progress:
    """Nothing is made yet; the codes (S, total) begin with what is given."""
    return Progress(codes, 0, np.zeros((0, 0), np.int32))


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


def by_chain(control: Control, songs: int, chains: int) -> Control:
    """How the rows of a batch are drawn, from how its songs are (scalars or (S, 1))."""

    def rows(x: jax.Array) -> jax.Array:
        return jnp.tile(jnp.broadcast_to(x, (songs, 1)), (chains, 1))

    found: Control = jax.tree.map(rows, control)
    return found


class _Pace:
    """How many tokens take about `seconds`, estimated from the last ones; or `fixed` tokens."""

    def __init__(self, seconds: float, fixed: int) -> None:
        self.seconds, self.fixed, self.tokens = seconds, fixed, fixed or 8

    def learn(self, tokens: int, seconds: float) -> None:
        wanted = tokens * self.seconds / max(seconds, 1e-9)
        self.tokens = self.fixed or int(min(max(wanted, 1), 4 * self.tokens))


def sample_level(
    level: Level, progress: Progress, upper: np.ndarray | None, seconds: float = SECONDS,
    chunk: int = 0,
) -> Iterator[Progress]:  # fmt: skip
    """Makes what is still to be made of a level; yields after about every `seconds`.

    Going on from any progress gives the codes of one that was never interrupted, bit for bit: a
    round under way is begun as it was, and what was drawn passes through the same program again.

    Args:
      upper: codes of the level above (S, total / ratio), for an upsampler. A window reads them when
        it begins; `plan.codes_above` says how many.

    Yields:
      the progress; `codes` is one array that is filled on, `drawn` is empty between rounds.
    """
    config, codes, drawn = level.config, progress.codes.copy(), progress.drawn
    pace = _Pace(seconds, chunk)
    for number in range(progress.rounds, len(level.plan.rounds)):
        round = level.plan.rounds[number]
        first, last = positions(round)
        for stream, done in _fill_round(level, round, codes, drawn, upper, pace):
            made = np.asarray(music(config, stream))
            for window, rows in zip(round, np.split(made, len(round)), strict=True):
                stop = max(window.given, min(window.stop, window.start + done))
                here = slice(window.given - window.start, stop - window.start)
                codes[:, window.given : stop] = rows[:, here]
            drawn = np.asarray(stream.tokens)[:, config.prefix_len + first :][:, : done - first]
            if done == last:
                number, drawn = number + 1, drawn[:, :0]
            yield Progress(codes, number, drawn)


def _fill_round(
    level: Level,
    round: Round,
    codes: np.ndarray,
    drawn: np.ndarray,
    upper: np.ndarray | None,
    pace: _Pace,
) -> Iterator[tuple[Stream, int]]:
    """A round after every chunk, and up to which position it is filled; after `drawn`."""
    config, loop, (first, last) = level.config, level.loop, positions(round)
    batches = (window_batch(config, window, codes, upper, level.describe) for window in round)
    stream = loop.start_chains(level.params, batches, first)
    numbers = [_uniforms(level.seed, level.items, config.level, w.start, config.n_ctx)
               for w in round]  # fmt: skip
    u = jnp.concatenate(numbers)
    given = np.repeat([window.given - window.start for window in round], len(codes))

    def advance(stream: Stream, start: int, stop: int, known: int) -> Stream:
        kept = np.maximum(given, known) if len(round) > 1 else known
        return loop.fill(level.params, stream, u, start, stop, level.control, kept)

    done = first + drawn.shape[1]
    if done > first:
        tokens = np.array(stream.tokens)
        tokens[:, config.prefix_len + first :][:, : drawn.shape[1]] = drawn
        stream = stream._replace(tokens=jax.device_put(tokens, loop.formats[1].tokens))
        stream = advance(stream, first, done, done)
    while done < last:
        began, start, done = time.perf_counter(), done, min(done + pace.tokens, last)
        stream = advance(stream, start, done, start)
        stream.tokens.block_until_ready()
        pace.learn(done - start, time.perf_counter() - began)
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
