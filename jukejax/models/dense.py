"""Dense layers and norms of the transformers, with gradients that accelerators compute well.

B batch, T tokens, W width. Kernels have the logical axes `WIDE` or `NARROW`: "embed" is the width
of the residual stream, which is stored in shards, "inner" a layer's own. A Linen module asks for a
tree with `self.param(name, dense_params(...))` and hands it to the function; decoding hands over
the same tree without Linen, so there is one definition of the maths.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout, with_layout_constraint

from jukejax.models.layers import Init, Params, boxed
from jukejax.parallel.gathering import ROWS, Axes, ways

WIDE: Axes = ("embed", "inner")
NARROW: Axes = ("inner", "embed")

NORM = "norm"  # the name that rematerialisation policies know what is small of a norm by


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


# --- what layers compute --------------------------------------------------------------------------


def dense(p: Params, x: jax.Array, axes: Axes) -> jax.Array:
    """x (..., n_in) -> (..., n_out) in x's dtype, by a kernel of logical `axes`.

    A kernel of whole numbers comes with "scale" (n_out,): see `jukejax.sampling.weights`.
    """
    if "scale" in p:
        y = jnp.matmul(x, p["kernel"].astype(x.dtype), preferred_element_type=jnp.float32)
        return (y * p["scale"] + p["bias"]).astype(x.dtype)
    out: jax.Array = _affine(x, p["kernel"].astype(x.dtype), p["bias"].astype(jnp.float32), axes)
    return out


def layer_norm(p: Params, x: jax.Array) -> jax.Array:
    """Layer norm over the last axis, computed in float32, returned in x's dtype."""
    mean, scale = _moments(x)
    return ((x.astype(jnp.float32) - mean) * scale * p["scale"] + p["bias"]).astype(x.dtype)


def normed_dense(
    norm: Params, p: Params, x: jax.Array, name: str, by_row: bool = False
) -> jax.Array:
    """dense(p, layer_norm(norm, x), WIDE), known to rematerialisation by `name`.

    With an empty `norm`, which p has taken in (see `absorb`), it has a gradient of its own; and
    `by_row` says that training wants the output token by token in memory: left to itself XLA lays
    tokens in a TPU's lanes.
    """
    if norm:
        return checkpoint_name(dense(p, layer_norm(norm, x), WIDE), name)
    out: jax.Array = _normed_affine(x, p["kernel"], p["bias"], p["sums"], name, by_row)
    return out


def absorb(norm: Params, p: Params, dtype: str) -> Params:
    """The dense layer that maps a standardised x to `dense(p, layer_norm(norm, x))`.

    Scale and bias then cost operations on weights instead of activations, and so do their
    gradients, which sharded weights have computed where they are stored. "sums" (n_out,) are those
    of the kernel's columns.
    """
    kernel = p["kernel"].astype(jnp.float32)
    bias = p["bias"] + norm["bias"] @ kernel
    kernel = (norm["scale"][:, None] * kernel).astype(dtype)
    sums = lax.stop_gradient(kernel).sum(0, dtype=jnp.float32)
    bias, sums = checkpoint_name((bias, sums), NORM)  # every shard has a part of them
    return {"kernel": kernel, "bias": bias, "sums": sums}


# --- and their gradients --------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _affine(x: jax.Array, kernel: jax.Array, bias: jax.Array, axes: Axes) -> jax.Array:
    """x kernel + bias (float32), with a gradient whose sums over tokens are matrix products."""
    y = jnp.matmul(x, kernel, preferred_element_type=jnp.float32)
    return (y + bias).astype(x.dtype)


def _affine_forward(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, axes: Axes
) -> tuple[jax.Array, Any]:
    # what a product reads is computed once: fused into it, once for every tile of the output
    x = lax.optimization_barrier(x)
    return _affine(x, kernel, bias, axes), (x, kernel)


def _affine_backward(axes: Axes, kept: Any, dy: jax.Array) -> tuple[jax.Array, ...]:
    x, kernel = kept
    dy = lax.optimization_barrier(dy)
    return dy @ kernel.T, *_parameter_gradients(x, dy, jnp.ones_like(x[..., :1]), axes)


_affine.defvjp(_affine_forward, _affine_backward)


def _moments(x: jax.Array, eps: float = 1e-5) -> tuple[jax.Array, jax.Array]:
    """Mean and 1/deviation over the last axis, (..., 1) float32, of one pass over x."""
    x = x.astype(jnp.float32)
    mean = jnp.mean(x, -1, keepdims=True)
    variance = jnp.mean(x * x, -1, keepdims=True) - mean * mean
    return mean, lax.rsqrt(jnp.maximum(variance, 0.0) + eps)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _normed_affine(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, sums: jax.Array, name: str, by_row: bool
) -> jax.Array:
    """standardised x kernel + bias, of a kernel whose columns have these sums (all float32).

    (x - mean) scale kernel = scale (x kernel - mean sums): x is multiplied as it is, and what is
    standardised is the product, on its way out.
    """
    return _standardised_product(x, kernel, bias, sums, *_moments(x))


def _standardised_product(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, sums: jax.Array,
    mean: jax.Array, scale: jax.Array,
) -> jax.Array:  # fmt: skip
    product = jnp.matmul(x, kernel, preferred_element_type=jnp.float32)
    return (scale * (product - mean * sums) + bias).astype(x.dtype)


def _by_row(x: jax.Array) -> jax.Array:
    """x laid out row by row on TPUs; elsewhere it is, and to say so would gather its shards."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None or device.platform != "tpu":
        return x
    found: jax.Array = with_layout_constraint(x, Layout(tuple(range(x.ndim))))
    return found


def _normed_affine_forward(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, sums: jax.Array, name: str, by_row: bool
) -> tuple[jax.Array, Any]:
    moments = checkpoint_name(_moments(x), NORM)
    z = _standardised_product(lax.optimization_barrier(x), kernel, bias, sums, *moments)
    z = checkpoint_name(z, name)
    return _by_row(z) if by_row else z, (x, moments, kernel, bias, sums, z)


def _normed_affine_backward(
    name: str, by_row: bool, kept: Any, dz: jax.Array
) -> tuple[jax.Array, ...]:
    """dx = scale (dy - mean(dy) - y mean(dy y)), of y standardised x and dy = dz kernel^T.

    Both means are known before dy is, so no pass over dy is spent on them: dy y and dz (z - bias)
    have the same sum, for z - bias = y kernel.
    """
    x, (mean, scale), kernel, bias, sums, z = kept
    dz = _by_row(dz) if by_row else dz
    d, width = scale * dz.astype(jnp.float32), x.shape[-1]
    level = jnp.sum(d * sums, -1, keepdims=True) / width
    along = jnp.sum(d * (z.astype(jnp.float32) - bias), -1, keepdims=True) / width
    dz, level, along = lax.optimization_barrier((d.astype(dz.dtype), level, scale * along))
    # on its way out of the product the rest would slow it down more than a pass of its own takes
    dx = lax.optimization_barrier(dz @ kernel.T).astype(jnp.float32)
    dx = (dx - level - (x.astype(jnp.float32) - mean) * along).astype(x.dtype)
    rows = jnp.concatenate([1 / scale, mean], -1)
    return dx, *_parameter_gradients(x, dz, rows, WIDE), jnp.zeros_like(sums)


_normed_affine.defvjp(_normed_affine_forward, _normed_affine_backward)


def _over_tokens(x: jax.Array, y: jax.Array) -> jax.Array:
    """The sum of the outer products of x (..., n) and y (..., m) over all but the last axis."""
    over = tuple(range(x.ndim - 1))  # not flattened: of two examples that is a copy on TPUs
    return lax.dot_general(x, y, ((over, over), ((), ())), preferred_element_type=jnp.float32)


def _parameter_gradients(
    x: jax.Array, dy: jax.Array, rows: jax.Array, axes: Axes
) -> tuple[jax.Array, jax.Array]:
    """Gradients of a kernel of `axes` and of its bias, summed over tokens and devices.

    Args:
      x: (..., n_in).
      dy: (..., n_out).
      rows: (..., 1): what dy counts in the gradient of the bias; or (..., 2): that, and the mean
        that x is less in the gradient of the kernel.

    Returns:
      (n_in, n_out) in x's dtype, left where the kernel is stored, and (n_out,) float32.
    """
    at, n = axes.index("embed"), ways()
    tensor = jax.sharding.get_abstract_mesh().shape.get("tensor", 1)
    sizes = (x.shape[-1], dy.shape[-1])
    centred = rows.shape[-1] > 1
    rows = jnp.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, ROWS - rows.shape[-1])])

    def here(x: jax.Array, dy: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        # a sum over tokens crosses lanes, which vector units do slowly and matrix units at once
        sums = _over_tokens(rows.astype(dy.dtype), dy)
        kernel = _over_tokens(x, dy)
        return (kernel - sums[1] if centred else kernel).astype(x.dtype), sums[0]

    if n == 1 or sizes[at] % n or sizes[1 - at] % tensor:
        return here(x, dy, rows)

    def scattered(x: jax.Array, dy: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        # by hand, for XLA now and then sends every device the whole sum
        kernel, bias = here(x, dy, rows)
        kernel = jnp.moveaxis(kernel, at, 0)
        kernel = lax.psum_scatter(kernel.reshape(n, sizes[at] // n, -1), "fsdp")
        return jnp.moveaxis(lax.psum(kernel, "data"), 0, at), lax.psum(bias, ("data", "fsdp"))

    def lies(*axes: str | None) -> Any:
        return nn.logical_to_mesh_axes(axes)

    between = (None,) * (x.ndim - 2)
    specs = tuple(lies("batch", *between, axis) for axis in (*axes, None))
    stored = lies(*("stored" if axis == "embed" else axis for axis in axes))
    found: tuple[jax.Array, jax.Array] = jax.shard_map(
        scattered, in_specs=specs, out_specs=(stored, lies(axes[1]))
    )(x, dy, rows)
    return found
