"""Storage of a prior's matrices while it samples: float32, bfloat16 or int8.

Only the kernels of the stacks' dense layers change, nearly all of what a token reads; embeddings,
norms, biases, convolutions and the output stay float32. int8 is symmetric, one scale per output
channel: kernel ~ q scale, |q| <= 127, scale = max |kernel| / 127 (Dettmers et al. 2022, section 2,
vector-wise). `dense.dense` multiplies by q and scales the product.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


def _dense(p: dict[str, jax.Array], weights: str) -> dict[str, jax.Array]:
    """Kernels (n, n_in, n_out) of the repeats of a layer, and "scale" (n, n_out) with int8."""
    kernel = p["kernel"]
    if weights != "int8":
        return {**p, "kernel": kernel.astype(weights)}
    scale = jnp.max(jnp.abs(kernel), axis=-2) / 127
    scale = jnp.where(scale > 0, scale, 1.0)
    q = jnp.round(kernel / scale[..., None, :]).astype(jnp.int8)
    return {**p, "kernel": q, "scale": scale}


def converted(stored: Any, weights: str) -> Any:
    """Shapes and shardings of what `convert` returns. Scales use the bias's sharding."""

    def placed(shapes: Any, stored: Any) -> Any:
        if not isinstance(shapes, dict):
            return jax.ShapeDtypeStruct(shapes.shape, shapes.dtype, sharding=stored.sharding)
        beside = {"scale": stored.get("bias"), **stored}
        return {name: placed(x, beside[name]) for name, x in shapes.items()}

    return placed(jax.eval_shape(lambda p: convert(p, weights), stored), stored)


@partial(jax.jit, static_argnums=1)
def convert(params: Any, weights: str) -> Any:
    """A prior's parameters with the matrices of its stacks stored in a format of `job.WEIGHTS`."""

    def walk(tree: Any, in_stack: bool) -> Any:
        if not isinstance(tree, dict):
            return tree
        if in_stack and "kernel" in tree:
            return _dense(tree, weights)
        return {name: walk(x, in_stack or name == "stack") for name, x in tree.items()}

    return walk(params, False)
