"""Factorized attention (paper section 4) as pure functions of queries, keys and values.

B batch, T tokens = R rows (blocks) x C columns, H heads, D head width, E encoder states. Position
p is in row p // C, column p % C. Every function maps q (B, T, H, D) and k, v (B, T or E, H, D)
to (B, T, H, D). Rows and columns become a batch axis of plain attention, so only `dense` computes
T x T scores.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jukejax.patterns import COLUMN, CROSS, DENSE, PREVIOUS_ROW, PRIME, ROW

_attend = jax.nn.dot_product_attention


def _grid(x: jax.Array, rows: int) -> jax.Array:
    b, t, h, d = x.shape
    return x.reshape(b, rows, t // rows, h, d)  # (B, R, C, H, D)


def dense(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Every position attends to itself and all positions before it."""
    return _attend(q, k, v, is_causal=True)


def row(q: jax.Array, k: jax.Array, v: jax.Array, rows: int) -> jax.Array:
    """A position attends to itself and those before it in its row."""
    b, t, h, d = q.shape
    q, k, v = (x.reshape(b * rows, t // rows, h, d) for x in (q, k, v))
    return _attend(q, k, v, is_causal=True).reshape(b, t, h, d)


def column(q: jax.Array, k: jax.Array, v: jax.Array, rows: int) -> jax.Array:
    """A position attends to itself and those above it in its column."""
    b, t, h, d = q.shape
    q, k, v = (
        _grid(x, rows).swapaxes(1, 2).reshape(b * (t // rows), rows, h, d) for x in (q, k, v)
    )  # (B*C, R, H, D)
    out = _attend(q, k, v, is_causal=True).reshape(b, t // rows, rows, h, d)
    return out.swapaxes(1, 2).reshape(b, t, h, d)


def previous_row(q: jax.Array, k: jax.Array, v: jax.Array, rows: int) -> jax.Array:
    """A position attends to all of the row above its own; the output of the first row is zero."""
    b, t, h, d = q.shape
    c = t // rows
    # sliced and padded as (B, T, A), which TPUs pad to tiles less than (H, D)
    q, k, v = (x.reshape(b, t, h * d) for x in (q, k, v))
    q, k, v = (x.reshape(b * (rows - 1), c, h, d) for x in (q[:, c:], k[:, :-c], v[:, :-c]))
    out = _attend(q, k, v).reshape(b, t - c, h * d)
    return jnp.pad(out, ((0, 0), (c, 0), (0, 0))).reshape(b, t, h, d)


def cross(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Every position attends to all E encoder states."""
    return _attend(q, k, v)


def prime(q: jax.Array, k: jax.Array, v: jax.Array, visible: int) -> jax.Array:
    """A position attends to itself and those before it among the first `visible` positions."""
    t = q.shape[1]
    mask = jnp.arange(visible) <= jnp.arange(t)[:, None]  # (T, visible)
    return _attend(q, k[:, :visible], v[:, :visible], mask=mask[None, None])


def weights(q: jax.Array, k: jax.Array, prefix: int = 0) -> jax.Array:
    """Attention weights of one head's music queries (B, T, D) to keys (B, E, D): (B, T, E) float32.

    With a `prefix` as in `prime`: music begins at that position, and keys are the first positions.
    """
    t, e = q.shape[1], k.shape[1]
    q, k = q.astype(jnp.float32), k.astype(jnp.float32)
    scores = jnp.einsum("btd,bed->bte", q, k) * q.shape[-1] ** -0.5
    if prefix:
        scores = jnp.where(jnp.arange(e) <= prefix + jnp.arange(t)[:, None], scores, -jnp.inf)
    return jax.nn.softmax(scores)


def attend(
    pattern: str, q: jax.Array, k: jax.Array, v: jax.Array, rows: int, visible: int
) -> jax.Array:
    """The attention called `pattern`."""
    if pattern in (ROW, COLUMN, PREVIOUS_ROW):
        return {ROW: row, COLUMN: column, PREVIOUS_ROW: previous_row}[pattern](q, k, v, rows)
    if pattern == PRIME:
        return prime(q, k, v, visible)
    return {DENSE: dense, CROSS: cross}[pattern](q, k, v)
