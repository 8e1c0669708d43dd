"""Steps whose loss or gradient norm is far above what it was of late, to be skipped.

One bad batch can undo days of training. MaxText's `skip_step_on_spikes` compares with a window of
past steps; here the window is exponential.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

STEPS = 100  # of the window; no step is a spike before this number has been seen


class Spikes(NamedTuple):
    """Moments of loss and gradient norm over the steps that were not skipped."""

    steps: jax.Array  # int32 ()
    mean: jax.Array  # float32 (2,)
    variance: jax.Array  # float32 (2,)


def init() -> Spikes:
    """No step seen yet."""
    return Spikes(jnp.zeros((), jnp.int32), jnp.zeros(2), jnp.zeros(2))


def observe(
    seen: Spikes, loss: jax.Array, norm: jax.Array, deviations: float
) -> tuple[jax.Array, Spikes]:
    """Whether a step is a spike, bool (), and the moments with the step.

    It is one where loss or gradient norm exceeds its mean by more than `deviations` standard
    deviations. The moments are plain ones over the first `STEPS` steps, then exponential
    (Welford's update).
    """
    weight = jnp.maximum(1 / STEPS, 1 / (seen.steps + 1.0))
    over = jnp.stack([loss, norm]).astype(jnp.float32) - seen.mean
    is_spike = (seen.steps >= STEPS) & jnp.any(over > deviations * jnp.sqrt(seen.variance))
    mean = seen.mean + weight * over
    variance = (1 - weight) * (seen.variance + weight * over**2)
    return is_spike, Spikes(seen.steps + 1, mean, variance)
