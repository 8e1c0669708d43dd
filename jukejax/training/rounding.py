"""A state stored in bfloat16 (`train.state_dtype`), with stochastic rounding.

A step computes in float32 and rounds up or down at random, with probabilities that keep the mean.
Rounding to the nearest would lose every change below 1/256: an average with a decay of 0.999 would
never move.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_FIRST = 1000  # first number folded into a step's key here; a task's update folds in levels


def stored(tree: Any, dtype: str) -> Any:
    """The floating-point arrays of a new state in the dtype that they are stored in."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def widen(tree: Any) -> Any:
    """bfloat16 arrays as float32; others unchanged."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, tree)


def narrow(key: jax.Array, tree: Any, like: Any) -> Any:
    """Arrays that are bfloat16 in `like`, stochastically rounded to that; others unchanged."""
    leaves, structure = jax.tree.flatten(tree)
    pairs = zip(leaves, jax.tree.leaves(like), strict=True)
    narrowed = [
        rounded(jax.random.fold_in(key, _FIRST + i), x) if y.dtype == jnp.bfloat16 else x
        for i, (x, y) in enumerate(pairs)
    ]
    return jax.tree.unflatten(structure, narrowed)


def rounded(key: jax.Array, x: jax.Array) -> jax.Array:
    """float32 to one of the two nearest bfloat16 values, at random, with x as the expectation."""
    # bfloat16 is the upper half of float32's bits; the lower half gives the chance of a carry
    bits = lax.bitcast_convert_type(x, jnp.uint32)
    bits += jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    return lax.bitcast_convert_type((bits >> 16).astype(jnp.uint16), jnp.bfloat16)
