"""AdamW, or the Adam of the published models, with gradient clipping and schedules."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from jukejax.config import Experiment, OptimizerConfig, RendererExperiment


def schedule(config: OptimizerConfig) -> optax.Schedule:
    """Learning rate by update: linear warm-up from 0, then the decay that the config names."""
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


def updates_done(state: optax.OptState) -> jax.Array:
    """The number of updates that an optimizer has made; skipped steps do not count."""
    return optax.tree.get_all_with_path(state, "count")[0][1]


def optimizer_of(experiment: Experiment, params: optax.Params) -> optax.GradientTransformation:
    """The optimizer of a run's parameters; renderer and discriminators have one each."""
    rule = make_optimizer(experiment.optimizer)
    if not isinstance(experiment, RendererExperiment):
        return rule
    return optax.partition(dict.fromkeys(params, rule), {name: name for name in params})


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clips by global norm, then Adam on all parameters (biases and norms too, as published)."""
    c = config
    adams = {"adamw": optax.adamw, "jukebox": jukebox_adam}
    rule = adams[c.kind](schedule(c), b1=c.b1, b2=c.b2, eps=c.eps, weight_decay=c.weight_decay)
    if not c.clip:
        return rule
    return optax.chain(optax.clip_by_global_norm(c.clip), rule)


def jukebox_adam(
    learning_rate: optax.Schedule, b1: float, b2: float, eps: float, weight_decay: float
) -> optax.GradientTransformation:
    """The published models' update: p -= s * (m / (sqrt(v) + eps) + weight_decay * p).

    s = rate * sqrt(1 - b2^t) / (1 - b1^t) at step t. So in the first steps eps has more effect than
    in AdamW, and weight decay less.
    """

    def init(params: optax.Params) -> optax.ScaleByAdamState:
        zeros = optax.tree.zeros_like
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros(params), zeros(params))

    def update(
        grads: optax.Updates, state: optax.ScaleByAdamState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.ScaleByAdamState]:
        mu = optax.tree.update_moment(grads, state.mu, b1, 1)
        nu = optax.tree.update_moment(grads, state.nu, b2, 2)
        t = state.count + 1
        size = learning_rate(state.count) * jnp.sqrt(1 - b2**t) / (1 - b1**t)

        def change(m: jax.Array, v: jax.Array, p: jax.Array) -> jax.Array:
            return -size * (m / (jnp.sqrt(v) + eps) + weight_decay * p)

        return jax.tree.map(change, mu, nu, params), optax.ScaleByAdamState(t, mu, nu)

    return optax.GradientTransformation(init, update)
