"""The VQ-VAE's losses (paper section 3). B batch, S samples, T codes, E code width."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jukejax.config import VQVAEConfig
from jukejax.models import spectral
from jukejax.models.bottleneck import Codebook, nearest
from jukejax.models.vqvae import from_vectors, to_vectors


class Bandwidth(NamedTuple):
    """What the losses are measured in: the loudness of the training set."""

    l1: jax.Array  # mean |x|
    l2: jax.Array  # variance
    spectrum: jax.Array  # mean norm of a chunk's spectrum


def bandwidth(audio: jax.Array) -> Bandwidth:
    """The bandwidth of chunks (B, S, 1) of the length that is trained on.

    Silence is given a small width, so that nothing is divided by zero.
    """
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
    return losses


class Chosen(NamedTuple):
    """What one level's bottleneck saw, for the update of its codebook."""

    vectors: jax.Array  # (B*T, E)
    codes: jax.Array  # (B*T,)
    distance: jax.Array  # (B*T,) squared


def vqvae_loss(
    config: VQVAEConfig,
    params: Any,
    books: tuple[Codebook, ...],
    width: Bandwidth,
    audio: jax.Array,
) -> tuple[jax.Array, tuple[dict[str, jax.Array], tuple[Chosen, ...]]]:
    """Sum over levels of the weighted losses of audio (B, S, 1); metrics; what each level chose."""
    weights = config.loss
    total: jax.Array = jnp.zeros(())
    metrics: dict[str, jax.Array] = {}
    chosen = []
    for level in range(config.levels):
        x = to_vectors(config, params, audio, level)
        index, distance = nearest(books[level].codes, lax.stop_gradient(x))
        codes = books[level].codes[index]
        commit = jnp.mean((codes - x) ** 2)
        straight = x + lax.stop_gradient(codes - x)  # gradient of the decoder's input goes to x
        y = from_vectors(config, params, straight, level)
        losses = {**reconstruction(config, audio, y, width), "commit": commit}
        total = total + sum(getattr(weights, name) * loss for name, loss in losses.items())
        convergence = spectral.spectral_convergence(audio[..., 0], lax.stop_gradient(y)[..., 0])
        losses["spectral_convergence"] = convergence.mean()
        metrics |= {f"level_{level}/{name}": loss for name, loss in losses.items()}
        flat = lax.stop_gradient(x).reshape(-1, x.shape[-1])
        chosen.append(Chosen(flat, index.reshape(-1), distance.reshape(-1)))
    return total, ({"loss": total, **metrics}, tuple(chosen))
