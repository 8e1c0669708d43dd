"""Convolutions and small layers as pure functions of parameter trees, and their initialisers.

B batch, T time or tokens, W width. A Linen module makes a parameter tree with
`self.param(name, conv_params(...))` and passes it to the function.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Params = dict[str, Any]
Init = Callable[[jax.Array], Params]


def boxed(init: Callable, axes: tuple[str | None, ...]) -> Callable:
    return nn.with_logical_partitioning(init, axes)


def quick_gelu(x: jax.Array) -> jax.Array:
    """x sigmoid(1.702 x) (Hendrycks and Gimpel 2016, section 2)."""
    # sigmoid by tanh, which accelerators compute in hardware
    return x * (0.5 + 0.5 * jnp.tanh(0.851 * x))


def table(rows: int, width: int, std: float, row_axis: str = "vocabulary") -> Callable:
    """Initialiser of an embedding table (rows, width) ~ N(0, std^2)."""
    init = boxed(nn.initializers.normal(std), (row_axis, "embed"))
    return lambda key: init(key, (rows, width))


# --- 1-D convolutions: (B, T, channels), zero padding ---------------------------------------------


def linear_kernel(n_in: int, n_out: int, axes: tuple[str, str]) -> Callable:
    """Initialiser of a kernel (n_in, n_out) ~ U(+-1/sqrt(n_in)), PyTorch's default."""
    bound = 1.0 / math.sqrt(n_in)

    def uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    init = boxed(uniform, axes)
    return lambda key: init(key, (n_in, n_out))


def conv_params(size: int, n_in: int, n_out: int, fan_in: int | None = None) -> Init:
    """Kernel (size, n_in, n_out) and bias (n_out,), filled with 1/sqrt(fan_in): see `spread`."""
    bound = nn.initializers.constant(1.0 / math.sqrt(fan_in or size * n_in))

    def init(key: jax.Array) -> Params:
        return {
            "kernel": boxed(bound, (None, None, None))(key, (size, n_in, n_out)),
            "bias": boxed(bound, (None,))(key, (n_out,)),
        }

    return init


def spread(key: jax.Array, tree: Any) -> Any:
    """Convolutions initialised to their bounds b become U(-b, b), PyTorch's default.

    One random generator in one loop for the whole tree: XLA fuses a generator into each tensor that
    reads it, and takes minutes to compile the 669 of a VQ-VAE.
    """

    def draw(key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, (4096,), minval=-1.0, maxval=1.0)

    leaves, structure = jax.tree.flatten(tree)
    rows = -(-sum(x.size for x in leaves) // 4096)
    unit = lax.map(draw, jax.random.split(key, rows)).reshape(-1)
    cuts = list(itertools.accumulate(x.size for x in leaves))
    drawn = [x * u.reshape(x.shape) for x, u in zip(leaves, jnp.split(unit, cuts), strict=False)]
    return jax.tree.unflatten(structure, drawn)


def conv(p: Params, x: jax.Array, stride: int = 1, dilation: int = 1, pad: int = 0) -> jax.Array:
    """1-D convolution of x (B, T, n_in) with `pad` zeros on both sides."""
    y = lax.conv_general_dilated(
        x,
        p["kernel"].astype(x.dtype),
        window_strides=(stride,),
        padding=((pad, pad),),
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    return y + p["bias"].astype(x.dtype)


def conv_up(p: Params, x: jax.Array) -> jax.Array:
    """Transposed convolution, kernel (4, n_in, n_out), stride 2: (B, T, n_in) -> (B, 2T, n_out).

    y[2t] = x[t-1] w[0] + x[t] w[2] and y[2t+1] = x[t] w[1] + x[t+1] w[3]: one plain convolution
    makes both phases, because the gradient of `lax.conv_transpose` is 20 times slower on a CPU.
    """
    w = p["kernel"].astype(x.dtype)
    none = jnp.zeros_like(w[0])
    phases = jnp.stack([jnp.stack([w[0], w[2], none]), jnp.stack([none, w[1], w[3]])], axis=2)
    kernel = phases.reshape(3, x.shape[-1], -1)  # (3, n_in, 2 n_out)
    bias = jnp.tile(p["bias"], 2)
    y = conv({"kernel": kernel, "bias": bias}, x, pad=1)  # (B, T, 2 n_out)
    return y.reshape(x.shape[0], 2 * x.shape[1], -1)


def silenced(x: jax.Array, inside: jax.Array | None) -> jax.Array:
    """x (B, T, W) with zeros where `inside` (B, T, 1) is false, as zero padding would be there.

    So a window that begins before a song or ends after it has the results of the whole song.
    """
    return x if inside is None else jnp.where(inside, x, 0)


class Resnet1D(nn.Module):
    """Dilated residual blocks: x + s * conv1(relu(conv3_d(relu(x)))), d = growth^(i mod cycle).

    Called with x (B, T, W), and where it is inside a song (B, T, 1): see `silenced`.

    Attributes:
      reverse: largest dilation first (the VQ-VAE's decoders).
      scale_residual: s = 1/sqrt(depth) instead of 1.
    """

    width: int
    depth: int
    growth: int
    cycle: int | None = None
    reverse: bool = False
    scale_residual: bool = False

    def dilations(self) -> list[int]:
        powers = [i if self.cycle is None else i % self.cycle for i in range(self.depth)]
        dilations = [self.growth**p for p in powers]
        return dilations[::-1] if self.reverse else dilations

    @nn.compact
    def __call__(self, x: jax.Array, inside: jax.Array | None = None) -> jax.Array:
        scale = 1.0 / math.sqrt(self.depth) if self.scale_residual else 1.0
        for i, dilation in enumerate(self.dilations()):
            wide = self.param(f"block_{i}_conv3", conv_params(3, self.width, self.width))
            narrow = self.param(f"block_{i}_conv1", conv_params(1, self.width, self.width))
            h = conv(wide, nn.relu(x), dilation=dilation, pad=dilation)
            x = silenced(x + scale * conv(narrow, nn.relu(h)), inside)
        return x


class DownBlock(nn.Module):
    """`stages` of (stride-2 convolution, Resnet1D), then a projection: x 1/2^stages in time.

    Called with x (B, T, W), and where it is inside a song (B, T, 1): see `silenced`.
    """

    stages: int
    width: int
    depth: int
    growth: int
    out: int

    @nn.compact
    def __call__(self, x: jax.Array, inside: jax.Array | None = None) -> jax.Array:
        for i in range(self.stages):
            p = self.param(f"down_{i}", conv_params(4, x.shape[-1], self.width))
            inside = None if inside is None else inside[:, ::2]
            x = silenced(conv(p, x, stride=2, pad=1), inside)
            x = Resnet1D(self.width, self.depth, self.growth, name=f"resnet_{i}")(x, inside)
        p = self.param("out", conv_params(3, self.width, self.out))
        return silenced(conv(p, x, pad=1), inside)


class UpBlock(nn.Module):
    """A projection, then `stages` of (Resnet1D, stride-2 transposed convolution): x2^s in time."""

    stages: int
    width: int
    depth: int
    growth: int
    out: int
    cycle: int | None = None
    reverse: bool = False
    scale_residual: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = conv(self.param("in", conv_params(3, x.shape[-1], self.width)), x, pad=1)
        for i in range(self.stages):
            x = Resnet1D(
                self.width, self.depth, self.growth, self.cycle,
                self.reverse, self.scale_residual, name=f"resnet_{i}",
            )(x)  # fmt: skip
            out = self.out if i == self.stages - 1 else self.width
            # PyTorch computes a transposed convolution's fan-in from its output channels
            p = self.param(f"up_{i}", conv_params(4, self.width, out, fan_in=4 * out))
            x = conv_up(p, x)  # (B, 2T, out)
        return x
