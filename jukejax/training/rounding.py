"""State held in bfloat16 (`train.state_dtype`).

A step computes in float32 and rounds at random, up or down by how near each neighbour is. Rounding
to the nearest would lose every change below a 256th: an average with a decay of 0.999 would stand
still.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_FIRST = 1000  # of the numbers folded into a step's key here; a task's update folds in levels


def held(tree: Any, dtype: str) -> Any:
    """Floating-point arrays of a new state in the dtype that they are held in."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def widen(tree: Any) -> Any:
    """bfloat16 arrays as float32, others as they are."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, tree)


def narrow(key: jax.Array, tree: Any, like: Any) -> Any:
    """Arrays that are bfloat16 in `like`, rounded at random to that; others as they are."""
    leaves, structure = jax.tree.flatten(tree)
    kept = [x.dtype == jnp.bfloat16 for x in jax.tree.leaves(like)]
    drawn = [
        rounded(jax.random.fold_in(key, _FIRST + i), x) if k else x
        for i, (x, k) in enumerate(zip(leaves, kept, strict=True))
    ]
    return jax.tree.unflatten(structure, drawn)


def rounded(key: jax.Array, x: jax.Array) -> jax.Array:
    """float32 -> bfloat16, one of the two neighbours, x in the mean."""
    # bfloat16 is the upper half of float32's bits: the lower half is the chance of a carry
    bits = lax.bitcast_convert_type(x, jnp.uint32)
    bits += jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    return lax.bitcast_convert_type((bits >> 16).astype(jnp.uint16), jnp.bfloat16)
