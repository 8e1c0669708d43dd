"""How fast tokens are sampled and sound is coded on this CPU, compared with PyTorch and memory.

jukejax benchmark sample --vs-torch port/bin/python
jukejax benchmark sample --preset upsampler_level_0 --tokens 32 --tasks sample:1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark import against
from experiments.benchmark.encode import random_vqvae
from experiments.benchmark.timing import Task
from jukejax import presets
from jukejax.config import ConfigError, MeshConfig, PriorConfig, PriorExperiment
from jukejax.models import prior, vqvae
from jukejax.parallel.mesh import make_mesh
from jukejax.sampling.draw import Control
from jukejax.sampling.loop import make_loop, on_device

MATRIX = 2**15, 2**13  # float32, a gibibyte


@dataclass(frozen=True)
class Command:
    """Tokens a second with the cache, and the VQ-VAE in x real time; random weights."""

    vs_torch: Path | None = None
    """Python with the PyTorch port (see experiments/benchmark/port_worker.py), timed in turn."""
    tasks: tuple[str, ...] = ("sample:1", "sample:8", "encode", "decode")
    """sample:BATCH samples a window's tokens; encode (three levels) and decode (the bottom level)
    do 10 seconds with `vqvae`."""
    preset: str | None = None
    """A prior of published size instead of the one that the port is timed with; only the loop over
    tokens is timed, not the start of a window."""
    tokens: int = 2048
    """Tokens sampled of each window."""
    rounds: int = 3


def _prior(preset: str | None) -> PriorConfig:
    if preset is None:
        return against.prior_config()
    experiment = presets.get(preset)
    if not isinstance(experiment, PriorExperiment):
        raise ConfigError(f"--preset {preset} is no prior.")
    return on_device(experiment.model)


def sampler(
    config: PriorConfig, params: Any, batch: int, tokens: int, loop_only: bool = False
) -> Task:
    """Starts a window without a prompt and samples its first `tokens`.

    With `loop_only` the window is started once, and what is timed samples its tokens again.
    """
    inputs = jax.tree.map(np.array, prior.example_batch(config, batch))
    if config.labels:
        inputs["total_length"][:] = 180 * config.sample_rate
    uniforms = jax.random.uniform(jax.random.key(1), (batch, config.n_ctx))
    control = Control(jnp.float32(1.0))
    loop = make_loop(config, make_mesh(MeshConfig()), params, batch, control)
    placed = loop.place(params)
    stream = loop.start(placed, inputs, 0)

    def run() -> Any:
        nonlocal stream
        if not loop_only:
            stream = loop.start(placed, inputs, 0)
        stream = loop.fill(placed, stream, uniforms, 0, tokens, control, 0)
        return stream

    return run


def coders() -> dict[str, Task]:
    """10 seconds to the codes of all levels, and from those of the bottom level."""
    model = random_vqvae("vqvae")
    config, samples = model.config, against.SIZES["samples"]
    sound = 0.1 * jax.random.normal(jax.random.key(0), (1, samples, 1))
    codes = jnp.zeros((1, samples // config.hops[0]), jnp.int32)
    encode = jax.jit(
        lambda params, books, x: [
            vqvae.encode(config, params, books, x, level) for level in range(config.levels)
        ]
    )
    decode = jax.jit(lambda params, books, z: vqvae.decode(config, params, books, z, 0))
    return {
        "encode": partial(encode, model.params, model.books, sound),
        "decode": partial(decode, model.params, model.books, codes),
    }


def stack_bytes(params: Any) -> int:
    """What must be read for a token: the matrices of the stack and of the output."""
    output = params.get("output", params["token"])  # tied where there is none
    return sum(x.nbytes for x in jax.tree.leaves((params["stack"], output)))


def run(command: Command) -> dict[str, Any]:
    """Seconds of every task and round, and of a matrix-vector product."""
    config = _prior(command.preset)
    if command.preset and command.vs_torch:
        raise ConfigError("--preset has no counterpart in the port; leave out --vs-torch.")
    if not 0 < command.tokens <= config.n_ctx:
        raise ConfigError(f"--tokens {command.tokens} is not in 1..{config.n_ctx}.")
    params = nn.unbox(jax.jit(lambda key: prior.init_params(config, key))(jax.random.key(0)))
    tasks: dict[str, Task] = {}
    for task in command.tasks:
        name, _, batch = task.partition(":")
        if name == "sample" and batch.isdigit() and int(batch):
            loop_only = command.preset is not None
            tasks[task] = sampler(config, params, int(batch), command.tokens, loop_only)
        elif task in ("encode", "decode"):
            tasks[task] = coders()[task]
        else:
            raise ConfigError(f"--tasks {task}: choose of sample:BATCH, encode and decode.")
    matrix, vector = np.ones(MATRIX, np.float32), np.ones(MATRIX[1], np.float32)
    product = {"product": lambda: matrix @ vector}
    seconds = against.compare(tasks, command.vs_torch, command.tokens, command.rounds, product)
    return {
        "tokens": command.tokens,
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "bytes_per_token": stack_bytes(params),
        "tasks": seconds,
    }


def lines(figures: dict[str, Any]) -> Sequence[str]:
    """A table of the tasks, and the share of the memory bandwidth that one window's tokens take."""
    rows, work = figures["tasks"], {}
    for task in rows:
        batch = task.partition(":")[2]
        sound = (against.SIZES["samples"] / 44_100, "x real time")
        work[task] = (figures["tokens"] * int(batch), "tokens/s") if batch else sound
    text = against.lines(work, rows)
    if "sample:1" in rows:
        row, size = rows["sample:1"], figures["bytes_per_token"]
        speed = size * figures["tokens"] / np.array(row["ours"])
        memory = 4 * np.prod(MATRIX) / np.array(row["product"])
        text.append(
            f"sample:1 reads {size / 1e9:.3f} GB of weights a token, {np.median(speed) / 1e9:.2f} "
            f"GB/s: {np.median(speed / memory):.0%} of the {np.median(memory) / 1e9:.2f} GB/s of "
            "numpy's matrix-vector product (median of rounds)"
        )
    return text
