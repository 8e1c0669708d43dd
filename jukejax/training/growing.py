"""Weights with fewer label names than the model that starts from them.

A name keeps its row. A row that a table gains begins as that of "unknown" (row 0): a new name is
first taken for an unknown one. A table that was not there begins as zeros, which add nothing. So
what the old model said of the names it knew does not change by a bit.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from jukejax.label_kinds import KINDS
from jukejax.training.checkpoint import Checkpoints

LABELS = "labels"  # where a prior's tables of names lie among its parameters
TABLES = tuple(kind.name for kind in KINDS)


def restore_grown(checkpoints: Checkpoints, abstract: dict[str, Any]) -> dict[str, Any]:
    """`Checkpoints.restore`, where the tables of label names in "ema" may be smaller or absent.

    Args:
      abstract: shapes and shardings of the trees that are wanted.

    Raises:
      CheckpointError: anything else does not fit.
    """
    labels = abstract["ema"].get(LABELS)
    if labels is None:
        return checkpoints.restore(abstract)
    stored = checkpoints.ema_shapes().get(LABELS, {})
    wanted = {name: table for name, table in labels.items() if name in TABLES}
    grown = {n: t for n, t in wanted.items() if n not in stored or stored[n][0] < t.shape[0]}
    there = {n: _whole(t, stored[n]) if n in grown else t for n, t in labels.items() if n in stored}
    found = checkpoints.restore(abstract | {"ema": abstract["ema"] | {LABELS: there}})
    tables = found["ema"][LABELS]
    for name, table in grown.items():
        old = tables.get(name, jnp.zeros((0, table.shape[1]), table.dtype))
        shape = jax.jit(grow, static_argnums=1, out_shardings=table.sharding)
        tables[name] = shape(old, table.shape[0])
    return found


def grow(table: jax.Array, rows: int) -> jax.Array:
    """A table (n, W) with `rows` rows: the new ones are its first, or zeros where it has none."""
    first = table[:1] if len(table) else jnp.zeros((1, table.shape[1]), table.dtype)
    new = jnp.broadcast_to(first, (rows - len(table), table.shape[1]))
    return jnp.concatenate([table, new])


def _whole(table: Any, shape: tuple[int, ...]) -> Any:
    """What a stored table is restored as: whole on every device, for it may not divide."""
    sharding = NamedSharding(table.sharding.mesh, PartitionSpec())
    return jax.ShapeDtypeStruct(shape, table.dtype, sharding=sharding)
