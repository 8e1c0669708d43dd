"""A renderer: the codes of one level to sound in one parallel pass.

It is trained on a frozen encoder and codebook, so it fits the codes of every prior of that level
and takes the place of all upsamplers. Its head is that of VQ-VAEs with frames (`vqvae.sound`).

B batch, S samples, T codes, of `groups` per encoder output, H samples per code, E code width,
F frames, K codes of the codebook.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jukejax.config import RendererConfig
from jukejax.models import vqvae
from jukejax.models.bottleneck import Codebook, assign, look_up
from jukejax.models.layers import Resnet1D, conv, conv_params, conv_up, spread


class Frozen(NamedTuple):
    """What makes the codes that a renderer reads; training leaves it as it is."""

    encoder: Any  # parameters of the level's encoder, in the VQ-VAE's tree
    codes: jax.Array  # (G K, E)


def freeze(config: RendererConfig, params: Any, books: Sequence[Codebook]) -> Frozen:
    """The encoder and the codes of the renderer's level, of a VQ-VAE's parameters and codebooks."""
    name = f"encoders_{config.level}"
    return Frozen({name: params[name]}, books[config.level].codes)


class Renderer(nn.Module):
    """Sums of code vectors (B, T, E) -> sound (B, T * H, 1) float32."""

    config: RendererConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        x = x.astype(c.dtype)
        x = conv(self.param("in", conv_params(3, x.shape[-1], c.width)), x, pad=1)
        for stage in range(c.stages + 1):
            if stage:
                p = self.param(f"up_{stage}", conv_params(4, c.width, c.width))
                x = conv_up(p, nn.relu(x))  # (B, 2F, W)
            x = Resnet1D(
                c.width, c.depth, c.dilation_growth, c.dilation_cycle, scale_residual=True,
                name=f"resnet_{stage}",
            )(x)  # fmt: skip
        out = self.param("out", conv_params(3, c.width, c.synthesis + 2))
        return vqvae.sound(c.hop, conv(out, nn.relu(x), pad=1).astype(jnp.float32))


def init_params(config: RendererConfig, key: jax.Array) -> Any:
    """Parameters in Linen boxes, initialised as a VQ-VAE's."""
    vectors = jnp.zeros((1, 1, config.vqvae.emb_width))
    return spread(key, Renderer(config).init(key, vectors)["params"])


def to_vectors(config: RendererConfig, frozen: Frozen, audio: jax.Array) -> jax.Array:
    """Audio (B, S, 1) -> the sums of the vectors of its codes (B, S / H, E).

    In full float32 on every device, so that the codes are those that songs are encoded to.
    """
    with jax.default_matmul_precision("float32"):
        x = vqvae.to_vectors(config.vqvae, frozen.encoder, audio, config.level)
        codes = assign(frozen.codes, x, config.vqvae.groups).codes.reshape(x.shape[0], -1)
        return look_up(frozen.codes, codes, config.vqvae.groups)


def apply(config: RendererConfig, params: Any, vectors: jax.Array) -> jax.Array:
    """Code vectors (B, T, E) -> sound (B, T * H, 1) float32, not clipped."""
    out: Any = Renderer(config).apply({"params": params}, vectors)
    sound: jax.Array = out
    return sound


def render(config: RendererConfig, params: Any, book: jax.Array, codes: jax.Array) -> jax.Array:
    """Codes (B, T G) of a codebook (G K, E) -> sound (B, T * H, 1) float32, not clipped."""
    return apply(config, params, look_up(book, codes, config.vqvae.groups))
