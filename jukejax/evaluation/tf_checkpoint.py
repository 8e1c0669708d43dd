"""Reads a TensorFlow checkpoint (.index and .data of one shard) with NumPy alone.

The index is an SSTable of LevelDB's format without compression: a footer of 48 bytes points to an
index block, that to data blocks, and these hold keys (each without the prefix that it shares with
the one before) and values, which are BundleEntryProto messages: type, shape, offset, size.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from jukejax.errors import CheckpointError

_MAGIC = 0xDB4775248B80FB57
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}  # of types.proto


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _handle(data: bytes, at: int = 0) -> tuple[int, int, int]:
    """Offset and size of a block, and where the handle ends."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return offset, size, at


def _entries(index: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block."""
    if index[offset + size] != 0:
        raise CheckpointError(
            "The index of a TensorFlow checkpoint is compressed, which is not supported."
        )
    block = index[offset : offset + size]
    end = size - 4 - 4 * int.from_bytes(block[-4:], "little")  # before the restart points
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        rest, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + rest]
        yield key, block[at + rest : at + rest + length]
        at += rest + length


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protocol buffer message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
        else:
            size = 4
            if kind == 2:
                size, at = _varint(message, at)
            yield tag >> 3, message[at : at + size]
            at += size


def _sizes(shape: bytes) -> list[int]:
    """The sizes in a TensorShapeProto; a size of 0 is not written there."""
    dims = (dict(_fields(dim)) for number, dim in _fields(shape) if number == 2)  # type: ignore[arg-type]
    return [int(dim.get(1, 0)) for dim in dims]


def read(index: bytes, data: bytes) -> dict[str, NDArray[np.generic]]:
    """All tensors of numbers in a checkpoint, by name.

    Raises:
      CheckpointError: the files are not a checkpoint of one uncompressed shard, or are cut short.
    """
    if len(index) < 48 or int.from_bytes(index[-8:], "little") != _MAGIC:
        raise CheckpointError("This is not the index of a TensorFlow checkpoint.")
    _, _, at = _handle(index[-48:])
    offset, size, _ = _handle(index[-48:], at)
    tensors: dict[str, NDArray[np.generic]] = {}
    for _, block in _entries(index, offset, size):
        for key, value in _entries(index, *_handle(block)[:2]):
            entry = dict(_fields(value))
            dtype = _DTYPES.get(int(entry.get(1, 0)))
            if not key or dtype is None:  # the header, or strings
                continue
            start, n = int(entry.get(4, 0)), int(entry.get(5, 0))
            shape = _sizes(entry.get(2, b""))  # type: ignore[arg-type]
            if start + n > len(data) or n != int(np.prod(shape)) * np.dtype(dtype).itemsize:
                raise CheckpointError(f"Tensor {key.decode()!r} of a checkpoint is cut short.")
            tensors[key.decode()] = np.frombuffer(data[start : start + n], dtype).reshape(shape)
    return tensors
