"""Reads activations and attention inside a prior, batch by batch, on any mesh."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from jukejax.config import PriorConfig
from jukejax.models.prior import collected
from jukejax.parallel.distributed import gathered
from jukejax.parallel.mesh import COMPUTE, host_rows, put_batch

Reader = Callable[[dict[str, np.ndarray]], list[Any]]


@partial(jax.jit, static_argnums=(0, 3))
def _collected(
    config: PriorConfig, params: Any, batch: dict[str, jax.Array], collect: str
) -> list[Any]:
    with nn.logical_axis_rules(list(COMPUTE)):
        return collected(config, params, batch, collect)


def make_reader(config: PriorConfig, params: Any, mesh: Mesh, collect: str) -> Reader:
    """A function from a batch of the prior's inputs to what each layer collects of it.

    `transformer.Stack` lists the kinds of `collect`. The batch size must be a multiple of
    the number of devices that the mesh splits a batch over. Each of several processes passes the
    same full batch and gets the full result.
    """

    def read(batch: dict[str, np.ndarray]) -> list[Any]:
        rows = host_rows(mesh, len(batch["codes"]))
        own = {name: array[rows] for name, array in batch.items()}
        with jax.set_mesh(mesh):
            layers: list[Any] = gathered(_collected(config, params, put_batch(mesh, own), collect))
            return layers

    return read
