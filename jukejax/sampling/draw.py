"""Drawing tokens from logits by uniform numbers: temperature, then top-k, then top-p.

B batch, K entries. All of it runs on the device, inside the loop that fills a window.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

INVALID = -1  # in place of a token: the logits are no numbers


class Control(NamedTuple):
    """How tokens are drawn: scalars or (B, 1).

    A filter that is None is not compiled; top_k 0 and top_p 1 keep every token. With `guidance`
    rows are pairs: a song with its tracks, and the same song without; see `guided`.
    """

    temperature: jax.Array
    top_k: jax.Array | None = None
    top_p: jax.Array | None = None
    guidance: jax.Array | None = None


def guided(logits: jax.Array, guidance: jax.Array) -> jax.Array:
    """Logits (2 N, K) of pairs, moved away from the second of each: both get the same.

    first + guidance * (first - second): classifier-free guidance (Ho and Salimans 2022, section 3).
    """
    pairs = logits.reshape(-1, 2, logits.shape[-1])
    first, second = pairs[:, :1], pairs[:, 1:]
    scale = jnp.reshape(jnp.broadcast_to(guidance, (len(logits), 1)), (-1, 2, 1))
    return (first + scale * (first - second)).reshape(logits.shape)


def keep_likely(
    logits: jax.Array, top_k: jax.Array | None = None, top_p: jax.Array | None = None
) -> jax.Array:
    """Logits (B, K) with -inf for all but the most likely tokens.

    Args:
      top_k: this many tokens are kept, and ties with the last of them.
      top_p: of the tokens that top-k keeps, the fewest whose probabilities sum up to it are kept,
        and ties with the last of them (nucleus sampling, Holtzman et al. 2020).
    """
    if top_k is None and top_p is None:
        return logits
    best = -jnp.sort(-logits, axis=-1)
    if top_k is not None:
        among = jnp.arange(logits.shape[-1]) < jnp.where(top_k > 0, top_k, logits.shape[-1])
        best = jnp.where(among | (best == _last(best, among)), best, -jnp.inf)
    if top_p is not None:
        p = jax.nn.softmax(best)
        among = (jnp.cumsum(p, -1) - p < top_p) | (top_p >= 1)
        best = jnp.where(among & (best > -jnp.inf), best, -jnp.inf)
    return jnp.where(logits >= _last(best, best > -jnp.inf), logits, -jnp.inf)


def _last(best: jax.Array, among: jax.Array) -> jax.Array:
    """The smallest entry (B, 1) of `best` (B, K) where `among` is true."""
    return jnp.min(jnp.where(among, best, jnp.inf), axis=-1, keepdims=True)


def choose(logits: jax.Array, u: jax.Array, control: Control) -> jax.Array:
    """Tokens (B,) by inverting the cumulative distribution of logits (B, K) at u (B,) in [0, 1).

    The number of entries of the cumulative sum that are at most u times its last. A float32
    cumulative sum is not quite monotone, so that number may be a token without probability; then
    it is the nearest token that has one.

    Returns:
      tokens int32; `INVALID` where a logit is NaN, or no token has a probability.
    """
    if control.guidance is not None:
        logits = guided(logits, control.guidance)
    likely = keep_likely(logits / control.temperature, control.top_k, control.top_p)
    p = jax.nn.softmax(likely)
    c = jnp.cumsum(p, -1)
    token = jnp.sum(c <= u[:, None] * c[:, -1:], -1, keepdims=True)
    k = logits.shape[-1]
    nearest = jnp.argmin(jnp.where(p > 0, jnp.abs(jnp.arange(k) - token), k), -1)
    valid = (p > 0).any(-1) & ~jnp.isnan(logits).any(-1)
    return jnp.where(valid, nearest, INVALID).astype(jnp.int32)
