"""Levels, top to bottom, window by window; what is made is handed out after every window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jukejax.config import PriorConfig
from jukejax.sampling.decode import fill, music, start_stream
from jukejax.sampling.plan import Window

Describe = Callable[[int], dict[str, np.ndarray]]


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


def sample_level(
    config: PriorConfig,
    params: Any,
    windows: tuple[Window, ...],
    codes: np.ndarray,
    done: int,
    upper: np.ndarray | None,
    describe: Describe,
    seed: int,
    items: np.ndarray,
    temperature: float,
    on_window: Callable[[np.ndarray, int], None],
) -> np.ndarray:
    """All codes of one level.

    Args:
      codes: (B, total) int32, of which the first `done` are made.
      upper: codes of the level above (B, total / ratio), for an upsampler.
      describe: offset of a window in samples -> the label arrays of its batch.
      items: (B,) numbers of the songs, for their random numbers.
      on_window: called with (codes, done) after every window; the place to save.

    Returns:
      codes, filled.
    """
    codes = codes.copy()
    for window in windows:
        if window.stop <= done:
            continue
        stream = start_stream(
            config, params, window_batch(config, window, codes, upper, describe),
            jnp.asarray(window.given - window.start),
        )  # fmt: skip
        u = _uniforms(seed, items, config.level, window.start, config.n_ctx)
        first, stop = window.given - window.start, window.stop - window.start
        stream = fill(
            config, params, stream, u, jnp.asarray(first), jnp.asarray(stop),
            jnp.asarray(temperature, jnp.float32),
        )  # fmt: skip
        made = np.asarray(music(config, stream))[:, first:stop]
        codes[:, window.given : window.stop] = made
        done = window.stop
        on_window(codes, done)
    return codes


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
