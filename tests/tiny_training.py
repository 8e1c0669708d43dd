"""Training runs of a VQ-VAE so small that a step takes a millisecond, on one device."""

import dataclasses
import itertools

import jax
import numpy as np

from jukejax.config import (
    MeshConfig,
    OptimizerConfig,
    ReconstructionLoss,
    TrainConfig,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.parallel.mesh import make_mesh
from jukejax.training import loop

EXPERIMENT = VQVAEExperiment(
    model=VQVAEConfig(
        downs=(1,), multipliers=(1,), width=4, depth=1, emb_width=4, codes=8,
        loss=ReconstructionLoss(multispectral=0.0),
    ),
    samples=64,
    optimizer=OptimizerConfig(learning_rate=0.003, warmup_steps=2),
    train=TrainConfig(batch=2, ema_decay=0.5, log_every=1, evaluate_every=1000),
)  # fmt: skip


def noise(number):
    """Batch `number`: (2, 64, 1) of Gaussian noise."""
    audio = np.random.default_rng(number).normal(size=(2, 64, 1))
    return (0.3 * audio).astype(np.float32)


def run(workdir, batch, log=None, **settings):
    """The state at the end of a run on the sounds `batch(step)`; its log is appended to `log`."""
    train = dataclasses.replace(EXPERIMENT.train, **settings)
    experiment = dataclasses.replace(EXPERIMENT, train=train)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])

    def batches(step):
        return ({"audio": batch(n)} for n in itertools.count(step))

    say = ([] if log is None else log).append
    return loop.train(loop.Run(experiment, mesh, workdir, batches, log=say))


def compile_once(patch):
    """Makes all runs with the same `skip_spikes` share their compiled step."""
    steps, make = {}, loop.make_train_step

    def made(task, experiment, mesh):
        key = experiment.train.skip_spikes
        if key not in steps:
            steps[key] = make(task, experiment, mesh)
        return steps[key]

    patch.setattr(loop, "make_train_step", made)
