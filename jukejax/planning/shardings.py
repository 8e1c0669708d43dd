"""Kept texts of how all arrays of a train step are sharded, one for each preset and mesh.

The folder `shardings` beside the kept plans has one for every preset and mesh of the table: shape
and dtype of each parameter, the mesh axes that split it and its shape on one device, the same of
the rest of the state and of the batch, and the sharding constraints on activations. Nothing is
compiled, and no device is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax.extend.core import Jaxpr, jaxprs_in_params
from jax.sharding import AbstractMesh, AxisType

from jukejax import files
from jukejax.parallel.mesh import AXES, COMPUTE, STORAGE, batch_ways
from jukejax.planning.plans import mesh_sizes
from jukejax.planning.table import ENTRIES, Entry
from jukejax.training.step import abstract_batch, abstract_state
from jukejax.training.tasks import make_task


class Row(NamedTuple):
    """An array and its sharding."""

    path: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    axes: tuple[Any, ...]  # the mesh axes that split each dimension
    shard: tuple[int, ...]  # shape on one device

    def text(self) -> str:
        name = "/".join(self.path)
        return f"  {name:58} {self.dtype:9} {self.shape!s:22} {self.axes!s:32} {self.shard}"


def mesh_of(entry: Entry) -> Any:
    """The mesh of a plan without its devices: an AbstractMesh where a Mesh is expected."""
    chips = math.prod(int(n) for n in entry.topology.split(":")[1].split("x")) * entry.slices
    sizes = mesh_sizes(entry.experiment(), chips)
    return AbstractMesh(
        tuple(sizes[a] for a in AXES), AXES, axis_types=(AxisType.Auto,) * len(AXES)
    )


def entries() -> dict[str, Entry]:
    """One plan of every preset and mesh of more than one device, by the name of its text."""
    by_name: dict[str, Entry] = {}
    for entry in ENTRIES:
        mesh = mesh_of(entry)
        name = f"{entry.preset}-" + "x".join(str(size) for size in mesh.axis_sizes)
        if mesh.size > 1:
            by_name.setdefault(name, entry)
    return by_name


def _rows(tree: Any) -> list[Row]:
    rows = []
    for path, x in jax.tree.leaves_with_path(tree):
        names = tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
        axes = (*x.sharding.spec, *(None,) * (x.ndim - len(x.sharding.spec)))
        rows.append(Row(names, str(x.dtype), x.shape, axes, x.sharding.shard_shape(x.shape)))
    return rows


def _unlike(rows: list[Row], params: list[Row]) -> tuple[list[Row], int]:
    """Rows that repeat no parameter's, and how often the others repeat all parameters."""
    known = set(params)
    rest = [r for r in rows if not any(r._replace(path=r.path[i:]) in known for i in range(4))]
    return rest, (len(rows) - len(rest)) // len(params)


def _constraints(jaxpr: Jaxpr) -> Iterator[str]:
    """The sharding constraints of a traced function, in order."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "sharding_constraint":
            array: Any = equation.outvars[0].aval
            spec = equation.params["sharding"].spec
            where = str(equation.source_info.name_stack)
            yield f"  {where:58} {array.dtype!s:9} {array.shape!s:22} {tuple(spec)}"
        for inner in jaxprs_in_params(equation.params):
            yield from _constraints(inner)


def text(entry: Entry) -> str:
    """The text of a plan's preset and mesh."""
    mesh = mesh_of(entry)
    experiment: Any = replace(entry, batch=batch_ways(mesh), accumulate=1).experiment()
    task = make_task(experiment)
    state = abstract_state(task, experiment, mesh)
    batch = abstract_batch(task, experiment, mesh)

    def loss(params: Any, extra: Any, batch: Any) -> Any:
        with nn.logical_axis_rules(list(COMPUTE)):
            return task.loss(params, extra, batch)[0]

    with jax.sharding.use_abstract_mesh(mesh):
        traced = jax.make_jaxpr(loss)(state.params, state.extra, batch)
    params = _rows(state.params)
    sizes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    lines = [
        f"{entry.preset} on {sizes}, an example for every device",
        "name, dtype, shape, mesh axes that split it, shape on one device",
        "",
        "stored by " + ", ".join(f"{name}: {axis}" for name, axis in STORAGE),
        "computed by " + ", ".join(f"{name}: {axis}" for name, axis in COMPUTE),
        "",
        "params",
        *(row.text() for row in params),
    ]
    for name in ("ema", "opt_state", "extra", "step"):
        rest, times = _unlike(_rows(getattr(state, name)), params)
        if rest or times:
            lines += [name, *(["  as params"] * times), *(row.text() for row in rest)]
    lines += ["batch", *(row.text() for row in _rows(batch))]
    constraints = list(_constraints(traced.jaxpr))
    lines += ["asked of activations (the loss)", *constraints] if constraints else []
    return "\n".join(line.rstrip() for line in lines) + "\n"


def path(folder: Path, name: str) -> Path:
    """The file of the text called `name`, in the folder of the kept plans."""
    return folder / "shardings" / f"{name}.txt"


def regenerate(folder: Path) -> None:
    """Writes the texts of all plans."""
    for name, entry in entries().items():
        files.write_text(path(folder, name), text(entry))
