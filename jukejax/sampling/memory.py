"""What sampling a level takes, from shapes alone: nothing is computed or allocated.

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
from jukejax.models.transformer import KEEP_KV, StackConfig, prior_stack
from jukejax.patterns import COLUMN, CROSS, DENSE, PRIME
from jukejax.sampling.decode import prefill
from jukejax.sampling.weights import hold


class Memory(NamedTuple):
    """Bytes of one level."""

    weights: int
    loading: int  # float32 weights, until they are held otherwise
    caches: int  # of the loop: keys, values, and what each position is told
    prefill: int  # of the parallel pass over what a chain's window is given, beside those
    read: int  # weights that one token needs

    @property
    def peak(self) -> int:
        return self.weights + max(self.caches + self.prefill, self.loading)


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


@functools.cache
def level_memory(
    config: PriorConfig, batch: int, weights: str = "float32", chains: int = 1
) -> Memory:
    """What a level takes for `batch` songs of some chains, with matrices held in `weights`."""
    loaded = nn.unbox(jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0)))
    params = jax.eval_shape(lambda p: hold(p, weights), loaded)
    inputs = jax.eval_shape(lambda: example_batch(config, batch))
    given = jax.ShapeDtypeStruct((), jnp.int32)
    rows = jax.eval_shape(lambda: example_batch(config, batch * chains))
    stream = jax.eval_shape(lambda p, b, g: prefill(config, p, b, g), params, rows, given)
    joined = max(map(_bytes, jax.tree.leaves(stream))) if chains > 1 else 0  # is there twice
    model: Any = Prior(config)

    def keys_and_values(params: Any, inputs: Any) -> Any:
        variables = {"params": params}
        conditions = model.apply(variables, inputs, method="conditions")
        return model.apply(variables, inputs, conditions, KEEP_KV, method="hidden")

    kept = jax.eval_shape(keys_and_values, params, inputs)
    head = params["token"] if config.tied_output else params["output"]
    layer = _layer(prior_stack(config), batch, config)
    return Memory(
        weights=_bytes(params),
        loading=_bytes(loaded) if weights != "float32" else 0,
        caches=_bytes(stream),
        prefill=max(_bytes(kept) + layer, joined),
        read=_bytes(params["stack"]) + _bytes(head),
    )


def _layer(stack: StackConfig, batch: int, config: PriorConfig) -> int:
    """Bytes alive inside the largest layer of the parallel pass: states and attention weights."""
    length, columns = config.seq_len, config.seq_len // stack.rows
    keys = {
        DENSE: length, COLUMN: stack.rows, PRIME: stack.visible,
        CROSS: config.lyrics.tokens if config.lyrics else 0,
    }  # fmt: skip
    patterns = {p for _, run in stack.runs for p in run}
    scores = 2 * stack.heads * max(keys.get(p, columns) for p in patterns)
    states = 2 * stack.width + max(3 * stack.attn_width + scores, 2 * stack.mlp_width)
    return 4 * batch * length * states


def free_memory() -> int:
    """Bytes that the first device, or the host where it computes, has for us; 0: unknown."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(x.split()[1]) for x in lines if x.startswith("MemAvailable:")), 0)


def bandwidth(mebibytes: int = 256) -> float:
    """Bytes per second that the device reads a matrix at, measured now."""
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
