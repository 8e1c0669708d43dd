"""The VQ-VAE (paper section 3): three separate autoencoders, one a level.

B batch, S samples, T encoder outputs of H samples, E their width, G the codes of each. Audio is
(B, S, 1) float32 in [-1, 1], mono, with S a multiple of `config.block`; nothing is normalised.
Codebooks are state, not parameters: an argument. With `VQVAEConfig.frames` encoders read log-mel
frames and decoders emit spectra: F frames, M bands.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jukejax.config import FramesConfig, VQVAEConfig
from jukejax.models import spectral
from jukejax.models.bottleneck import Codebook, assign, look_up
from jukejax.models.layers import DownBlock, UpBlock, conv, conv_params, silenced, spread


class Encoder(nn.Module):
    """Audio (B, S, 1) -> (B, S / H, E) of one level.

    `inside` (B, S, 1) is true for samples of the song, which begins and ends at multiples of
    `config.block`; None: all samples are inside.
    """

    config: VQVAEConfig
    level: int

    @nn.compact
    def __call__(self, x: jax.Array, inside: jax.Array | None = None) -> jax.Array:
        c = self.config
        m = c.multipliers[self.level]
        first = c.frames.hop if c.frames else 1  # samples per step of the first layer's input
        if c.frames:
            inside = None if inside is None else inside[:, ::first]
            x = silenced(log_mel(c.frames, c.sample_rate, x), inside)
        x = x.astype(c.dtype)
        for i, stages in enumerate(c.downs[: self.level + 1]):
            step = c.hops[i - 1] * c.groups // first if i else 1
            before = None if inside is None else inside[:, ::step]
            x = DownBlock(
                stages, c.width * m, c.depth * m, c.dilation_growth, c.emb_width,
                name=f"block_{i}",
            )(x, before)  # fmt: skip
        return x


class Decoder(nn.Module):
    """(B, T, E) of one level -> audio (B, T * H, 1); with frames what `sound` and the loss read.

    Those are, for each frame, log-magnitudes and phases (synthesis / 2 + 1 each), then M log-mel
    values: (B, F, synthesis + 2 + M).
    """

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
        out = c.frames.synthesis + 2 + c.frames.bands if c.frames else 1
        return conv(self.param("out", conv_params(3, c.emb_width, out)), x, pad=1)


class VQVAE(nn.Module):
    """All levels; `encode` and `decode` take one level each."""

    config: VQVAEConfig

    def setup(self) -> None:
        levels = range(self.config.levels)
        self.encoders = [Encoder(self.config, level) for level in levels]
        self.decoders = [Decoder(self.config, level) for level in levels]

    def encode(self, audio: jax.Array, level: int, inside: jax.Array | None = None) -> jax.Array:
        """Audio (B, S, 1) -> float32 vectors (B, S / H, E) before quantising; see `Encoder`."""
        return self.encoders[level](audio, inside).astype(jnp.float32)

    def decode(self, vectors: jax.Array, level: int) -> jax.Array:
        """Sums of code vectors (B, T, E) -> float32 audio (B, T * H, 1)."""
        return self.reconstruct(vectors, level)[0]

    def reconstruct(self, vectors: jax.Array, level: int) -> tuple[jax.Array, jax.Array]:
        """Sums of code vectors -> float32 audio, and the log-mel frames (B, F, M) beside it.

        M is 0 without frames.
        """
        x = self.decoders[level](vectors.astype(self.config.dtype)).astype(jnp.float32)
        frames = self.config.frames
        n = frames.synthesis + 2 if frames else 1
        return sound(frames.hop, x[..., :n]) if frames else x, x[..., n:]

    def __call__(self, audio: jax.Array) -> list[jax.Array]:
        """Every level through its autoencoder without quantising, to initialise all parameters."""
        return [self.decode(self.encode(audio, i), i) for i in range(self.config.levels)]


def log_mel(frames: FramesConfig, rate: int, audio: jax.Array) -> jax.Array:
    """What encoders with frames read of audio (B, S, 1): `spectral.log_mel` (B, F, M)."""
    return spectral.log_mel(audio[..., 0], rate, frames.window, frames.hop, frames.bands)


def sound(hop: int, x: jax.Array) -> jax.Array:
    """Log-magnitudes, then phases (B, F, synthesis + 2) -> audio (B, F * hop, 1).

    The head of Vocos (Siuzdak 2023, section 3): phases are free numbers, of which only cosine and
    sine are used; magnitudes are clipped.
    """
    log_magnitudes, phases = jnp.split(x, 2, -1)
    magnitudes = jnp.exp(jnp.minimum(log_magnitudes, 5.0))
    z = jax.lax.complex(magnitudes * jnp.cos(phases), magnitudes * jnp.sin(phases))
    return spectral.inverse(z, hop)[..., None]


def init_params(config: VQVAEConfig, key: jax.Array) -> Any:
    """Parameters in Linen boxes, with PyTorch's default initialisation, as published."""
    audio = jnp.zeros((1, config.block, 1))
    return spread(key, VQVAE(config).init(key, audio)["params"])


def to_vectors(
    config: VQVAEConfig, params: Any, audio: jax.Array, level: int, inside: jax.Array | None = None
) -> jax.Array:
    """Audio (B, S, 1) -> encoder outputs (B, S / H, E) before quantising; see `Encoder`."""
    out: Any = VQVAE(config).apply({"params": params}, audio, level, inside, method="encode")
    return out


def reconstruct(
    config: VQVAEConfig, params: Any, vectors: jax.Array, level: int
) -> tuple[jax.Array, jax.Array]:
    """Sums of code vectors (B, T, E) -> audio (B, T * H, 1), log-mel frames (B, F, M)."""
    out: Any = VQVAE(config).apply({"params": params}, vectors, level, method="reconstruct")
    return out


def encode(
    config: VQVAEConfig, params: Any, books: tuple[Codebook, ...], audio: jax.Array, level: int
) -> jax.Array:
    """Audio (B, S, 1) -> codes (B, T G) int32 of one level."""
    x = to_vectors(config, params, audio, level)
    return assign(books[level].codes, x, config.groups).codes


def decode(
    config: VQVAEConfig, params: Any, books: tuple[Codebook, ...], codes: jax.Array, level: int
) -> jax.Array:
    """Codes (B, T G) of one level -> audio (B, T * H, 1) float32, not clipped."""
    vectors = look_up(books[level].codes, codes, config.groups)
    return reconstruct(config, params, vectors, level)[0]
