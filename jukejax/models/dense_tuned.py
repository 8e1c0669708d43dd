"""The dense layers of `jukejax.models.dense`, tuned for accelerators: the same results.

What differs is what the compiler is led to do. The gains are estimates of the TPU compiler
(`jukejax.planning`), not measured on chips.

  * Layer norms are absorbed into the kernels that follow them, so that scale and bias cost
    operations on weights instead of activations.
  * FSDP: kernels are gathered once per layer, in the activations' dtype, and their gradients are
    reduce-scattered to where the kernels are stored.
  * Gradients are written by hand: sums over tokens are matrix products, and a norm's gradient takes
    no pass of its own over its output's gradient.
  * Optimization barriers prevent fusions that make a matrix product slower.

B batch, T tokens; (..., n_in) stands for any leading axes, the batch first.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout, with_layout_constraint

from jukejax.models.dense import ATTENDED, NARROW, QKV, WIDE, mean_and_scale
from jukejax.models.layers import Params
from jukejax.parallel.gathering import ROWS, Axes, gathered, ways

NORM = "norm"  # checkpoint_name of a norm's small residuals


@struct.dataclass
class Kernel:
    """Parameters of a dense layer, and the logical axes of its kernel."""

    kernel: jax.Array  # (n_in, n_out)
    bias: jax.Array  # (n_out,)
    axes: Axes = struct.field(pytree_node=False)
    sums: jax.Array | None = None  # (n_out,) of the kernel's columns, if it has absorbed a norm


def prepare(p: Params, dtype: str) -> Params:
    """A transformer layer's parameters, every dense layer as a `Kernel` on every device.

    Norms are absorbed into the stored shards, before the gather.
    """
    absorbed = {
        "qkv": absorb(p["norm_0"], p["qkv"], dtype),
        "mlp_in": absorb(p["norm_1"], p["mlp_in"], dtype),
    }
    axes = {"attn_out": NARROW, "mlp_out": NARROW, "encoder_kv": WIDE}
    prepared = dict(p)
    for name in p:
        if name in absorbed or name in axes:
            one = absorbed.get(name) or Kernel(**p[name], axes=axes[name])
            kernel = gathered(one.kernel.astype(dtype), one.axes)
            prepared[name] = replace(one, kernel=kernel)
    return prepared


def absorb(norm: Params, p: Params, dtype: str) -> Kernel:
    """The dense layer that maps a standardised x to dense(p, layer_norm(norm, x)).

    (y scale + bias) kernel = y (scale kernel) + bias kernel, of a standardised y.
    """
    kernel = p["kernel"].astype(jnp.float32)
    bias = p["bias"] + norm["bias"] @ kernel
    kernel = (norm["scale"][:, None] * kernel).astype(dtype)
    sums = lax.stop_gradient(kernel).sum(0, dtype=jnp.float32)
    bias, sums = checkpoint_name((bias, sums), NORM)  # each shard computes a part of these sums
    return Kernel(kernel, bias, WIDE, sums)


# --- the functions of `dense` ---------------------------------------------------------------------


def dense(p: Kernel, x: jax.Array) -> jax.Array:
    """x (..., n_in) -> (..., n_out) in x's dtype; the sum is in float32."""
    out: jax.Array = _affine(x, p.kernel.astype(x.dtype), p.bias.astype(jnp.float32), p.axes)
    return out


def normed_dense(norm: Params, p: Kernel, x: jax.Array, name: str) -> jax.Array:
    """dense(layer_norm(x)) of a p that has absorbed its norm; `name` as in `keep`."""
    out: jax.Array = _normed_affine(x, p.kernel, p.bias, p.sums, name)
    return out


def keep(x: jax.Array, name: str) -> jax.Array:
    """x, named for the policies of `PriorConfig.remat`."""
    # barrier: keeps XLA from propagating attention's layout into the backward matmul
    return checkpoint_name(lax.optimization_barrier(x) if name == ATTENDED else x, name)


# --- a dense layer and its gradient ---------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _affine(x: jax.Array, kernel: jax.Array, bias: jax.Array, axes: Axes) -> jax.Array:
    """x kernel + bias (float32)."""
    y = jnp.matmul(x, kernel, preferred_element_type=jnp.float32)
    return (y + bias).astype(x.dtype)


def _affine_forward(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, axes: Axes
) -> tuple[jax.Array, Any]:
    # barrier: what produces x would be fused into the product and computed once per output tile
    x = lax.optimization_barrier(x)
    return _affine(x, kernel, bias, axes), (x, kernel)


def _affine_backward(axes: Axes, residuals: Any, dy: jax.Array) -> tuple[jax.Array, ...]:
    x, kernel = residuals
    dy = lax.optimization_barrier(dy)
    return dy @ kernel.T, *_parameter_gradients(x, dy, jnp.ones_like(x[..., :1]), axes)


_affine.defvjp(_affine_forward, _affine_backward)


# --- a dense layer that has absorbed a norm, and its gradient -------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normed_affine(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, sums: jax.Array, name: str
) -> jax.Array:
    """Standardised x times kernel, plus bias; all but x and kernel float32.

    (x - mean) scale kernel = scale (x kernel - mean sums): the product reads x as it is, and its
    output is standardised.
    """
    return _standardised_product(x, kernel, bias, sums, *mean_and_scale(x))


def _standardised_product(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, sums: jax.Array,
    mean: jax.Array, scale: jax.Array,
) -> jax.Array:  # fmt: skip
    product = jnp.matmul(x, kernel, preferred_element_type=jnp.float32)
    return (scale * (product - mean * sums) + bias).astype(x.dtype)


def _row_major(x: jax.Array) -> jax.Array:
    """x in row-major layout on TPUs, where XLA would put tokens in the lanes.

    On CPU and GPU it already is row-major, and the constraint would trigger an all-gather.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None or device.platform != "tpu":
        return x
    constrained: jax.Array = with_layout_constraint(x, Layout(tuple(range(x.ndim))))
    return constrained


def _normed_affine_forward(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, sums: jax.Array, name: str
) -> tuple[jax.Array, Any]:
    of_x = checkpoint_name(mean_and_scale(x), NORM)
    z = _standardised_product(lax.optimization_barrier(x), kernel, bias, sums, *of_x)
    z = checkpoint_name(z, name)
    # attention reshapes queries, keys and values into rows of tokens
    return _row_major(z) if name == QKV else z, (x, of_x, kernel, bias, sums, z)


def _normed_affine_backward(name: str, residuals: Any, dz: jax.Array) -> tuple[jax.Array, ...]:
    """dx = scale (dy - mean(dy) - y mean(dy y)), of a standardised y and dy = dz kernel^T.

    Both means are computed before dy, which saves a pass over dy: sum(dy) = sum(dz sums), and
    sum(dy y) = sum(dz (z - bias)), for z - bias = y kernel.
    """
    x, (mean, scale), kernel, bias, sums, z = residuals
    dz = _row_major(dz) if name == QKV else dz
    d, width = scale * dz.astype(jnp.float32), x.shape[-1]
    mean_dy = jnp.sum(d * sums, -1, keepdims=True) / width
    mean_dy_y = jnp.sum(d * (z.astype(jnp.float32) - bias), -1, keepdims=True) / width
    dz, mean_dy, slope = lax.optimization_barrier((d.astype(dz.dtype), mean_dy, scale * mean_dy_y))
    # barrier: a separate pass is cheaper than a fused matmul epilogue
    dx = lax.optimization_barrier(dz @ kernel.T).astype(jnp.float32)
    dx = (dx - mean_dy - (x.astype(jnp.float32) - mean) * slope).astype(x.dtype)
    rows = jnp.concatenate([1 / scale, mean], -1)
    return dx, *_parameter_gradients(x, dz, rows, WIDE), jnp.zeros_like(sums)


_normed_affine.defvjp(_normed_affine_forward, _normed_affine_backward)


# --- gradients of kernels and biases, on all devices ----------------------------------------------


def _over_tokens(x: jax.Array, y: jax.Array) -> jax.Array:
    """Sum over all but the last axis of the outer products of x (..., n) and y (..., m): (n, m)."""
    over = tuple(range(x.ndim - 1))  # not flattened, which for a batch of 2 is a copy on TPUs
    return lax.dot_general(x, y, ((over, over), ((), ())), preferred_element_type=jnp.float32)


def _parameter_gradients(
    x: jax.Array, dy: jax.Array, rows: jax.Array, axes: Axes
) -> tuple[jax.Array, jax.Array]:
    """Gradients of a kernel with logical `axes` and of its bias, over all tokens and devices.

    Args:
      x: (..., n_in).
      dy: (..., n_out).
      rows: (..., 1): the weight of dy in the bias's gradient; or (..., 2): that, and the mean to
        subtract from x in the kernel's gradient.

    Returns:
      (n_in, n_out) in x's dtype, sharded as the kernel is stored, and (n_out,) float32.
    """
    at, n = axes.index("embed"), ways()
    tensor = jax.sharding.get_abstract_mesh().shape.get("tensor", 1)
    sizes = (x.shape[-1], dy.shape[-1])
    centred = rows.shape[-1] > 1
    rows = jnp.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, ROWS - rows.shape[-1])])

    def local(x: jax.Array, dy: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        # a sum over tokens crosses lanes: slow in vector units, a matrix unit does it at once
        sums = _over_tokens(rows.astype(dy.dtype), dy)
        kernel = _over_tokens(x, dy)
        return (kernel - sums[1] if centred else kernel).astype(x.dtype), sums[0]

    if n == 1 or sizes[at] % n or sizes[1 - at] % tensor:
        return local(x, dy, rows)

    def scattered(x: jax.Array, dy: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        # explicit reduce-scatter: XLA sometimes all-reduces the whole gradient instead
        kernel, bias = local(x, dy, rows)
        kernel = jnp.moveaxis(kernel, at, 0)
        kernel = lax.psum_scatter(kernel.reshape(n, sizes[at] // n, -1), "fsdp")
        return jnp.moveaxis(lax.psum(kernel, "data"), 0, at), lax.psum(bias, ("data", "fsdp"))

    def spec(*axes: str | None) -> Any:
        return nn.logical_to_mesh_axes(axes)

    between = (None,) * (x.ndim - 2)
    specs = tuple(spec("batch", *between, axis) for axis in (*axes, None))
    stored = spec(*("stored" if axis == "embed" else axis for axis in axes))
    gradients: tuple[jax.Array, jax.Array] = jax.shard_map(
        scattered, in_specs=specs, out_specs=(stored, spec(axes[1]))
    )(x, dy, rows)
    return gradients
