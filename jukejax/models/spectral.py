"""Short-time spectra for losses and measures. B batch, S samples, F frames, N bins."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jukejax.parallel.gathering import by_device

# (n_fft, hop, window) of the multi-resolution loss and of the plain one (paper section 3.3)
RESOLUTIONS = ((2048, 240, 1200), (1024, 120, 600), (512, 50, 240))
PLAIN = (2048, 256, 1536)


def safe_sqrt(x: jax.Array) -> jax.Array:
    """sqrt whose gradient at 0 is 0, not infinite."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def magnitudes(audio: jax.Array, n_fft: int, hop: int, window: int) -> jax.Array:
    """|STFT| of audio (B, S), S > n_fft/2, as (B, F, n_fft/2 + 1), F = 1 + S // hop.

    Periodic Hann window centred in the frame, reflected borders, unnormalised, equal to
    `torch.stft(center=True)` and `librosa.stft(pad_mode="reflect")`. Zeros around the window shift
    only the phase, so only the window's own samples are cut out; by slices, not by a gather, whose
    gradient is a slow scatter.
    """
    frames = 1 + audio.shape[1] // hop
    x = jnp.pad(audio, ((0, 0), (n_fft // 2, n_fft // 2)), mode="reflect")
    x = x[:, (n_fft - window) // 2 :]
    parts = -(-window // hop)  # hops that a window spans
    x = x[:, : (frames + parts - 1) * hop]
    x = jnp.pad(x, ((0, 0), (0, (frames + parts - 1) * hop - x.shape[1])))
    x = x.reshape(x.shape[0], frames + parts - 1, hop)
    x = jnp.concatenate([x[:, i : i + frames] for i in range(parts)], -1)[..., :window]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    z = by_device(lambda x: jnp.fft.rfft(x, n_fft), x * hann.astype(np.float32))
    return safe_sqrt(z.real**2 + z.imag**2)


def frobenius(x: jax.Array) -> jax.Array:
    """Norm over all but the first axis: (B, ...) -> (B,)."""
    return safe_sqrt(jnp.sum(x * x, axis=tuple(range(1, x.ndim))))


def spectral_convergence(audio: jax.Array, reconstruction: jax.Array) -> jax.Array:
    """||S| - |S'|| / ||S|| per example, both (B, S) -> (B,); 0 where the target is silent.

    Paper section 3.3 reports 20 log10 of it, in dB.
    """
    target = magnitudes(audio, *PLAIN)
    error = frobenius(target - magnitudes(reconstruction, *PLAIN))
    norm, floor = frobenius(target), 2e-3
    return jnp.where(norm > floor, error / jnp.maximum(norm, floor), 0.0)
