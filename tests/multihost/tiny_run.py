"""A tiny run on synthetic batches through the real loop, as one of any number of processes.

python tests/multihost/tiny_run.py KIND WORKDIR [TRAIN_FIELD=INT ...]
"""

import functools
import os
import sys
from dataclasses import replace

import jax
import numpy as np

from experiments import cli
from jukejax.config import (
    LabelsConfig,
    MeshConfig,
    OptimizerConfig,
    PriorConfig,
    PriorExperiment,
    ReconstructionLoss,
    TrainConfig,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.models import prior
from jukejax.parallel import distributed
from jukejax.parallel.mesh import host_rows, make_mesh
from jukejax.training import loop, watchdog
from jukejax.training.loop import Run, train

# A large eps: where a gradient is zero but for rounding, Adam would blow the rounding up.
OPTIMIZER = OptimizerConfig(learning_rate=0.02, eps=1e-2, warmup_steps=0)
TRAIN = TrainConfig(
    steps=3, batch=8, ema_decay=0.75, log_every=1, evaluate_every=1000, evaluate_batches=1,
    checkpoint_every=2, keep=2,
)  # fmt: skip
VQVAE = VQVAEExperiment(
    model=VQVAEConfig(
        downs=(2,), multipliers=(1,), width=4, depth=1, emb_width=4, codes=16,
        codebook_decay=0.7, restart_threshold=20.0, loss=ReconstructionLoss(multispectral=0.0),
    ),
    samples=1280, optimizer=OPTIMIZER, train=TRAIN, mesh=MeshConfig(data=4, fsdp=2),
)  # fmt: skip
PRIOR = PriorExperiment(
    model=PriorConfig(
        n_ctx=16, width=16, depth=2, heads=2, blocks=4, codes=32, attn_order=2, attn_ratio=0.5,
        labels=LabelsConfig(artists=5, genres=4, max_genres=2, min_seconds=0.0),
    ),
    optimizer=OPTIMIZER, train=TRAIN,
)  # fmt: skip
KINDS = {
    "vqvae": VQVAE,  # in an order of devices that scatters the rows of a process
    "prior": replace(PRIOR, mesh=MeshConfig(data=2, fsdp=2, tensor=2)),
    # across processes: both have all rows
    "tensor": replace(PRIOR, mesh=MeshConfig(data=1, fsdp=1, tensor=8)),
    "pair": PRIOR,
}


def batch(experiment, step):
    """The global batch of a step."""
    rng = np.random.default_rng(step)
    size = experiment.train.batch
    if isinstance(experiment, VQVAEExperiment):
        return {"audio": rng.normal(size=(size, experiment.samples, 1)).astype(np.float32)}
    shapes = prior.example_batch(experiment.model, size)
    tops = {"genres": 4, "artist": 5, "codes": 32, "total_length": 60 * 44_100, "offset": 9}
    return {
        n: rng.integers(0, tops[n], x.shape).astype(np.int32) for n, x in sorted(shapes.items())
    }


@cli.command
def main(kind, workdir, *settings):
    os.chdir(os.environ.get("TINY_FOLDER", "."))
    if "TINY_LEAST" in os.environ:  # seconds after which a step hangs
        least = float(os.environ["TINY_LEAST"])
        loop.Watchdog = functools.partial(watchdog.Watchdog, least=least)
    distributed.start()
    experiment = KINDS[kind]
    changes = {name: int(value) for name, value in (s.split("=") for s in settings)}
    experiment = replace(experiment, train=replace(experiment.train, **changes))
    distributed.check_shared(workdir)
    devices = jax.devices()
    half = len(devices) // 2
    order = [i // 2 + half * (i % 2) for i in range(len(devices))] if kind == "vqvae" else None
    mesh = make_mesh(experiment.mesh, [devices[i] for i in order] if order else None)
    rows = host_rows(mesh, experiment.train.batch)
    print(f"[{jax.process_index()}] rows {rows.tolist()}", flush=True)

    def batches(step):
        while True:
            yield {name: x[rows] for name, x in batch(experiment, step).items()}
            step += 1

    def log(line):
        print(f"[{jax.process_index()}] {line}", flush=True)

    train(Run(experiment, mesh, workdir, batches, lambda: batches(10**6), log=log))


if __name__ == "__main__":
    main(*sys.argv[1:])
