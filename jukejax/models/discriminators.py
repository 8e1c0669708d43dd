"""Discriminators of short-time spectra, a renderer's adversaries in training.

One per window length, each with the layers of EnCodec's (arXiv 2210.13438, section 3.4): 2-D
convolutions over time and frequency of the real and imaginary parts, with weight normalisation.

B batch, S samples, F frames, N frequencies, C channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jukejax.config import RendererConfig
from jukejax.models import spectral

DILATIONS = (1, 2, 4)  # in time, of the layers that halve the frequencies
# (frames, frequencies) of the kernels: the first layer's, those that halve, and the last two
FIRST, HALVING, LAST = (3, 9), (3, 5), (3, 3)


class Judged(NamedTuple):
    """What a discriminator makes of sounds."""

    logits: jax.Array  # (B, F, N) float32: above 0 for real, below for rendered
    features: tuple[jax.Array, ...]  # (B, F, N, C) of its layers


class Discriminator(nn.Module):
    """Sound (B, S) -> `Judged`, by spectra of `window` samples."""

    window: int
    channels: int
    dtype: str

    @nn.compact
    def __call__(self, audio: jax.Array) -> Judged:
        z = spectral.stft(audio, self.window, self.window // 4)
        z = z[..., :-1] / np.sqrt(3 / 8 * self.window)  # the norm of a Hann window; no Nyquist
        x = jnp.stack([z.real, z.imag], -1).astype(self.dtype)  # (B, F, N, 2)
        x = nn.leaky_relu(self.convolved("in", x, FIRST, self.channels), 0.2)
        features = [x]
        for i, dilation in enumerate(DILATIONS):
            # Stacked pairs in place of a stride: XLA differentiates plain convolutions faster
            x = x.reshape(*x.shape[:2], -1, 2 * self.channels)  # (B, F, N / 2, 2C)
            x = self.convolved(f"halve_{i}", x, HALVING, self.channels, dilation)
            features.append(x := nn.leaky_relu(x, 0.2))
        features.append(x := nn.leaky_relu(self.convolved("mix", x, LAST, self.channels), 0.2))
        logits = self.convolved("out", x, LAST, 1)[..., 0].astype(jnp.float32)
        return Judged(logits, tuple(features))

    def convolved(
        self, name: str, x: jax.Array, size: tuple[int, int], out: int, dilation: int = 1
    ) -> jax.Array:
        """A convolution with weight normalisation (Salimans and Kingma 2016), padded with zeros.

        (B, F, N, C) -> (B, F, N, out); `dilation` is in time.
        """
        shape = (*size, x.shape[-1], out)
        kernel = self.param(f"{name}_kernel", nn.initializers.normal(1.0), shape)
        gain = self.param(f"{name}_gain", nn.initializers.ones, (out,))
        bias = self.param(f"{name}_bias", nn.initializers.zeros, (out,))
        norm = jnp.sqrt(jnp.sum(kernel * kernel, (0, 1, 2)) + 1e-12)
        reach = dilation * (size[0] // 2)
        y = lax.conv_general_dilated(
            x,
            (kernel * (gain / norm)).astype(x.dtype),
            window_strides=(1, 1),
            padding=((reach, reach), (size[1] // 2, size[1] // 2)),
            rhs_dilation=(dilation, 1),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + bias.astype(x.dtype)


def _discriminators(config: RendererConfig) -> dict[str, Discriminator]:
    return {
        f"window_{window}": Discriminator(window, config.channels, config.dtype)
        for window in config.discriminators
    }


def init_params(config: RendererConfig, key: jax.Array) -> Any:
    """Parameters of all discriminators, by window."""
    sound = jnp.zeros((1, max(config.discriminators)))
    return {
        name: d.init(jax.random.fold_in(key, i), sound)["params"]
        for i, (name, d) in enumerate(_discriminators(config).items())
    }


def judge(config: RendererConfig, params: Any, audio: jax.Array) -> list[Judged]:
    """What every discriminator makes of sounds (B, S)."""
    judged: Any = [
        d.apply({"params": params[name]}, audio) for name, d in _discriminators(config).items()
    ]
    return judged
