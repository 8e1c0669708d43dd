"""The VQ-VAE's losses (paper section 3). B batch, S samples, T codes, E code width."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jukejax.config import VQVAEConfig
from jukejax.models import spectral
from jukejax.models.bottleneck import Assigned, Codebook, quantize
from jukejax.models.vqvae import log_mel, reconstruct, to_vectors


class Bandwidth(NamedTuple):
    """Units of the losses: loudness of the training set (the published code's bandwidth)."""

    l1: jax.Array  # mean |x|
    l2: jax.Array  # variance
    spectrum: jax.Array  # mean norm of a chunk's spectrum


def bandwidth(audio: jax.Array) -> Bandwidth:
    """The bandwidth of training chunks (B, S, 1); of silence a small positive one."""
    x = audio[..., 0]
    norms = spectral.frobenius(spectral.magnitudes(x, *spectral.PLAIN))
    floor = 1e-6
    return Bandwidth(
        jnp.maximum(jnp.mean(jnp.abs(x)), floor),
        jnp.maximum(jnp.var(x), floor),
        jnp.maximum(norms.mean(), floor),
    )


def multispectral(x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean over three resolutions of the norm of the spectra's difference: (B, S) x2 -> (B,)."""
    errors = [
        spectral.frobenius(spectral.magnitudes(x, *r) - spectral.magnitudes(y, *r))
        for r in spectral.RESOLUTIONS
    ]
    return sum(errors[1:], errors[0]) / len(errors)


def mel_difference(x: jax.Array, y: jax.Array, rate: int) -> jax.Array:
    """Mean |difference| of log-mel spectra, and over three resolutions: (B, S) x2 -> ()."""
    errors = [
        jnp.mean(jnp.abs(spectral.log_mel(x, rate, *r) - spectral.log_mel(y, rate, *r)))
        for r in spectral.MEL_RESOLUTIONS
    ]
    return sum(errors[1:], errors[0]) / len(errors)


def reconstruction(
    config: VQVAEConfig, x: jax.Array, y: jax.Array, width: Bandwidth
) -> dict[str, jax.Array]:
    """Each loss of a reconstruction y of x, both (B, S, 1), before weighting."""
    weights = config.loss
    error = y - x
    squares = (error * error).reshape(x.shape[0], -1)
    k = min(weights.linf_k, squares.shape[1])
    x, y = x[..., 0], y[..., 0]
    losses = {
        "l1": jnp.mean(jnp.abs(error)) / width.l1,
        "l2": jnp.mean(squares) / width.l2,
        "linf": jnp.mean(lax.top_k(squares, k)[0]) / width.l2,
    }
    if weights.spectral:
        spectra = (spectral.magnitudes(a, *spectral.PLAIN) for a in (x, y))
        gap = next(spectra) - next(spectra)
        losses["spectral"] = jnp.mean(spectral.frobenius(gap)) / width.spectrum
    if weights.multispectral:
        losses["multispectral"] = jnp.mean(multispectral(x, y)) / width.spectrum
    if weights.mel:
        losses["mel"] = mel_difference(x, y, config.sample_rate)
    return losses


def vqvae_loss(
    config: VQVAEConfig,
    params: Any,
    books: tuple[Codebook, ...],
    width: Bandwidth,
    audio: jax.Array,
) -> tuple[jax.Array, tuple[dict[str, jax.Array], tuple[Assigned, ...]]]:
    """Sum over levels of the weighted losses of audio (B, S, 1); metrics; each level's codes."""
    weights = config.loss
    total: jax.Array = jnp.zeros(())
    metrics: dict[str, jax.Array] = {}
    assigned = []
    for level in range(config.levels):
        x = to_vectors(config, params, audio, level)
        quantized = quantize(books[level], x, config.groups)
        vectors = quantized.vectors
        if config.unquantized:
            coded = jnp.arange(len(x)) >= round(config.unquantized * len(x))
            vectors = jnp.where(coded[:, None, None], vectors, x)
        y, mel = reconstruct(config, params, vectors, level)
        losses = {**reconstruction(config, audio, y, width), "commit": quantized.commitment}
        if config.frames and weights.frames:
            target = log_mel(config.frames, config.sample_rate, audio)
            losses["frames"] = jnp.mean(jnp.abs(mel - target))
        total = total + sum(getattr(weights, name) * loss for name, loss in losses.items())
        convergence = spectral.spectral_convergence(audio[..., 0], lax.stop_gradient(y)[..., 0])
        losses["spectral_convergence"] = convergence.mean()
        metrics |= {f"level_{level}/{name}": loss for name, loss in losses.items()}
        assigned.append(quantized.assigned)
    return total, ({"loss": total, **metrics}, tuple(assigned))
