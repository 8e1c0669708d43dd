"""Stored parameters on every device, and their gradients back; what a device does of its own.

Parameters have logical axes: "embed", the width of the residual stream, is stored in shards (see
`jukejax.parallel.mesh`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Axes = tuple[str | None, str | None]
ROWS = 8  # of a tile of a TPU's memory; of a matrix product that stays one


def ways(axis: str = "stored") -> int:
    """The number of shards of a logical axis; of the residual stream's width, as it is stored."""
    (axes,) = nn.logical_to_mesh_axes((axis,)) or (None,)
    shape = jax.sharding.get_abstract_mesh().shape
    return prod(shape.get(name, 1) for name in ([axes] if isinstance(axes, str) else axes or []))


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(x: jax.Array, here: tuple, stored: tuple) -> jax.Array:
    """x, stored by the logical axes `stored`, laid out by `here`; and its gradient by `stored`.

    A plain constraint is one on the gradient too, which every device would be sent whole.
    """
    found: jax.Array = nn.with_logical_constraint(nn.with_logical_constraint(x, stored), here)
    return found


def _gather_backward(here: tuple, stored: tuple, _: None, dx: jax.Array) -> tuple[jax.Array]:
    return (nn.with_logical_constraint(dx, stored),)


_gather.defvjp(lambda x, here, stored: (_gather(x, here, stored), None), _gather_backward)


def _apart(x: jax.Array, here: tuple, stored: tuple) -> jax.Array:
    """`_gather`, fused neither with what is done before nor with what is done after."""
    x = lax.optimization_barrier(x)
    found: jax.Array = lax.optimization_barrier(_gather(x, here, stored))
    return found


def gathered(kernel: jax.Array, axes: Axes) -> jax.Array:
    """A kernel of logical `axes`, whose "embed" axis is stored in shards, on every device.

    Shards are padded to whole tiles of 8 rows for the way: the 75 rows of a 64th of 4800 would
    travel one row a tile, and be sorted into tiles at a sixth of the memory's speed.
    """
    at = axes.index("embed")
    n = ways()
    rows, rest = divmod(kernel.shape[at], n)
    pad = -rows % ROWS
    if n == 1 or rest or not pad:
        return _apart(kernel, axes, tuple("stored" if a == "embed" else a for a in axes))
    x = jnp.moveaxis(kernel, at, 0)  # (embed, inner)
    shards = x.reshape(n, rows, -1)
    shards = nn.with_logical_constraint(shards, ("stored", None, "inner"))
    shards = jnp.pad(shards, ((0, 0), (0, pad), (0, 0)))
    shards = _apart(shards, (None, None, "inner"), ("stored", None, "inner"))
    return jnp.moveaxis(shards[:, :rows].reshape(x.shape), 0, at)


def whole(table: jax.Array) -> jax.Array:
    """A table (rows, width) on every device."""
    found: jax.Array = _gather(table, (None, "embed"), (None, "stored"))
    return found


def with_whole(
    function: Callable[..., jax.Array], table: jax.Array, *batched: jax.Array
) -> jax.Array:
    """function(table, *batched) (B, ...), by every device with the whole table for its examples.

    Tables (rows, width) are stored split by width, and batches by example. Left to itself XLA
    exchanges the rows looked up (B, T, width), which are larger than the table, and sends every
    device the whole gradient of some tables. It is left to itself where devices do not divide the
    examples, as in sampling.
    """
    if ways() == 1 or table.shape[1] % ways() or len(batched[0]) % ways("batch"):
        return function(whole(table), *batched)

    def here(shard: jax.Array, *batched: jax.Array) -> jax.Array:
        # of the gradient, shards are summed over fsdp first, and what is left over data
        shard = lax.pcast(shard, "data", to="varying")
        shards = lax.all_gather(shard, "fsdp")  # (ways, rows, width / ways)
        return function(shards.swapaxes(0, 1).reshape(table.shape), *batched)

    stored, split = (nn.logical_to_mesh_axes(axes) for axes in ((None, "stored"), ("batch",)))
    specs = (stored, *(split for _ in batched))
    found: jax.Array = jax.shard_map(here, in_specs=specs, out_specs=split)(table, *batched)
    return found


def by_device(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """function(x) of examples x (B, ...), by every device of its own ones alone.

    Of some functions, FFTs among them, XLA knows no parts, and sends every device all examples.
    """
    if ways("batch") == 1 or len(x) % ways("batch"):
        return function(x)
    split = nn.logical_to_mesh_axes(("batch",))
    found: jax.Array = jax.shard_map(function, in_specs=(split,), out_specs=split)(x)
    return found


def look_up(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Rows of a table (rows, width) by ids (...): (..., width)."""
    return table[ids]
