"""Tensors that stay in their file until they are read, in any file format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]


class Tensor(Protocol):
    """A tensor in a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def read(self) -> Array:
        """Its numbers, copied out of the file."""


@dataclass(frozen=True)
class Checkpoint:
    """One model's tensors by OpenAI's names and, where the file says so, settings and step."""

    path: Path
    tensors: Mapping[str, Tensor]
    hps: dict[str, Any] | None
    step: int


@dataclass(frozen=True)
class Source:
    """A tensor to write; `read` gives its numbers when they are needed."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Array]

    def array(self, name: str) -> Array:
        """Its numbers, checked, contiguous and little-endian."""
        array = np.asarray(self.read(), np.dtype(self.dtype))
        assert array.shape == self.shape, f"{name} has shape {array.shape}, expected {self.shape}"
        return np.ascontiguousarray(array)
