"""One token at a time: caches as small as each pattern allows, and the loop that fills a window.

Decoding is a pure function over the prior's parameter tree; it shares `layer` and the embedding
maths with training, and equals the full forward pass to rounding. B batch, L positions of the
stack = R rows x C columns, A attention width, n repeats of a run.

Caches of a run are (n, B, ...) in the carry of its scan, updated in place:
row (n, B, C, A); previous row (n, B, 2, C, A) by parity of the row; column (n, B, C, R, A), so
that a read is one slab; dense and prime (n, B, positions, A); cross (n, B, E, A), filled once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from jukejax.config import PriorConfig
from jukejax.models.layers import Params
from jukejax.models.prior import Batch, Prior, rows
from jukejax.models.transformer import COLLECT_KV, layer
from jukejax.patterns import COLUMN, CROSS, DENSE, PREVIOUS_ROW, PRIME, ROW
from jukejax.sampling.draw import Control, choose

Cache = tuple[jax.Array, jax.Array]  # keys, values


class Stream(NamedTuple):
    """A window while it is filled."""

    tokens: jax.Array  # (B, L) ids of the stack's vocabulary
    caches: Any  # tuple over runs of tuples over the pattern of Cache
    start: jax.Array  # (B, 1, W)
    add: jax.Array  # (L, W) or (B, L, W)
    output_add: jax.Array | None  # (B, L, W)


def _to_cache(config: PriorConfig, pattern: str, x: jax.Array, position: jax.Array) -> jax.Array:
    """Keys or values (n, B, L, A) of a whole window as the cache before `position` is computed.

    Entries at or after `position` are arbitrary; they are overwritten before they are read.
    """
    if pattern in (DENSE, CROSS):
        return x
    if pattern == PRIME:
        return x[:, :, : config.prime_visible]
    n, b, length, a = x.shape
    grid = x.reshape(n, b, config.blocks, length // config.blocks, a)  # (n, B, R, C, A)
    if pattern == COLUMN:
        return grid.swapaxes(2, 3)
    row = position // grid.shape[3]
    this = lax.dynamic_index_in_dim(grid, row, 2, keepdims=False)  # (n, B, C, A)
    if pattern == ROW:
        return this
    above = lax.dynamic_index_in_dim(grid, jnp.maximum(row - 1, 0), 2, keepdims=False)
    above = jnp.where(row > 0, above, 0.0)
    even = row % 2 == 0
    return jnp.stack([jnp.where(even, this, above), jnp.where(even, above, this)], axis=2)


def prefill(config: PriorConfig, params: Any, batch: Batch, given: jax.Array) -> Stream:
    """One parallel pass over the given tokens (`batch["codes"]` before position `given`).

    Skipped where there is nothing to read: no given token, and no lyrics encoder.
    """
    model: Any = Prior(config)
    variables = {"params": params}
    conditions = model.apply(variables, batch, method="conditions")
    position = given + config.prefix_len

    def read() -> Any:
        _, kept = model.apply(variables, batch, conditions, COLLECT_KV, method="hidden")
        return tuple(
            tuple(
                (_to_cache(config, pattern, k, position), _to_cache(config, pattern, v, position))
                for pattern, (k, v) in zip(patterns, run, strict=True)
            )
            for (_, patterns), run in zip(config.runs, kept, strict=True)
        )

    def empty() -> Any:
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(read))

    caches = read() if config.lyric_encoder else lax.cond(position > 0, read, empty)
    tokens = model.apply(variables, batch, method="sequence")
    return Stream(tokens, caches, conditions.start, conditions.add, conditions.output_add)


def _place(
    config: PriorConfig, pattern: str, i: jax.Array, p: jax.Array
) -> tuple[tuple[Any, ...], tuple[Any, ...], jax.Array | None]:
    """Where `pattern` writes position p in run-repeat i's cache, what it reads, and up to where."""
    every, visible = slice(None), config.prime_visible
    columns = config.seq_len // config.blocks
    r, c = p // columns, p % columns
    if pattern == ROW:
        return (i, every, c), (i,), c
    if pattern == COLUMN:
        return (i, every, c, r), (i, every, c), r
    if pattern == PREVIOUS_ROW:
        return (i, every, r % 2, c), (i, every, (r + 1) % 2), None
    if pattern == PRIME:  # beyond the visible part: out of bounds, so not written
        return (i, every, jnp.where(p < visible, p, visible)), (i,), p
    return (i, every, p), (i,), p


def _attend_one(
    q: jax.Array, keys: jax.Array, values: jax.Array, heads: int, last: jax.Array | None
) -> jax.Array:
    """q (B, A) attends to keys and values (B, M, A) at 0..last (None: all) -> (B, A)."""
    b, m, a = keys.shape
    d = a // heads
    scores = jnp.einsum("bhd,bmhd->bhm", q.reshape(b, heads, d), keys.reshape(b, m, heads, d))
    scores = scores.astype(jnp.float32) * d**-0.5
    if last is not None:
        scores = jnp.where(jnp.arange(m) <= last, scores, -jnp.inf)
    weights = jax.nn.softmax(scores).astype(values.dtype)
    return jnp.einsum("bhm,bmhd->bhd", weights, values.reshape(b, m, heads, d)).reshape(b, a)


def _layer_step(
    config: PriorConfig, pattern: str,
    p: Params, x: jax.Array, cache: Cache, i: jax.Array, position: jax.Array,
) -> tuple[jax.Array, Cache]:  # fmt: skip
    """One layer for one position: x (B, W) -> (B, W), and its cache including the position."""

    def attend(projected: jax.Array) -> tuple[jax.Array, Cache]:
        if pattern == CROSS:
            keys, values = cache
            return _attend_one(projected, keys[i], values[i], config.heads, None), cache
        q, k, v = jnp.split(projected, 3, axis=-1)
        write, read, last = _place(config, pattern, i, position)
        new = tuple(
            c.at[write].set(new.astype(c.dtype), mode="drop")
            for c, new in zip(cache, (k, v), strict=True)
        )
        return _attend_one(q, new[0][read], new[1][read], config.heads, last), new  # type: ignore

    return layer(p, x, config.residual, attend)


def decode_step(
    config: PriorConfig, params: Any, caches: Any, x: jax.Array, position: jax.Array
) -> tuple[jax.Array, Any]:
    """The stack for one position: embedded input (B, W) -> hidden state (B, W), new caches.

    The parameters of each run of the stack are stacked and scanned, or a tuple of its repeats.
    """
    dtype = x.dtype
    x = x.astype(config.dtype)
    done = []
    for number, (repeats, patterns) in enumerate(config.runs):
        tree = params["stack"][f"run_{number}"]

        def body(carry: Any, at: Any, patterns: tuple[str, ...] = patterns) -> tuple[Any, None]:
            h, run = carry
            i, layers = at
            new = []
            for j, pattern in enumerate(patterns):
                h, cache = _layer_step(
                    config, pattern, layers[f"layer_{j}"], h, run[j], i, position
                )
                new.append(cache)
            return (h, tuple(new)), None

        carry = (x, caches[number])
        if isinstance(tree, tuple):
            for at in enumerate(tree):
                carry, _ = body(carry, at)
        else:
            carry, _ = lax.scan(body, carry, (jnp.arange(repeats), tree))
        x, run = carry
        done.append(run)
    return x.astype(dtype), tuple(done)


def _unsharded(x: jax.Array) -> jax.Array:
    """x (B, N) with N unsharded, on the current mesh if there is one.

    Drawing a token sums over logits several times: by itself XLA keeps them sharded and
    communicates for each sum.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return lax.with_sharding_constraint(x, P(P.UNCONSTRAINED, None))


def last_token(stream: Stream, p: jax.Array) -> jax.Array:
    """Ids (B,) before position p of the stack; at p = 0, where they are not read, those at 0."""
    return lax.dynamic_index_in_dim(stream.tokens, jnp.maximum(p - 1, 0), 1, keepdims=False)


def step(
    config: PriorConfig, params: Any, stream: Stream, before: jax.Array, p: jax.Array
) -> tuple[jax.Array, Any]:
    """Logits (B, K) of position p of the stack, and the caches including it.

    `stream.tokens` is read only where codes have groups.

    Args:
      before: (B,) ids of the previous position, from `last_token`.
    """
    x = jnp.where(p == 0, stream.start[:, 0], params["token"][rows(config, before, p, 1)])
    x = x + lax.dynamic_index_in_dim(stream.add, p, -2, keepdims=False)
    if config.groups > 1:
        at = jnp.maximum(p - config.groups, 0)
        tokens = lax.dynamic_index_in_dim(stream.tokens, at, 1, keepdims=False)
        earlier = params["token"][rows(config, tokens, at)] @ params["earlier"]
        x = x + jnp.where(p < config.groups, 0.0, earlier)
    h, caches = decode_step(config, params, stream.caches, x, p)
    if stream.output_add is not None:
        h = h + lax.dynamic_index_in_dim(stream.output_add, p, 1, keepdims=False)
    model: Any = Prior(config)
    return _unsharded(model.apply({"params": params}, h, p, method="head")), caches


def fill(
    config: PriorConfig,
    params: Any,
    stream: Stream,
    uniforms: jax.Array,
    first: jax.Array,
    stop: jax.Array,
    control: Control,
    known: jax.Array,
) -> Stream:
    """Samples music tokens first .. stop - 1 of a window on the device.

    Args:
      uniforms: (B, n_ctx) in [0, 1), one per music token.
      first, stop: music positions; other values do not compile again.
      known: tokens before this music position stay as they are in `stream`. An interrupted loop
        is repeated this way, by the same program: its caches come back bit for bit.
    """
    n = config.prefix_len

    def body(p: jax.Array, stream: Stream) -> Stream:
        logits, caches = step(config, params, stream, last_token(stream, p), p)
        u = lax.dynamic_index_in_dim(uniforms, p - n, 1, keepdims=False)
        here = lax.dynamic_index_in_dim(stream.tokens, p, 1, keepdims=False)
        token = jnp.where(p < known + n, here, choose(logits, u, control))
        tokens = lax.dynamic_update_index_in_dim(stream.tokens, token, p, 1)
        return stream._replace(tokens=tokens, caches=caches)

    return lax.fori_loop(first + n, stop + n, body, stream)


def music(config: PriorConfig, stream: Stream) -> jax.Array:
    """The window's codes (B, n_ctx).

    A prefix model may draw a lyric character at a music position, and continues from it; it counts
    as code 0, as published.
    """
    codes = stream.tokens[:, config.prefix_len :] - (config.vocabulary - config.codes)
    return jnp.maximum(codes, 0)
