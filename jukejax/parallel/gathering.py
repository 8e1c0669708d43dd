"""FSDP: all-gather of parameters, reduce-scatter of their gradients; functions by example.

Parameters have logical axes: "embed", the width of the residual stream, is stored in shards (see
`jukejax.parallel.mesh`). On a mesh without shards everything here is the identity.
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
ROWS = 8  # of a tile of a TPU's memory, the fewest that a matrix product works on


def ways(axis: str = "stored") -> int:
    """Number of shards of a logical axis; by default of the width of stored parameters."""
    (axes,) = nn.logical_to_mesh_axes((axis,)) or (None,)
    shape = jax.sharding.get_abstract_mesh().shape
    return prod(shape.get(name, 1) for name in ([axes] if isinstance(axes, str) else axes or []))


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(x: jax.Array, compute: tuple, stored: tuple) -> jax.Array:
    """x from the logical axes `stored` to `compute`; its gradient is sharded as `stored`.

    Of a plain sharding constraint the gradient is constrained to `compute` too: an all-reduce.
    """
    gathered_x: jax.Array = nn.with_logical_constraint(
        nn.with_logical_constraint(x, stored), compute
    )
    return gathered_x


def _gather_backward(compute: tuple, stored: tuple, _: None, dx: jax.Array) -> tuple[jax.Array]:
    return (nn.with_logical_constraint(dx, stored),)


_gather.defvjp(lambda x, compute, stored: (_gather(x, compute, stored), None), _gather_backward)


def _gather_unfused(x: jax.Array, compute: tuple, stored: tuple) -> jax.Array:
    """`_gather`, not fused with the operations before and after it."""
    x = lax.optimization_barrier(x)
    out: jax.Array = lax.optimization_barrier(_gather(x, compute, stored))
    return out


def gathered(kernel: jax.Array, axes: Axes) -> jax.Array:
    """All-gather of a kernel with logical `axes`, of which "embed" is stored in shards.

    Shards are padded to whole tiles of 8 rows for the transfer: unpadded, the 75 rows of a 64th of
    4800 would be sent row by row and rearranged into tiles at a sixth of the memory's bandwidth
    (TPU compiler's estimate).
    """
    at = axes.index("embed")
    n = ways()
    rows, rest = divmod(kernel.shape[at], n)
    pad = -rows % ROWS
    if n == 1 or rest or not pad:
        stored = tuple("stored" if a == "embed" else a for a in axes)
        return _gather_unfused(kernel, axes, stored)
    x = jnp.moveaxis(kernel, at, 0)  # (embed, inner)
    shards = x.reshape(n, rows, -1)
    shards = nn.with_logical_constraint(shards, ("stored", None, "inner"))
    shards = jnp.pad(shards, ((0, 0), (0, pad), (0, 0)))
    shards = _gather_unfused(shards, (None, None, "inner"), ("stored", None, "inner"))
    return jnp.moveaxis(shards[:, :rows].reshape(x.shape), 0, at)


def whole(table: jax.Array) -> jax.Array:
    """All-gather of a table (rows, width), which is stored in shards of its width."""
    out: jax.Array = _gather(table, (None, "embed"), (None, "stored"))
    return out


def with_whole(
    function: Callable[..., jax.Array], table: jax.Array, *batched: jax.Array
) -> jax.Array:
    """function(table, *batched) (B, ...), with the table (rows, width) gathered on every device.

    Tables are stored in shards of their width, batches in shards of examples. Without this XLA
    exchanges the rows that are looked up (B, T, width), which are larger than the table, and
    all-reduces some gradients of tables. Where the devices do not divide the examples, as in
    sampling, the sharding is left to XLA.
    """
    if ways() == 1 or table.shape[1] % ways() or len(batched[0]) % ways("batch"):
        return function(whole(table), *batched)

    def on_device(shard: jax.Array, *batched: jax.Array) -> jax.Array:
        # the gradient is reduce-scattered over fsdp first, and then all-reduced over data
        shard = lax.pcast(shard, "data", to="varying")
        shards = lax.all_gather(shard, "fsdp")  # (ways, rows, width / ways)
        return function(shards.swapaxes(0, 1).reshape(table.shape), *batched)

    stored, split = (nn.logical_to_mesh_axes(axes) for axes in ((None, "stored"), ("batch",)))
    specs = (stored, *(split for _ in batched))
    out: jax.Array = jax.shard_map(on_device, in_specs=specs, out_specs=split)(table, *batched)
    return out


def by_device(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """function(x) of examples x (B, ...), every device computing its own examples.

    XLA cannot partition some functions, FFTs among them: it gathers all examples on every device.
    """
    if ways("batch") == 1 or len(x) % ways("batch"):
        return function(x)
    split = nn.logical_to_mesh_axes(("batch",))
    out: jax.Array = jax.shard_map(function, in_specs=(split,), out_specs=split)(x)
    return out


def look_up(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Rows of a table (rows, width) by ids (...): (..., width)."""
    return table[ids]
