"""Short-time spectra for losses and measures. B batch, S samples, F frames, N bins."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jukejax.parallel.gathering import by_device

# (n_fft, hop, window) of the multi-resolution loss and of the plain one (paper section 3.3)
RESOLUTIONS = ((2048, 240, 1200), (1024, 120, 600), (512, 50, 240))
PLAIN = (2048, 256, 1536)
# (window, hop, bands) of the log-mel loss
MEL_RESOLUTIONS = ((2048, 512, 160), (1024, 256, 80), (512, 128, 40))


# --- mel ------------------------------------------------------------------------------------------


def _mel(hertz: Any) -> Any:
    """Slaney's mel scale: linear up to 1 kHz, logarithmic above (Auditory Toolbox 1998)."""
    hertz = np.asarray(hertz, np.float64)
    above = 15.0 + np.log(np.maximum(hertz, 1000.0) / 1000.0) * 27.0 / np.log(6.4)
    return np.where(hertz < 1000.0, hertz * 3.0 / 200.0, above)


def _hertz(mel: Any) -> Any:
    above = 1000.0 * np.exp((np.maximum(mel, 15.0) - 15.0) * np.log(6.4) / 27.0)
    return np.where(mel < 15.0, mel * 200.0 / 3.0, above)


@functools.lru_cache(maxsize=16)
def mel_filters(
    rate: int, fft: int, bands: int, low: float = 0.0, high: float | None = None
) -> NDArray[np.float64]:
    """Triangular filters (bands, fft // 2 + 1) of equal area, edges `low` .. `high` Hz."""
    edges = _hertz(np.linspace(_mel(low), _mel(high or rate / 2), bands + 2))
    hertz = np.arange(fft // 2 + 1) * (rate / fft)
    rise = (hertz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - hertz) / np.diff(edges)[1:, None]
    height = 2.0 / (edges[2:] - edges[:-2])
    return np.maximum(np.minimum(rise, fall), 0.0) * height[:, None]


# --- spectra --------------------------------------------------------------------------------------


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
    return _magnitude(_transformed(x[:, (n_fft - window) // 2 :], frames, n_fft, hop, window))


def _transformed(x: jax.Array, frames: int, n_fft: int, hop: int, window: int) -> jax.Array:
    """DFT of windows of x (B, S) that start at multiples of the hop: (B, F, n_fft/2 + 1)."""
    parts = -(-window // hop)  # hops that a window spans
    x = x[:, : (frames + parts - 1) * hop]
    x = jnp.pad(x, ((0, 0), (0, (frames + parts - 1) * hop - x.shape[1])))
    x = x.reshape(x.shape[0], frames + parts - 1, hop)
    x = jnp.concatenate([x[:, i : i + frames] for i in range(parts)], -1)[..., :window]
    return by_device(lambda x: jnp.fft.rfft(x, n_fft), x * _hann(window))


def _magnitude(z: jax.Array) -> jax.Array:
    return safe_sqrt(z.real**2 + z.imag**2)


def stft(audio: jax.Array, window: int, hop: int) -> jax.Array:
    """Short-time Fourier transform of audio (B, S): complex (B, S // hop, window/2 + 1).

    A frame for every complete hop, centred on it; outside the audio is silence. Periodic Hann
    window, unnormalised.
    """
    border = (window - hop) // 2
    x = jnp.pad(audio, ((0, 0), (border, border)))
    return _transformed(x, audio.shape[1] // hop, window, hop, window)


def _hann(window: int) -> NDArray[np.float32]:
    """Periodic Hann window."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    return hann.astype(np.float32)


def log_mel(audio: jax.Array, rate: int, window: int, hop: int, bands: int) -> jax.Array:
    """Log-mel spectrum of audio (B, S), a frame for every complete hop: (B, S // hop, bands).

    (ln(m + 1e-4) + 4) / 2 of magnitudes m through `mel_filters`, which has about zero mean and unit
    variance for music. Frames are those of `stft`.
    """
    spectrum = _magnitude(stft(audio, window, hop))
    filters = mel_filters(rate, window, bands).T.astype(np.float32)
    return (jnp.log(spectrum @ filters + 1e-4) + 4.0) / 2.0


def inverse(z: jax.Array, hop: int) -> jax.Array:
    """Inverse short-time Fourier transform of z (B, F, n/2 + 1): sound (B, F * hop).

    Frames of n samples, a multiple of 2 `hop`, are centred on their hops, windowed and added. The
    periodic Hann window is scaled so that overlapping windows add up to 1; samples before the first
    hop and after the last are cut.
    """
    frames, n = z.shape[1], 2 * (z.shape[2] - 1)
    parts = n // hop
    x = by_device(lambda z: jnp.fft.irfft(z, n), z) * (_hann(n) * (2.0 / parts))
    x = x.reshape(*x.shape[:2], parts, hop)
    shifted = (jnp.pad(x[:, :, i], ((0, 0), (i, parts - 1 - i), (0, 0))) for i in range(parts))
    y = sum(shifted, jnp.zeros(())).reshape(z.shape[0], -1)
    border = (n - hop) // 2
    return y[:, border : border + frames * hop]


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
