"""AdamW with gradient clipping and the schedules of a run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from jukejax.config import OptimizerConfig


def schedule(config: OptimizerConfig) -> optax.Schedule:
    """Learning rate of step 0, 1, ...: linear warm-up from 0, then the decay that is asked for."""
    c = config

    def rate(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        warm = jnp.minimum(1.0, step / c.warmup_steps) if c.warmup_steps else jnp.ones(())
        part = jnp.clip((step - c.decay_start) / max(c.decay_steps, 1), 0.0, 1.0)
        factor = {
            "constant": jnp.ones(()),
            "linear": 1.0 - part,
            "cosine": 0.5 * (1.0 + jnp.cos(jnp.pi * part)),
            "step": c.gamma ** (step // max(c.decay_steps, 1)),
        }[c.decay]
        return c.learning_rate * warm * factor

    return rate


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW over every parameter (biases and norms too, as published)."""
    c = config
    adamw = optax.adamw(schedule(c), b1=c.b1, b2=c.b2, eps=c.eps, weight_decay=c.weight_decay)
    if not c.clip:
        return adamw
    return optax.chain(optax.clip_by_global_norm(c.clip), adamw)
