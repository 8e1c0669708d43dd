"""The VQ-VAE (paper section 3): three separate autoencoders, one a level.

B batch, S samples, T codes, E code width. Audio is (B, S, 1) float32 in [-1, 1], mono, with S a
multiple of the top hop; nothing is normalised. Codebooks are state, not parameters: an argument.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jukejax.config import VQVAEConfig
from jukejax.models.bottleneck import Codebook, nearest
from jukejax.models.layers import DownBlock, UpBlock, conv, conv_params, spread


class Encoder(nn.Module):
    """Audio (B, S, 1) -> (B, S/hop, E) of one level.

    `inside` (B, S, 1) is true for samples of the song, which begins and ends at multiples of the
    top hop; None: all samples are inside.
    """

    config: VQVAEConfig
    level: int

    @nn.compact
    def __call__(self, x: jax.Array, inside: jax.Array | None = None) -> jax.Array:
        c = self.config
        m = c.multipliers[self.level]
        for i, stages in enumerate(c.downs[: self.level + 1]):
            before = inside if i == 0 or inside is None else inside[:, :: c.hops[i - 1]]
            x = DownBlock(
                stages, c.width * m, c.depth * m, c.dilation_growth, c.emb_width, name=f"block_{i}"
            )(x, before)
        return x


class Decoder(nn.Module):
    """(B, T, E) of one level -> audio (B, T*hop, 1)."""

    config: VQVAEConfig
    level: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        m = c.multipliers[self.level]
        for i in reversed(range(self.level + 1)):
            x = UpBlock(
                c.downs[i], c.width * m, c.depth * m, c.dilation_growth, c.emb_width,
                reverse=True, name=f"block_{i}",
            )(x)  # fmt: skip
        return conv(self.param("out", conv_params(3, c.emb_width, 1)), x, pad=1)


class VQVAE(nn.Module):
    """All levels; `encode` and `decode` take one level each."""

    config: VQVAEConfig

    def setup(self) -> None:
        levels = range(self.config.levels)
        self.encoders = [Encoder(self.config, level) for level in levels]
        self.decoders = [Decoder(self.config, level) for level in levels]

    def encode(self, audio: jax.Array, level: int, inside: jax.Array | None = None) -> jax.Array:
        """Audio (B, S, 1) -> float32 vectors (B, S/hop, E) before quantising; see `Encoder`."""
        return self.encoders[level](audio.astype(self.config.dtype), inside).astype(jnp.float32)

    def decode(self, vectors: jax.Array, level: int) -> jax.Array:
        """Code vectors (B, T, E) -> float32 audio (B, T*hop, 1)."""
        return self.decoders[level](vectors.astype(self.config.dtype)).astype(jnp.float32)

    def __call__(self, audio: jax.Array) -> list[jax.Array]:
        """Every level through its autoencoder without quantising, to initialise all parameters."""
        return [self.decode(self.encode(audio, i), i) for i in range(self.config.levels)]


def init_params(config: VQVAEConfig, key: jax.Array) -> Any:
    """Parameters in Linen boxes, with PyTorch's default initialisation, as published."""
    audio = jnp.zeros((1, config.hops[-1], 1))
    return spread(key, VQVAE(config).init(key, audio)["params"])


def to_vectors(
    config: VQVAEConfig, params: Any, audio: jax.Array, level: int, inside: jax.Array | None = None
) -> jax.Array:
    """Audio (B, S, 1) -> encoder outputs (B, S/hop, E) before quantising; see `Encoder`."""
    out: Any = VQVAE(config).apply({"params": params}, audio, level, inside, method="encode")
    return out


def from_vectors(config: VQVAEConfig, params: Any, vectors: jax.Array, level: int) -> jax.Array:
    """Code vectors (B, T, E) -> audio (B, T*hop, 1)."""
    out: Any = VQVAE(config).apply({"params": params}, vectors, level, method="decode")
    return out


def encode(
    config: VQVAEConfig, params: Any, books: tuple[Codebook, ...], audio: jax.Array, level: int
) -> jax.Array:
    """Audio (B, S, 1) -> codes (B, S/hop) int32 of one level."""
    return nearest(books[level].codes, to_vectors(config, params, audio, level))[0]


def decode(
    config: VQVAEConfig, params: Any, books: tuple[Codebook, ...], codes: jax.Array, level: int
) -> jax.Array:
    """Codes (B, T) of one level -> audio (B, T*hop, 1) float32, not clipped."""
    return from_vectors(config, params, books[level].codes[codes], level)
