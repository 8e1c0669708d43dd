"""Dense layers and layer norms of the transformers: the plain definition.

`jukejax.models.dense_tuned` has the same functions, tuned for accelerators; `PriorConfig.layers`
chooses. Decoding uses the plain ones. (..., n_in) stands for any leading axes, such as (B, T, W).

Kernels are stored with the logical axes `WIDE` (out of the residual stream) or `NARROW` (into it);
`jukejax.parallel.mesh` maps "embed" and "inner" to mesh axes. A Linen module makes a parameter tree
with `self.param(name, dense_params(...))` and passes it to the function.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jukejax.models.layers import Init, Params, boxed
from jukejax.parallel.gathering import Axes

WIDE: Axes = ("embed", "inner")
NARROW: Axes = ("inner", "embed")

# Names of a layer's intermediates (see `keep`).
QKV, ATTENDED, AFTER_ATTENTION, MLP_IN = "qkv", "attended", "after_attention", "mlp_in"


def dense_params(n_in: int, n_out: int, std: float, axes: Axes, zero: bool = False) -> Init:
    """Kernel (n_in, n_out) ~ N(0, std^2) (or zeros) and bias (n_out,) of zeros."""
    kernel = nn.initializers.zeros if zero else nn.initializers.normal(std)

    def init(key: jax.Array) -> Params:
        return {
            "kernel": boxed(kernel, axes)(key, (n_in, n_out)),
            "bias": boxed(nn.initializers.zeros, axes[1:])(key, (n_out,)),
        }

    return init


def norm_params(width: int) -> Init:
    """Scale and bias (width,) of a layer norm."""

    def init(key: jax.Array) -> Params:
        return {
            "scale": boxed(nn.initializers.ones, ("embed",))(key, (width,)),
            "bias": boxed(nn.initializers.zeros, ("embed",))(key, (width,)),
        }

    return init


def dense(p: Params, x: jax.Array) -> jax.Array:
    """x (..., n_in) -> (..., n_out) in x's dtype; the sum is in float32.

    An int8 kernel comes with a "scale" (n_out,): see `jukejax.sampling.weights`.
    """
    y = jnp.matmul(x, p["kernel"].astype(x.dtype), preferred_element_type=jnp.float32)
    if "scale" in p:
        y = y * p["scale"]
    return (y + p["bias"]).astype(x.dtype)


def mean_and_scale(x: jax.Array, eps: float = 1e-5) -> tuple[jax.Array, jax.Array]:
    """Mean and 1/deviation over the last axis, (..., 1) float32, in one pass over x."""
    x = x.astype(jnp.float32)
    mean = jnp.mean(x, -1, keepdims=True)
    variance = jnp.mean(x * x, -1, keepdims=True) - mean * mean
    return mean, lax.rsqrt(jnp.maximum(variance, 0.0) + eps)


def layer_norm(p: Params, x: jax.Array) -> jax.Array:
    """Layer norm of the last axis (Ba et al. 2016): computed in float32, returned in x's dtype."""
    mean, scale = mean_and_scale(x)
    return ((x.astype(jnp.float32) - mean) * scale * p["scale"] + p["bias"]).astype(x.dtype)


def normed_dense(norm: Params, p: Params, x: jax.Array, name: str) -> jax.Array:
    """dense(p, layer_norm(norm, x)): x (..., n_in) -> (..., n_out); `name` as in `keep`."""
    return keep(dense(p, layer_norm(norm, x)), name)


def keep(x: jax.Array, name: str) -> jax.Array:
    """x, named for the policies of `PriorConfig.remat`: stored for the backward pass or not."""
    return checkpoint_name(x, name)
