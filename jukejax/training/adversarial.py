"""A renderer's losses: mel spectra, and against discriminators. B batch, S samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jukejax.config import RendererConfig
from jukejax.models import renderer, spectral
from jukejax.models.discriminators import Judged, judge
from jukejax.models.renderer import Frozen
from jukejax.training.losses import mel_difference

RENDERER, DISCRIMINATORS = "renderer", "discriminators"  # the parts of the parameters


def _mean(values: Sequence[jax.Array]) -> jax.Array:
    return sum(values[1:], values[0]) / len(values)


def discriminator_loss(real: Sequence[Judged], rendered: Sequence[Judged]) -> jax.Array:
    """Hinge loss (Lim and Ye 2017, section 4), the mean over discriminators."""
    pairs = zip(real, rendered, strict=True)
    return _mean(
        [
            jnp.mean(jax.nn.relu(1.0 - r.logits)) + jnp.mean(jax.nn.relu(1.0 + f.logits))
            for r, f in pairs
        ]
    )


def adversarial_loss(rendered: Sequence[Judged]) -> jax.Array:
    """Hinge loss of the renderer (EnCodec, section 3.4), the mean over discriminators."""
    return _mean([jnp.mean(jax.nn.relu(1.0 - f.logits)) for f in rendered])


def feature_matching(real: Sequence[Judged], rendered: Sequence[Judged]) -> jax.Array:
    """Mean |difference| of a layer's outputs over their mean magnitude for the real sound.

    EnCodec, section 3.4, for each example; the mean over the layers of all discriminators.
    """

    def relative(r: jax.Array, f: jax.Array) -> jax.Array:
        r, f = r.astype(jnp.float32), f.astype(jnp.float32)
        each = (1, 2, 3)
        return jnp.mean(jnp.abs(r - f).mean(each) / (jnp.abs(r).mean(each) + 1e-6))

    return _mean(
        [
            relative(lax.stop_gradient(r), f)
            for one, other in zip(real, rendered, strict=True)
            for r, f in zip(one.features, other.features, strict=True)
        ]
    )


def measures(
    config: RendererConfig, params: Any, frozen: Frozen, audio: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The sound (B, S) rendered from the codes of audio (B, S, 1), and how far it is from it.

    `params` are the renderer's alone.
    """
    vectors = renderer.to_vectors(config, frozen, audio)
    x, y = audio[..., 0], renderer.apply(config, params, vectors)[..., 0]
    return y, {
        "mel": mel_difference(x, y, config.sample_rate),
        "spectral_convergence": spectral.spectral_convergence(x, lax.stop_gradient(y)).mean(),
    }


def renderer_loss(
    config: RendererConfig, params: Any, frozen: Frozen, audio: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The losses of renderer and discriminators on audio (B, S, 1) as one sum, and metrics.

    The renderer gets no gradient of the discriminators' loss, nor they of the renderer's, so the
    gradient of the sum is that of each by its own loss.
    """
    weights = config.loss
    y, metrics = measures(config, params[RENDERER], frozen, audio)
    total = weights.mel * metrics["mel"]
    if weights.adversarial:
        judges = params[DISCRIMINATORS]
        real = judge(config, judges, audio[..., 0])
        # one forward pass after XLA's common subexpression elimination
        seen = judge(config, judges, lax.stop_gradient(y))
        felt = judge(config, lax.stop_gradient(judges), y)
        metrics["discriminator"] = discriminator_loss(real, seen)
        metrics["adversarial"] = adversarial_loss(felt)
        metrics["features"] = feature_matching(real, felt)
        total += weights.adversarial * metrics["adversarial"]
        total += weights.features * metrics["features"] + metrics["discriminator"]
    return total, {"loss": total, **metrics}
