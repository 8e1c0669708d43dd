"""Files of the safetensors format: read by the library of that name, written tensor by tensor.

A file is the length of a header (8 bytes), the header (JSON: dtype, shape and place of each
tensor) and the numbers. The library checks a header against its file, but cannot write a model
that does not fit in memory; `write` can.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from jukejax import files
from jukejax.errors import InteropError
from jukejax.interop.tensors import Array, Source

_DTYPES = {"F32": "<f4", "F16": "<f2"}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class SafeTensor:
    """A tensor in an open file."""

    file: Any
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self) -> Array:
        """Its numbers, copied out of the file."""
        return self.file.get_tensor(self.name)


def read(path: str | Path) -> dict[str, SafeTensor]:
    """The tensors of a file by name; the file stays mapped while one of them lives.

    Raises:
      InteropError: it is damaged, or has numbers that are neither float32 nor float16.
    """
    try:
        file = safe_open(path, framework="np")
    except SafetensorError as error:
        raise InteropError(
            f"{path} is cut short or damaged ({error}); download it again and compare its SHA-256."
        ) from error
    tensors = {}
    for name in file.keys():  # noqa: SIM118 (a file is no dictionary)
        tensor = file.get_slice(name)
        code = tensor.get_dtype()
        if code not in _DTYPES:
            raise InteropError(
                f"{path}: {name} is stored as {code}; only F32 and F16 can be imported. "
                "Save the model in one of these."
            )
        shape = tuple(tensor.get_shape())
        tensors[name] = SafeTensor(file, name, shape, np.dtype(_DTYPES[code]))
    return tensors


def write(path: str | Path, tensors: Mapping[str, Source]) -> None:
    """Writes a file in the order given, one tensor in memory at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, source in tensors.items():
        start, end = end, end + math.prod(source.shape) * np.dtype(source.dtype).itemsize
        header[name] = {
            "dtype": _CODES[source.dtype],
            "shape": source.shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with files.atomic_path(path, end) as temporary, open(temporary, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, source in tqdm(tensors.items(), desc=f"write {Path(path).name}", unit="tensor"):
            out.write(source.array(name).reshape(-1).view(np.uint8).data)
