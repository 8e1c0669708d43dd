"""Reads what goes on inside a prior, batch by batch, on any mesh."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from jukejax.config import PriorConfig
from jukejax.models.prior import kept
from jukejax.parallel.distributed import gathered
from jukejax.parallel.mesh import COMPUTE, host_rows, put_batch

Reader = Callable[[dict[str, np.ndarray]], list[Any]]


@partial(jax.jit, static_argnums=(0, 3))
def _kept(config: PriorConfig, params: Any, batch: dict[str, jax.Array], keep: str) -> list[Any]:
    with nn.logical_axis_rules(list(COMPUTE)):
        return kept(config, params, batch, keep)


def make_reader(config: PriorConfig, params: Any, mesh: Mesh, keep: str) -> Reader:
    """A function from a batch of what the prior reads to what each layer keeps of it.

    `transformer.Stack` says what the kinds of `keep` are. The batch must be a multiple of the
    devices that the mesh splits a batch over. With several processes each is given the whole batch
    and gets all of what is kept.
    """

    def read(batch: dict[str, np.ndarray]) -> list[Any]:
        rows = host_rows(mesh, len(batch["codes"]))
        own = {name: array[rows] for name, array in batch.items()}
        with jax.set_mesh(mesh):
            found: list[Any] = gathered(_kept(config, params, put_batch(mesh, own), keep))
            return found

    return read
