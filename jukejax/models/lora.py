"""LoRA: low-rank changes of dense kernels, trained in their place (Hu et al. 2021, section 4).

Of a kernel W (n_in, n_out) an adapter has A (n_in, R) and B (R, n_out), and the layer multiplies
with W + A B. B begins as zeros, so that new adapters change nothing. Those of the layers of a scan
are stacked, as their kernels are: (n, n_in, R). The tables of label names are trained whole.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from jukejax.label_kinds import KINDS
from jukejax.models.layers import Params

ADAPTER = "lora"  # a dense layer's adapter, beside its kernel
A, B = "a", "b"
LABELS = "labels"  # the key of a prior's tables of label names among its parameters
TABLES = tuple(kind.name for kind in KINDS)


def merged(p: Params) -> Params:
    """A dense layer's parameters with its adapter, where it has one, added to the kernel."""
    if ADAPTER not in p:
        return p
    rest = {name: x for name, x in p.items() if name != ADAPTER}
    return rest | {"kernel": add(p["kernel"], p[ADAPTER])}


def add(kernel: jax.Array, adapter: Params) -> jax.Array:
    """W + A B in float32: kernels (..., n_in, n_out)."""
    change = jnp.matmul(adapter[A], adapter[B], precision=jax.lax.Precision.HIGHEST)
    return kernel.astype(jnp.float32) + change


def init(key: jax.Array, params: Any, rank: int) -> Params:
    """Adapters of the kernels of all stacks, and copies of the tables of label names.

    Args:
      params: of a prior.
      rank: R, at least 1.
    """
    number = iter(range(1 << 20))

    def adapter(kernel: jax.Array) -> Params:
        *stacked, n_in, n_out = kernel.shape
        a = jax.random.normal(jax.random.fold_in(key, next(number)), (*stacked, n_in, rank))
        return {A: a / math.sqrt(n_in), B: jnp.zeros((*stacked, rank, n_out))}

    def walk(tree: Any, in_stack: bool) -> Params:
        if in_stack and "kernel" in tree:
            return adapter(tree["kernel"])
        branches = {
            name: walk(x, in_stack or name == "stack")
            for name, x in sorted(tree.items())
            if isinstance(x, dict)
        }
        return {name: branch for name, branch in branches.items() if branch}

    adapters = walk(params, False)
    tables = {name: params[LABELS][name] for name in TABLES if name in params.get(LABELS, {})}
    return adapters | ({LABELS: tables} if tables else {})


def beside(params: Params, adapters: Params) -> Params:
    """A prior's parameters with adapters beside their kernels, and the adapters' label tables."""
    if set(adapters) == {A, B}:
        return params | {ADAPTER: adapters}
    return {
        name: beside(x, adapters[name])
        if name in adapters and isinstance(x, dict)
        else adapters.get(name, x)
        for name, x in params.items()
    }


def into(params: Params, adapters: Params) -> Params:
    """A prior's parameters with adapters merged into their kernels; see `beside`."""

    def walk(tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        return {name: walk(x) for name, x in merged(tree).items()}

    merging: Params = walk(beside(params, adapters))
    return merging
