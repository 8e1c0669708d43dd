"""How fast tokens are drawn and sound is coded on this CPU, beside PyTorch and the memory bus.

python -m experiments.benchmark sample --vs-torch port/bin/python
python -m experiments.benchmark sample --preset upsampler_level_0 --tokens 32 --tasks sample:1
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from jukejax import presets
from jukejax.config import ConfigError, MeshConfig, PriorConfig, PriorExperiment
from jukejax.models import prior, vqvae
from jukejax.parallel.mesh import make_mesh
from jukejax.sampling.draw import Control
from jukejax.sampling.loop import make_loop, on_device

BUS = 2**15, 2**13  # float32, a gibibyte


@dataclass(frozen=True)
class Command:
    """Tokens a second through the cache, and the VQ-VAE in x real time; random weights."""

    vs_torch: Path | None = None
    """Python with the PyTorch port (see experiments/benchmark/port_worker.py), timed in turn."""
    tasks: tuple[str, ...] = ("sample:1", "sample:8", "encode", "decode")
    """sample:BATCH draws a window's tokens; encode (three levels) and decode (the bottom level) do
    10 seconds with `vqvae`."""
    preset: str | None = None
    """A prior of published size instead of the one that the port is timed with. Its windows are
    begun before the clock starts: what is timed is the loop over tokens."""
    tokens: int = 2048
    """So many of each window are drawn."""
    rounds: int = 3
    json: bool = False
    """Print the figures as one JSON object too."""


def _prior(preset: str | None) -> PriorConfig:
    if preset is None:
        return against.prior_config()
    experiment = presets.get(preset)
    if not isinstance(experiment, PriorExperiment):
        raise ConfigError(f"--preset {preset} is no prior.")
    return on_device(experiment.model)


def sampler(
    config: PriorConfig, params: Any, batch: int, tokens: int, begun: bool = False
) -> Callable[[], Any]:
    """Starts a window without a prompt and draws its first `tokens`; one that is `begun` already is
    not started again: what remains is the loop over tokens, which draws over the last ones.
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
        if not begun:
            stream = loop.start(placed, inputs, 0)
        stream = loop.fill(placed, stream, uniforms, 0, tokens, control, 0)
        return stream

    return run


def coders() -> dict[str, Callable[[], Any]]:
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
    decode_ = jax.jit(lambda params, books, z: vqvae.decode(config, params, books, z, 0))
    return {
        "encode": partial(encode, model.params, model.books, sound),
        "decode": partial(decode_, model.params, model.books, codes),
    }


def stack_bytes(params: Any) -> int:
    """What must be read for a token: the matrices of the stack and of the output."""
    output = params.get("output", params["token"])  # tied where there is none
    return sum(x.nbytes for x in jax.tree.leaves((params["stack"], output)))


def bus(matrix: Any) -> float:
    """Bytes a second of numpy's float32 product of a matrix and a vector; the best of three."""
    vector = np.ones(matrix.shape[1], np.float32)
    return float(matrix.nbytes / min(against.timed(lambda: matrix @ vector) for _ in range(3)))


def run(command: Command) -> dict[str, Any]:
    """Seconds of every task and round, and the bandwidth that tokens of one window take."""
    config = _prior(command.preset)
    if command.preset and command.vs_torch:
        raise ConfigError("--preset has no counterpart in the port; leave out --vs-torch.")
    if not 0 < command.tokens <= config.n_ctx:
        raise ConfigError(f"--tokens {command.tokens} does not lie in 1..{config.n_ctx}.")
    params = nn.unbox(jax.jit(lambda key: prior.init_params(config, key))(jax.random.key(0)))
    known: dict[str, Callable[[], Any]] = {}
    for task in command.tasks:
        name, _, batch = task.partition(":")
        if name == "sample" and batch.isdigit() and int(batch):
            begun = command.preset is not None
            known[task] = sampler(config, params, int(batch), command.tokens, begun)
        elif task in ("encode", "decode"):
            known[task] = coders()[task]
        else:
            raise ConfigError(f"--tasks {task}: known are sample:BATCH, encode and decode.")
    beside = partial(bus, np.ones(BUS, np.float32))
    found = against.measure(known, command.vs_torch, command.tokens, command.rounds, beside)
    return {
        "tokens": command.tokens,
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "bytes_per_token": stack_bytes(params),
        "tasks": found,
    }


def lines(found: dict[str, Any]) -> Sequence[str]:
    """A table of the tasks, and the share of the bus that one window's tokens take."""
    rows = found["tasks"]
    said = [against.head(any("ratio" in row for row in rows.values()))]
    seconds = against.SIZES["samples"] / 44_100
    for task, row in rows.items():
        batch = task.partition(":")[2]
        work = found["tokens"] * int(batch) if batch else seconds
        said.append(against.line(task, work, "tokens/s" if batch else "x real time", row))
    if "sample:1" in rows:
        row, size = rows["sample:1"], found["bytes_per_token"]
        speeds = size * found["tokens"] / np.array(row["seconds"])
        share = np.median(speeds / row["beside"])
        said.append(
            f"sample:1 reads {size / 1e9:.3f} GB of weights a token, "
            f"{np.median(speeds) / 1e9:.2f} GB/s: {share:.0%} of the "
            f"{np.median(row['beside']) / 1e9:.2f} GB/s of numpy's matrix-vector product (median "
            "of rounds)"
        )
    return said
