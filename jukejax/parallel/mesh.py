"""The device mesh and the two tables that map logical axes to it.

Parameters carry logical axis names (`jukejax.models.layers`). `STORAGE` shards parameters, their
averages and optimizer state; `COMPUTE` shards activations. XLA inserts the collectives between the
two. One device is a mesh of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jukejax.config import ConfigError, MeshConfig, TrainConfig

HostBatch = dict[str, np.ndarray]
"""A process's rows of a batch, as arrays of the host."""
AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")

# Parameters: the width of the residual stream is sharded over fsdp, inner widths over tensor.
STORAGE: tuple[tuple[str, Any], ...] = (
    ("embed", "fsdp"),
    ("inner", "tensor"),
    ("vocabulary", "tensor"),
    ("layers", None),
    ("position", None),
    ("channels", None),
)

# Activations: the batch is sharded over data and fsdp; the residual stream is not sharded.
COMPUTE: tuple[tuple[str, Any], ...] = (
    ("batch", BATCH),
    ("length", None),
    ("embed", None),
    ("stored", "fsdp"),  # the width of a parameter before its all-gather
    ("inner", "tensor"),
    ("vocabulary", "tensor"),
)


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes `data`, `fsdp` and `tensor` of `devices` (default: all).

    Raises:
      ConfigError: when the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.tensor]
    known = int(np.prod([s for s in sizes if s != -1]))
    if sizes.count(-1) == 1 and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if -1 in sizes or int(np.prod(sizes)) != len(devices):
        wanted = " x ".join(f"{a} {s}" for a, s in zip(AXES, sizes, strict=True))
        raise ConfigError(
            f"mesh {wanted} does not fit {len(devices)} devices: the product of the sizes must be "
            "that number (one size may be -1: as many as are left)."
        )
    grid = _grid(tuple(sizes), devices)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _grid(sizes: tuple[int, ...], devices: list[jax.Device]) -> np.ndarray:
    """Devices in the shape of a mesh, neighbours near each other; slices of a pod along `data`.

    Raises:
      ConfigError: the slices do not divide `data`.
    """
    slices = len({getattr(d, "slice_index", 0) for d in devices})
    if slices == 1 or devices[0].platform == "gpu":  # a GPU's slice is its host: axes may cross it
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    if sizes[0] % slices:
        raise ConfigError(
            f"{slices} slices do not divide mesh.data {sizes[0]}: the slow network between slices "
            "carries only the data axis; give a multiple."
        )
    across = (slices,) + (1,) * (len(sizes) - 1)
    within = (sizes[0] // slices, *sizes[1:])
    return mesh_utils.create_hybrid_device_mesh(
        within, across, devices, allow_split_physical_axes=True
    )


def storage_shardings(mesh: Mesh, abstract: Any) -> Any:
    """NamedShardings, by `STORAGE`, of a tree of boxed abstract arrays; returned unboxed.

    A dimension that its mesh axis does not divide (4111 artists) is not sharded.
    """
    specs = nn.logical_to_mesh(nn.get_partition_spec(abstract), list(STORAGE))

    def fit(spec: P, x: Any) -> NamedSharding:
        axes = [
            axis if axis is None or size % mesh.shape[axis] == 0 else None
            for axis, size in zip(spec, x.shape, strict=False)
        ]
        return NamedSharding(mesh, P(*axes))

    return jax.tree.map(fit, specs, nn.unbox(abstract), is_leaf=lambda s: isinstance(s, P))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def create_sharded(mesh: Mesh, init: Callable[[jax.Array], Any], key: jax.Array) -> Any:
    """init(key), compiled so that every array is created sharded by `STORAGE`; unboxed."""
    shardings = storage_shardings(mesh, jax.eval_shape(init, key))
    return jax.jit(lambda k: nn.unbox(init(k)), out_shardings=shardings)(key)


def local_bytes(tree: Any) -> int:
    """Bytes on one device of arrays, or abstract arrays, with shardings."""
    return sum(
        x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(tree)
    )


def batch_ways(mesh: Mesh) -> int:
    """Number of shards of a batch, whose size must be a multiple of it."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def check_batch(mesh: Mesh, config: TrainConfig) -> None:
    """Raises ConfigError if devices cannot share a batch, or its microbatches, evenly."""
    ways, parts = batch_ways(mesh), config.accumulate
    if config.batch % (ways * parts):
        cut = f" in {parts} parts (train.accumulate)" if parts > 1 else ""
        raise ConfigError(
            f"train.batch is {config.batch}, but the mesh splits a batch {ways} ways "
            f"(data x fsdp){cut}; give a multiple of {ways * parts}."
        )


def host_rows(mesh: Mesh, batch: int) -> np.ndarray[Any, Any]:
    """Rows of a global batch, ascending, that are on devices of this process.

    Hosts may share rows (where `tensor` spans them), and a host's rows need not be consecutive: the
    order of devices in a mesh follows the interconnect.
    """
    shares = NamedSharding(mesh, P(BATCH)).addressable_devices_indices_map((batch,)).values()
    return np.unique(np.concatenate([np.arange(batch)[index] for index in shares]))


def abstract(x: Any, sharding: jax.sharding.Sharding) -> Any:
    """The `jax.ShapeDtypeStruct` of an array, with a sharding."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def put_batch(mesh: Mesh, batch: HostBatch) -> dict[str, jax.Array]:
    """Global arrays, sharded along the batch axis, from this process's rows of a batch."""
    sharding = NamedSharding(mesh, P(BATCH))
    ways = batch_ways(mesh)
    size = len(next(iter(batch.values()))) * ways // len(host_rows(mesh, ways))
    rows = host_rows(mesh, size)

    def put(array: np.ndarray) -> jax.Array:
        def part(index: Any) -> np.ndarray:
            return array[np.searchsorted(rows, np.arange(size)[index[0]])]

        return jax.make_array_from_callback((size, *array.shape[1:]), sharding, part)

    return {name: put(array) for name, array in batch.items()}
