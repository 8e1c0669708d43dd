"""How fast a train step is on this CPU, compared with PyTorch.

jukejax benchmark train --vs-torch port/bin/python
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark import against
from experiments.benchmark.encode import random_vqvae
from experiments.benchmark.timing import Task
from jukejax.config import ConfigError, MeshConfig, PriorExperiment, TrainConfig
from jukejax.models import vqvae
from jukejax.parallel.mesh import make_mesh
from jukejax.training.step import create_state, make_train_step
from jukejax.training.tasks import make_task

TASKS = ("train", "vqvae_gradients")


@dataclass(frozen=True)
class Command:
    """Train steps, float32, random weights."""

    vs_torch: Path | None = None
    """Python with the PyTorch port (see experiments/benchmark/port_worker.py), timed in turn."""
    tasks: tuple[str, ...] = TASKS
    """train: a step of a prior with Adam. vqvae_gradients: the mean square error of all levels of
    `vqvae` without its bottleneck, forward and backward."""
    rounds: int = 5


def prior_step() -> Task:
    """The step of `jukejax.training.step`, which keeps its state from call to call."""
    sizes = against.SIZES
    train = TrainConfig(batch=sizes["train_batch"])
    experiment = PriorExperiment(model=against.prior_config(), train=train)
    mesh, task = make_mesh(MeshConfig(), jax.devices()[:1]), make_task(experiment)
    batch: Any = jax.tree.map(np.array, task.example(train.batch))
    batch["codes"][:] = np.random.default_rng(0).integers(0, 2048, batch["codes"].shape)
    batch["total_length"][:] = 180 * experiment.model.sample_rate
    step = make_train_step(task, experiment, mesh)
    state = [create_state(task, experiment, mesh, batch)]

    def run() -> Any:
        state[0], metrics = step(state[0], batch)
        return metrics

    return run


def vqvae_gradients() -> Task:
    """Gradients of every encoder and decoder at the published size."""
    model = random_vqvae("vqvae")
    sound = 0.1 * jax.random.normal(jax.random.key(0), (1, against.SIZES["gradient_samples"], 1))

    def loss(params: Any, x: jax.Array) -> jax.Array:
        levels = range(model.config.levels)
        coded = [vqvae.to_vectors(model.config, params, x, level) for level in levels]
        back = [vqvae.reconstruct(model.config, params, coded[level], level)[0] for level in levels]
        return sum((jnp.mean((y - x) ** 2) for y in back), jnp.zeros(()))

    return partial(jax.jit(jax.grad(loss)), model.params, sound)


def run(command: Command) -> dict[str, Any]:
    """Seconds of every task and round."""
    make = dict(zip(TASKS, (prior_step, vqvae_gradients), strict=True))
    if unknown := set(command.tasks) - set(make):
        raise ConfigError(f"--tasks {', '.join(sorted(unknown))}: choose of {', '.join(TASKS)}.")
    ours = {task: make[task]() for task in command.tasks}
    return {"tasks": against.compare(ours, command.vs_torch, 0, command.rounds, {})}


def lines(figures: dict[str, Any]) -> Sequence[str]:
    """A table of the tasks."""
    sizes = against.SIZES
    work = {
        "train": (sizes["train_batch"] * sizes["context"], "tokens/s"),
        "vqvae_gradients": (sizes["gradient_samples"] / 44_100, "x real time"),
    }
    return against.lines(work, figures["tasks"])
