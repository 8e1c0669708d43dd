"""Schedules against their formulas, clipping, and both kinds of Adam by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jukejax.config import OptimizerConfig
from jukejax.training.optimizer import make_optimizer, schedule

RATE, WARMUP, START, STEPS = 0.5, 10, 20, 40


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine", "step"])
def test_schedule(decay):
    rate = schedule(
        OptimizerConfig(
            learning_rate=RATE, warmup_steps=WARMUP, decay=decay, decay_start=START,
            decay_steps=STEPS, gamma=0.3,
        )
    )  # fmt: skip
    found = rate(np.arange(140))
    for step in range(140):
        part = max(0, step - START) / STEPS
        factor = {
            "constant": 1,
            "linear": max(0, 1 - part),
            "cosine": (1 + math.cos(math.pi * min(1, part))) / 2,
            "step": 0.3 ** (step // STEPS),
        }[decay]
        expected = RATE * min(1, step / WARMUP) * factor
        assert float(found[step]) == pytest.approx(expected, rel=1e-5, abs=1e-7), step


def test_no_warmup_begins_at_the_full_rate():
    assert float(schedule(OptimizerConfig(learning_rate=0.5, warmup_steps=0))(0)) == 0.5


def run(config, params, gradients):
    optimizer = make_optimizer(config)
    state = optimizer.init(params)
    for g in gradients:
        updates, state = optimizer.update(g, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("kind", ["adamw", "jukebox"])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_adam_with_clipping(kind, clip):
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 2), "bias": (2,)}
    params = {name: rng.normal(size=s) for name, s in shapes.items()}
    scales = [0.01, 5.0, 1.0]  # the first is not clipped
    gradients = [{n: a * rng.normal(size=s) for n, s in shapes.items()} for a in scales]
    config = OptimizerConfig(
        kind=kind, learning_rate=0.1, b1=0.8, b2=0.9, eps=1e-3, weight_decay=0.2, clip=clip,
        warmup_steps=2,
    )  # fmt: skip
    found = run(config, jax.tree.map(jnp.float32, params), jax.tree.map(jnp.float32, gradients))
    m, v = ({n: np.zeros(s) for n, s in shapes.items()} for _ in range(2))
    for t, g in enumerate(gradients, start=1):
        norm = math.sqrt(sum((x**2).sum() for x in g.values()))
        for name in shapes:
            x = g[name] / max(1.0, norm / clip) if clip else g[name]
            m[name] = 0.8 * m[name] + 0.2 * x
            v[name] = 0.9 * v[name] + 0.1 * x**2
            # weights of every kind decay, biases too
            rate = 0.1 * min(1, (t - 1) / 2)
            if kind == "adamw":
                step = m[name] / (1 - 0.8**t) / (np.sqrt(v[name] / (1 - 0.9**t)) + 1e-3)
                params[name] -= rate * (step + 0.2 * params[name])
            else:
                step = m[name] / (np.sqrt(v[name]) + 1e-3)
                size = rate * math.sqrt(1 - 0.9**t) / (1 - 0.8**t)
                params[name] -= size * (step + 0.2 * params[name])
    for name in shapes:
        np.testing.assert_allclose(found[name], params[name], rtol=1e-4, atol=1e-6)
