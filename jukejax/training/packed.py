"""The averaged weights of a run in one safetensors file, read wherever a run's checkpoints are.

The arrays are those of `ema` and `extra`, named by their paths ("ema/stack/run_0/..."); the header
has the config of the checkpoint and its step. The `model.json` beside the file has the SHA-256 of
all files of a packed model, and a file is compared with it before anything is read.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jukejax import files, stored
from jukejax.errors import CheckpointError, DamagedCheckpoint
from jukejax.training import digests

MODEL = "model.json"
FILES = "files"  # its field with the SHA-256 of each file
SUFFIX = ".safetensors"
_CONFIG = "jukejax"  # the header's field; one alone: their order in a file is not fixed
_COPY = "copy the model again."

Array = np.ndarray[Any, Any]
LeafPath = tuple[str, ...]  # keys from the root of a tree to a leaf


def write(path: Path, trees: Mapping[str, Any], config: dict[str, Any], dtype: str) -> None:
    """Writes trees of arrays, their floats stored in `dtype`, and the config with its step."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(trees)
    arrays = {}
    for keys, leaf in leaves:
        array = np.asarray(jax.device_get(leaf))
        kind = dtype if np.issubdtype(array.dtype, np.floating) else array.dtype
        arrays[_name(keys)] = np.array(array, kind, order="C")
    header = {_CONFIG: json.dumps(config)}
    with files.atomic_path(path, sum(x.nbytes for x in arrays.values())) as temporary:
        save_file(arrays, temporary, header)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(path: Path, index: Path | None = None) -> None:
    """Compares a file with its SHA-256 in `index`: by default the `model.json` beside it.

    Raises:
      DamagedCheckpoint: they differ, or there is no such file.
      DataError: the index is damaged.
    """
    index = index or path.parent / MODEL
    try:
        value = stored.read_object(index, {FILES: dict}, _COPY)
        state = path.stat()
    except FileNotFoundError as error:
        raise DamagedCheckpoint(
            f"{path} is part of a packed model, but there is no {error.filename}; {_COPY}"
        ) from None
    known = _known_sha256(path, state.st_size, state.st_mtime_ns)
    if not os.environ.get(digests.SKIP) and known != value[FILES].get(path.name):
        raise DamagedCheckpoint(f"{path} is damaged: its SHA-256 is not that in {index}; {_COPY}")


@functools.lru_cache(maxsize=64)
def _known_sha256(path: Path, size: int, changed: int) -> str:
    """`sha256`, once for a file that does not change: a command opens it several times."""
    return sha256(path)


class Packed:
    """The weights in a file of a packed model, read as `Checkpoints` are. A context manager."""

    def __init__(self, path: str | Path, index: Path | None = None) -> None:
        """Opens a file, whose SHA-256 is in `index` (see `check_file`).

        Raises:
          DamagedCheckpoint: it is damaged.
        """
        self.path = Path(path)
        check_file(self.path, index)
        try:
            self._file = safe_open(self.path, framework="np")
            self._config = dict(stored.parse(self._file.metadata()[_CONFIG]))
            self.latest = int(self._config.pop("step"))
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise DamagedCheckpoint(
                f"{self.path} is damaged or not of a packed model ({error}); {_COPY}"
            ) from error
        self._names = set(self._file.keys())

    def config(self) -> dict[str, Any]:
        """The config that was saved."""
        return dict(self._config)

    def restore(self, abstract: dict[str, Any]) -> dict[str, Any]:
        """The trees named in `abstract`, each with the shapes, dtypes and shardings it gives.

        Raises:
          CheckpointError: the file has other shapes or names.
        """
        return jax.tree_util.tree_map_with_path(self._restore, abstract)

    def _restore(self, keys: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        array = self._read(_name(keys))
        if array.shape != leaf.shape:
            raise CheckpointError(
                f"{self.path} does not fit this model ({_name(keys)} has shape {array.shape}, not "
                f"{leaf.shape})."
            )
        array = array.astype(leaf.dtype)
        assert leaf.sharding is not None
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: array[index])

    def _read(self, name: str) -> Array:
        if name not in self._names:
            raise CheckpointError(f"{self.path} does not fit this model (it has no {name}).")
        return self._file.get_tensor(name)

    def ema_shapes(self) -> dict[str, Any]:
        """The tree of shapes of `ema`."""
        return self._tree("ema", lambda name: tuple(self._file.get_slice(name).get_shape()))

    def _tree(self, root: str, value: Callable[[str], Any]) -> dict[str, Any]:
        """The tree of dicts of the arrays below `root`, with a value by the name of each."""
        tree: dict[str, Any] = {}
        for name in self._names:
            first, *parents, last = name.split("/")
            if first == root:
                branch = functools.reduce(lambda t, part: t.setdefault(part, {}), parents, tree)
                branch[last] = value(name)
        return tree

    @contextlib.contextmanager
    def ema_reader(self) -> Iterator[Callable[[Sequence[LeafPath]], list[Array]]]:
        """As `Checkpoints.ema_reader`: a function that reads arrays of `ema`, as float32."""

        def read(paths: Sequence[LeafPath]) -> list[Array]:
            return [self._read("/".join(("ema", *path))).astype(np.float32) for path in paths]

        yield read

    def __enter__(self) -> Packed:
        return self

    def __exit__(self, *_: object) -> None:
        del self._file


def _name(keys: Any) -> str:
    """The path of a leaf as a name: "ema/token", "extra/books/0/codes"."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")
