"""Samples one level of a batch of songs, window by window, in chunks of tokens.

After each chunk the work can be saved, and continued later. S songs, C chains that each song is
cut into (mostly 1); a batch has C S rows, all songs of the first chain first.
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
from jukejax.errors import CheckpointError
from jukejax.sampling.decode import Stream, music
from jukejax.sampling.draw import INVALID, Control
from jukejax.sampling.loop import Loop
from jukejax.sampling.plan import Plan, Round, Window, positions
from jukejax.tracks import ABSENT

Describe = Callable[[int], dict[str, np.ndarray]]
SECONDS = 2.0  # of work per chunk


@dataclass(frozen=True)
class Sampler:
    """What samples one level of a batch of songs.

    Attributes:
      params: from `loop.place`.
      describe: offset of a window in samples -> conditioning arrays (S, ...) of its songs.
      items: (S,) numbers of the songs, from which their random numbers follow.
      control: per row of the batch, from `by_chain`.
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
    """How much of a level is sampled.

    Codes alone cannot restore the round in progress: a prefix model may draw a lyric character,
    whose code is 0, and continues from the character. So the drawn ids are kept too.
    """

    codes: np.ndarray  # (S, total) int32; `Plan.made` gives which are sampled
    rounds: int  # that are finished
    drawn: np.ndarray  # (C S, n): the round in progress, as ids of the stack's vocabulary


def begin(codes: np.ndarray) -> Progress:
    """Nothing is sampled yet; the codes (S, total) begin with the given ones."""
    return Progress(codes, 0, np.zeros((0, 0), np.int32))


def uniforms(seed: int, items: np.ndarray, level: int, first: int, count: int) -> jax.Array:
    """Numbers in [0, 1) (B, count) for song positions first .. first + count - 1 of a level.

    They depend on (seed, item, level, position) alone, not on batches, windows or interruptions.
    """
    key = jax.random.fold_in(jax.random.key(seed), level)

    def draw(item: jax.Array, position: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, item), position))

    over_positions = jax.vmap(draw, (None, 0))
    return jax.vmap(over_positions, (0, None))(jnp.asarray(items), first + jnp.arange(count))


_uniforms = jax.jit(uniforms, static_argnums=(2, 4))


def by_chain(control: Control, songs: int, chains: int) -> Control:
    """The control of each row of a batch, from that of each song (scalars or (S, 1))."""
    copies = rows_of_a_song(control)

    def rows(x: jax.Array) -> jax.Array:
        return jnp.repeat(jnp.tile(jnp.broadcast_to(x, (songs, 1)), (chains, 1)), copies, 0)

    return jax.tree.map(rows, control)


def rows_of_a_song(control: Control) -> int:
    """Rows that a song takes in each chain: with guidance another one, without its tracks."""
    return 1 if control.guidance is None else 2


def _rows(config: PriorConfig, batch: dict[str, Any], copies: int) -> dict[str, Any]:
    """A batch of songs with `copies` rows each, the second without tracks."""
    batch = {name: np.repeat(x, copies, 0) for name, x in batch.items()}
    for name in config.tracks.arrays if config.tracks and copies > 1 else ():
        batch[name][1::2] = ABSENT
    return batch


class _Pace:
    """How many tokens take about `seconds`, estimated from the last ones; or `fixed` tokens."""

    def __init__(self, seconds: float, fixed: int) -> None:
        self.seconds, self.fixed, self.tokens = seconds, fixed, fixed or 8

    def learn(self, tokens: int, seconds: float) -> None:
        wanted = tokens * self.seconds / max(seconds, 1e-9)
        self.tokens = self.fixed or int(min(max(wanted, 1), 4 * self.tokens))


def sample_level(
    sampler: Sampler, progress: Progress, upper: np.ndarray | None, seconds: float = SECONDS,
    chunk: int = 0,
) -> Iterator[Progress]:  # fmt: skip
    """Samples the rest of a level (windowed sampling, paper section 4.4); yields after each chunk.

    Continued from any progress, the codes are those of an uninterrupted run, bit for bit: a round
    in progress starts as it did, and the drawn ids pass through the same program again.

    Args:
      upper: codes of the level above (S, total / ratio), for an upsampler. A window reads them when
        it begins; `plan.codes_above` gives how many.
      seconds: about how long a chunk takes.
      chunk: tokens of a chunk, in place of `seconds`; 0: as many as that takes.

    Yields:
      the progress; `codes` is always the same array, `drawn` is empty between rounds.

    Raises:
      CheckpointError: logits are NaN; what was yielded before is right.
    """
    config, codes, drawn = sampler.config, progress.codes.copy(), progress.drawn
    pace, copies = _Pace(seconds, chunk), rows_of_a_song(sampler.control)
    for number in range(progress.rounds, len(sampler.plan.rounds)):
        round = sampler.plan.rounds[number]
        first, last = positions(round)
        for stream, done in _fill_round(sampler, round, codes, drawn, upper, pace):
            tokens = np.asarray(stream.tokens)[::copies, config.prefix_len + first :]
            tokens = tokens[:, : done - first]
            _check_drawn(sampler, round, tokens)
            made = np.asarray(music(config, stream))[::copies]
            for window, rows in zip(round, np.split(made, len(round)), strict=True):
                stop = max(window.given, min(window.stop, window.start + done))
                here = slice(window.given - window.start, stop - window.start)
                codes[:, window.given : stop] = rows[:, here]
            drawn = tokens
            if done == last:
                number, drawn = number + 1, drawn[:, :0]
            yield Progress(codes, number, drawn)


def _check_drawn(sampler: Sampler, round: Round, tokens: np.ndarray) -> None:
    """Raises CheckpointError if a token (C S, n) drawn in a round is `INVALID`."""
    invalid = tokens == INVALID
    if not invalid.any():
        return
    column = int(invalid.any(0).argmax())
    row = int(invalid[:, column].argmax())
    chain, song = divmod(row, len(sampler.items))
    position = round[chain].start + positions(round)[0] + column
    config = sampler.config
    raise CheckpointError(
        f"The prior of level {config.level} computed logits that are NaN at "
        f"{position * config.hop / config.sample_rate:.2f} s of song {sampler.items[song]}: its "
        "weights are damaged, or its activations overflow. Nothing was sampled from them; train or "
        "import the prior again, or use an earlier checkpoint."
    )


def _fill_round(
    sampler: Sampler,
    round: Round,
    codes: np.ndarray,
    drawn: np.ndarray,
    upper: np.ndarray | None,
    pace: _Pace,
) -> Iterator[tuple[Stream, int]]:
    """Fills a round after the ids already `drawn`; yields after each chunk, with its end."""
    config, loop, (first, last) = sampler.config, sampler.loop, positions(round)
    copies = rows_of_a_song(sampler.control)
    batches = (
        _rows(config, window_batch(config, window, codes, upper, sampler.describe), copies)
        for window in round
    )
    stream = loop.start_chains(sampler.params, batches, first)
    numbers = [_uniforms(sampler.seed, sampler.items, config.level, w.start, config.n_ctx)
               for w in round]  # fmt: skip
    u = jnp.repeat(jnp.concatenate(numbers), copies, 0)
    given = np.repeat([window.given - window.start for window in round], copies * len(codes))

    def advance(stream: Stream, start: int, stop: int, known: int) -> Stream:
        kept = np.maximum(given, known) if len(round) > 1 else known
        return loop.fill(sampler.params, stream, u, start, stop, sampler.control, kept)

    done = first + drawn.shape[1]
    if done > first:
        tokens = np.array(stream.tokens)
        known = np.repeat(drawn, copies, 0)
        tokens[:, config.prefix_len + first :][:, : drawn.shape[1]] = known
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
    """The batch that a prior reads for a window; codes that are not sampled yet are 0.

    Where a song ends inside the window, its last code above is repeated to the window's end.
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
