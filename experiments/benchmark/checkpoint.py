"""A checkpoint of a published size, saved and restored on virtual devices, every bit compared.

jukejax benchmark checkpoint --preset prior_5b --folder /tmp/checkpoint

A GB at a time is written and read, since the arrays alone nearly fill a small machine's memory.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from experiments.benchmark.timing import measured, spent
from jukejax import files, presets
from jukejax.config import ConfigError, MeshConfig
from jukejax.parallel.mesh import make_mesh
from jukejax.training import digests
from jukejax.training.checkpoint import Checkpoints, open_existing
from jukejax.training.step import abstract_state
from jukejax.training.tasks import make_task


@dataclass(frozen=True)
class Command:
    """Save and restore a preset's parameters by the code that training uses."""

    folder: Path
    """Gets the checkpoint; must not exist yet. It is not deleted."""
    preset: str = "prior_5b"
    """Whose parameters; their values are noise."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Their dtype."""
    devices: int = 8
    """Virtual CPU devices that they are split over (fsdp)."""
    tensor: int = 1
    """Restores onto a mesh with this many devices along tensor, the rest along fsdp."""
    part: Literal["all", "save", "restore"] = "all"
    """Both parts, each in a process of its own; or one of them in this one."""


def noise(shape: tuple[int, ...], dtype: Any, seed: int) -> jax.Array:
    """Numbers in [0, 1) that do not depend on how the array is sharded."""
    return jax.random.uniform(jax.random.key(seed), shape, dtype)


def wanted(command: Command, mesh: MeshConfig) -> Any:
    """Shapes and shardings of the parameters."""
    experiment = presets.get(command.preset)
    state = abstract_state(make_task(experiment), experiment, make_mesh(mesh))

    dtype = jnp.dtype(command.dtype)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding), state.params
    )


def save(command: Command) -> dict[str, float]:
    """Makes parameters and saves them; seconds until training could continue, and until the end."""
    shapes, tree = jax.tree.flatten(wanted(command, MeshConfig(data=1, fsdp=command.devices)))
    made = []
    for seed, x in enumerate(shapes):
        fill = jax.jit(noise, static_argnums=(0, 1, 2), out_shardings=x.sharding)
        made.append(fill(x.shape, x.dtype, seed))
    params = jax.block_until_ready(jax.tree.unflatten(tree, made))
    began = time.perf_counter()
    with Checkpoints(command.folder, frugal=True) as checkpoints:
        checkpoints.save(1, {"params": params}, {"preset": command.preset})
        handed_over = time.perf_counter() - began
        checkpoints.wait()
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "handed_over": handed_over, "bytes": sum(x.nbytes for x in made)}


def restore(command: Command) -> dict[str, Any]:
    """Compares digests, then restores; seconds of each, and arrays that differ in any bit.

    The seconds of the restore include its own comparison of digests.
    """
    mesh = MeshConfig(data=1, fsdp=command.devices // command.tensor, tensor=command.tensor)
    shapes = wanted(command, mesh)
    with open_existing(command.folder, frugal=True) as checkpoints:
        began = time.perf_counter()
        damage = digests.damage(checkpoints.path / str(checkpoints.latest), ["params"])
        compared = time.perf_counter() - began
        began = time.perf_counter()
        params = jax.block_until_ready(checkpoints.restore({"params": shapes})["params"])
    seconds = time.perf_counter() - began
    bits = jnp.uint16 if command.dtype == "bfloat16" else jnp.uint32

    def same(x: jax.Array, seed: int) -> jax.Array:
        expected = lax.bitcast_convert_type(noise(x.shape, x.dtype, seed), bits)
        return jnp.array_equal(lax.bitcast_convert_type(x, bits), expected)

    check = jax.jit(same, static_argnums=1)
    leaves = jax.tree.leaves(params)
    wrong = sum(not check(x, seed) for seed, x in enumerate(leaves))
    return {
        **{"seconds": seconds, "digests": compared, "damage": damage},
        **{"arrays": len(leaves), "differ": wrong},
    }


def run(command: Command) -> dict[str, Any]:
    """Both parts as processes, or one here."""
    if command.part != "all":
        done = (save if command.part == "save" else restore)(command)
        files.write_json(command.folder / f"{command.part}.json", done)
        return {command.part: done}
    if command.folder.exists():
        raise ConfigError(f"{command.folder} exists; choose another --folder.")
    if command.devices % command.tensor:
        raise ConfigError(f"--tensor {command.tensor} does not divide --devices.")
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={command.devices}"
    figures: dict[str, Any] = {n: getattr(command, n) for n in ("preset", "dtype", "devices")}
    options = {"folder": command.folder, **figures, "tensor": command.tensor}
    arguments = [str(x) for name, value in options.items() for x in (f"--{name}", value)]
    for part in ("save", "restore"):
        process = measured("experiments.benchmark", ["checkpoint", *arguments, "--part", part])
        figures[part] = process | json.loads((command.folder / f"{part}.json").read_text())
    written = (p for p in command.folder.rglob("*") if p.is_file())
    return {**figures, "bytes_on_disk": sum(p.stat().st_size for p in written)}


def lines(figures: dict[str, Any]) -> list[str]:
    """The figures to print."""
    if "preset" not in figures:  # one part, whose figures are printed by the process of both
        return []
    save, restore, size = figures["save"], figures["restore"], figures["save"]["bytes"]
    return [
        f"{figures['preset']}: {size / 1e9:.2f} GB of {figures['dtype']} on {figures['devices']} "
        f"devices, {figures['bytes_on_disk'] / 1e9:.2f} GB on disk",
        *(
            f"{spent(part, figures[part])}, {size / figures[part]['seconds'] / 1e9:.2f} GB/s"
            for part in ("save", "restore")
        ),
        f"  training could continue after {save['handed_over']:.1f} s",
        f"  digests compared in {restore['digests']:.1f} s of the restore, "
        f"{restore['digests'] / restore['seconds']:.1%}: {restore['damage'] or 'no damage'}",
        f"  {restore['arrays']} arrays, of which {restore['differ']} differ in any bit",
    ]
