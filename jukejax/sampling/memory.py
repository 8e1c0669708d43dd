"""Memory that sampling a level takes, from shapes alone: nothing is computed or allocated.

B batch, L positions of the stack, W width, A attention width, H heads.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jukejax.config import PriorConfig
from jukejax.models.prior import Prior, example_batch, init_params
from jukejax.models.transformer import COLLECT_KV
from jukejax.parallel.mesh import Mesh, local_bytes, storage_shardings
from jukejax.patterns import COLUMN, CROSS, DENSE, PRIME
from jukejax.sampling.loop import abstract_stream
from jukejax.sampling.weights import converted


class Memory(NamedTuple):
    """Bytes of one level on one device."""

    weights: int
    loading: int  # float32 weights while they are converted to another format
    caches: int  # of the loop: keys, values, and the conditioning of each position
    prefill: int  # of the parallel pass over the given tokens of a chain's window, besides
    read: int  # weights read per token

    @property
    def peak(self) -> int:
        return self.weights + max(self.caches + self.prefill, self.loading)


def _bytes(tree: Any) -> int:
    """Bytes on all devices."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


@functools.cache
def level_memory(
    config: PriorConfig, mesh: Mesh, batch: int, weights: str = "float32", chains: int = 1
) -> Memory:
    """Memory of a level for `batch` songs of `chains` chains, with matrices stored as `weights`."""
    boxed = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))
    loaded = jax.tree.map(
        lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at),
        nn.unbox(boxed), storage_shardings(mesh, boxed),
    )  # fmt: skip
    params = converted(loaded, weights)
    inputs = jax.eval_shape(lambda: example_batch(config, batch))
    stream = abstract_stream(config, mesh, params, batch * chains)
    alone = abstract_stream(config, mesh, params, batch)  # filled by a chain's parallel pass
    joined = max(map(local_bytes, jax.tree.leaves(stream))) if chains > 1 else 0  # exists twice
    model: Any = Prior(config)

    def keys_and_values(params: Any, inputs: Any) -> Any:
        variables = {"params": params}
        conditions = model.apply(variables, inputs, method="conditions")
        return model.apply(variables, inputs, conditions, COLLECT_KV, method="hidden")

    kept = jax.eval_shape(keys_and_values, params, inputs)
    head = params["token"] if config.tied_output else params["output"]
    passed = _bytes(kept) * local_bytes(alone.caches) // _bytes(alone.caches)
    split = local_bytes(alone.tokens) / _bytes(alone.tokens)
    layer = int(split * _layer(config, batch))
    return Memory(
        weights=local_bytes(params),
        loading=local_bytes(loaded) if weights != "float32" else 0,
        caches=local_bytes(stream),
        prefill=max(passed + layer, joined),
        read=local_bytes(params["stack"]) + local_bytes(head),
    )


def _layer(config: PriorConfig, batch: int) -> int:
    """Bytes of states and attention weights inside the largest layer of the parallel pass."""
    length, columns = config.seq_len, config.seq_len // config.blocks
    keys = {
        DENSE: length, COLUMN: config.blocks, PRIME: config.prime_visible,
        CROSS: config.lyrics.tokens if config.lyrics else 0,
    }  # fmt: skip
    patterns = {p for _, run in config.runs for p in run}
    scores = 2 * config.heads * max(keys.get(p, columns) for p in patterns)
    states = 2 * config.width + max(3 * config.attn_width + scores, 2 * config.mlp_width)
    return 4 * batch * length * states


def free_memory() -> int:
    """Free bytes of a device, or its share of the host's free memory; 0: unknown."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    free = next((1024 * int(x.split()[1]) for x in lines if x.startswith("MemAvailable:")), 0)
    return free // jax.local_device_count()


def bandwidth(mebibytes: int = 256) -> float:
    """Bytes per second at which the device reads a matrix, measured now."""
    n = mebibytes * 2**20 // 4 // 4096
    multiply = jax.jit(jnp.matmul)
    matrix, vector = jnp.ones((n, 4096)), jnp.ones((4096,))
    multiply(matrix, vector).block_until_ready()
    times = []
    for _ in range(3):
        began = time.perf_counter()
        multiply(matrix, vector).block_until_ready()
        times.append(time.perf_counter() - began)
    return 4 * n * 4096 / min(times)
