"""Starts a prior from weights with smaller tables of label names, a renderer from it alone.

A name keeps its row. A new row of a table starts as a copy of that of "unknown" (row 0); a table
that was missing starts as zeros, which add nothing. So the logits for names that the old model knew
do not change by a bit.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from jukejax.models.lora import LABELS, TABLES
from jukejax.training.adversarial import DISCRIMINATORS
from jukejax.training.checkpoint import Checkpoints
from jukejax.training.packed import Packed


def restore_grown(checkpoints: Checkpoints | Packed, abstract: dict[str, Any]) -> dict[str, Any]:
    """`Checkpoints.restore`, but stored tables of label names may be smaller or missing.

    Discriminators that are not stored are left out of the result.

    Args:
      checkpoints: of the other run.
      abstract: shapes and shardings of the trees to return.

    Raises:
      CheckpointError: anything else does not fit.
    """
    if DISCRIMINATORS in abstract["ema"] and DISCRIMINATORS not in checkpoints.ema_shapes():
        ema = {name: x for name, x in abstract["ema"].items() if name != DISCRIMINATORS}
        return checkpoints.restore(abstract | {"ema": ema})
    labels = abstract["ema"].get(LABELS)
    if labels is None:
        return checkpoints.restore(abstract)
    stored = checkpoints.ema_shapes().get(LABELS, {})
    wanted = {name: table for name, table in labels.items() if name in TABLES}
    grown = {n: t for n, t in wanted.items() if n not in stored or stored[n][0] < t.shape[0]}
    old = {
        n: _replicated(t, stored[n]) if n in grown else t for n, t in labels.items() if n in stored
    }
    trees = checkpoints.restore(abstract | {"ema": abstract["ema"] | {LABELS: old}})
    tables = trees["ema"][LABELS]
    for name, table in grown.items():
        small = tables.get(name, jnp.zeros((0, table.shape[1]), table.dtype))
        resize = jax.jit(grow, static_argnums=1, out_shardings=table.sharding)
        tables[name] = resize(small, table.shape[0])
    return trees


def grow(table: jax.Array, rows: int) -> jax.Array:
    """A table (n, W) grown to `rows` rows with copies of its first row, or zeros if it has none."""
    first = table[:1] if len(table) else jnp.zeros((1, table.shape[1]), table.dtype)
    new = jnp.broadcast_to(first, (rows - len(table), table.shape[1]))
    return jnp.concatenate([table, new])


def _replicated(table: Any, shape: tuple[int, ...]) -> Any:
    """A stored table on every device: its rows may not divide by the mesh axes."""
    sharding = NamedSharding(table.sharding.mesh, PartitionSpec())
    return jax.ShapeDtypeStruct(shape, table.dtype, sharding=sharding)
