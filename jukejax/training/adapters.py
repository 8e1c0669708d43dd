"""Adapters of a prior (`jukejax.models.lora`) in a file of their own, read as the merged prior.

`adapter.safetensors` has the averaged adapters alone, in the format of `jukejax.training.packed`,
and a digest of the weights that they change; `adapter.json` beside it says where those are (a run,
or a file of a packed model) and has the SHA-256 of the file. What reads a run reads such a file
too, and gets the weights with the adapters merged into them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jukejax import files, stored
from jukejax.config import PriorExperiment, to_dict
from jukejax.errors import CheckpointError
from jukejax.models import lora
from jukejax.training import digests, packed
from jukejax.training.checkpoint import Checkpoints, LeafPath, at, open_existing
from jukejax.training.growing import restore_grown
from jukejax.training.packed import Array, Packed

NAME, PLACE = "adapter.safetensors", "adapter.json"
BASE, DIGEST = "base", "base_sha256"
_LORA = "lora"  # the tree of the file
_TOGETHER = 4  # arrays that are read at once: each read costs a tenth of a second
_COPY = "copy the adapter's folder again."


def write(folder: Path, base: Path, experiment: PriorExperiment, ema: Any, note: Any) -> None:
    """Writes the files of trained adapters to `folder`, those of the rank in the experiment.

    Args:
      base: the run whose weights they change.
      ema: the averaged adapters.
      note: of the run's checkpoints, with its step.
    """
    merged = {"experiment": to_dict(replace(experiment, lora=0)), **note}
    with open_existing(base) as weights:
        merged[DIGEST] = digest(weights)
    packed.write(folder / NAME, {_LORA: ema}, merged, "float32")
    place = os.path.relpath(base.resolve(), folder.resolve())
    value = {BASE: place, packed.FILES: {NAME: packed.sha256(folder / NAME)}}
    files.write_json(folder / PLACE, value)


def digest(weights: Checkpoints | Packed) -> str:
    """The SHA-256 of the averaged weights of a run, as float32."""
    hashed = hashlib.sha256()
    paths = sorted(_paths(weights.ema_shapes()))
    with weights.ema_reader() as read:
        for first in range(0, len(paths), _TOGETHER):
            some = paths[first : first + _TOGETHER]
            for path, array in zip(some, read(some), strict=True):
                hashed.update("/".join(path).encode())
                hashed.update(np.ascontiguousarray(array, np.float32).data)
    return hashed.hexdigest()


def _paths(tree: Any) -> Iterator[tuple[str, ...]]:
    for name, x in tree.items():
        yield from ((name, *rest) for rest in _paths(x)) if isinstance(x, dict) else [(name,)]


class Adapter(Packed):
    """A prior with adapters merged into its weights, read as `Checkpoints` are."""

    def __init__(self, path: str | Path) -> None:
        """Opens `adapter.safetensors`, and finds the weights that it changes.

        Raises:
          DamagedCheckpoint: it is damaged. When weights are read, CheckpointError: those that it
            changes are missing, or others.
        """
        place = Path(path).with_name(PLACE)
        super().__init__(path, index=place)
        value = stored.read_object(place, {BASE: str}, _COPY)
        self.base, self.place = place.parent / value[BASE], place
        self._digest = self._config.pop(DIGEST, None)

    @contextlib.contextmanager
    def _weights(self) -> Iterator[Checkpoints | Packed]:
        """The weights that are changed, after comparing them with their digest."""
        try:
            weights = open_existing(self.base)
        except CheckpointError as error:
            raise CheckpointError(
                f"{self.path} changes the weights of a run that cannot be read: {error} Where it "
                f"has moved, correct its path in {self.place}."
            ) from error
        with weights:
            if not os.environ.get(digests.SKIP) and digest(weights) != self._digest:
                raise CheckpointError(
                    f"{self.path} changes other weights than those in {self.base}; name the run "
                    f"that it was trained from in {self.place}."
                )
            yield weights

    @functools.cached_property
    def _adapters(self) -> Any:
        """The tree of adapters, on the host."""
        return self._tree(_LORA, self._read)

    def restore(self, abstract: dict[str, Any]) -> dict[str, Any]:
        """As `Packed.restore`: "ema" of the merged prior."""
        with self._weights() as weights:
            trees = restore_grown(weights, {"extra": {}, **abstract})
        shardings = jax.tree.map(lambda x: x.sharding, abstract["ema"])
        merge = jax.jit(lora.into, out_shardings=shardings, donate_argnums=0)
        return trees | {"ema": merge(trees["ema"], self._adapters)}

    def ema_shapes(self) -> dict[str, Any]:
        """The tree of shapes of the merged weights."""
        with self._weights() as weights:
            shapes = weights.ema_shapes()
        tables = {name: x.shape for name, x in self._adapters.get(lora.LABELS, {}).items()}
        return shapes | ({lora.LABELS: shapes[lora.LABELS] | tables} if tables else {})

    @contextlib.contextmanager
    def ema_reader(self) -> Iterator[Callable[[Sequence[LeafPath]], list[Array]]]:
        """As `Checkpoints.ema_reader`, of the merged weights."""

        def merged(path: LeafPath, array: Array) -> Array:
            with contextlib.suppress(KeyError, TypeError):
                adapter = at(self._adapters, path[:-1])
                if path[-1] == "kernel":
                    return np.asarray(lora.add(jnp.asarray(array), adapter))
                if path[0] == lora.LABELS:
                    return adapter[path[-1]]
            return array

        with self._weights() as weights, weights.ema_reader() as read:
            yield lambda paths: [merged(*pair) for pair in zip(paths, read(paths), strict=True)]
