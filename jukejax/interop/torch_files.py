"""PyTorch's checkpoint files, in both formats, without PyTorch; tensors are read one by one.

The legacy format (PyTorch < 1.6) is five pickles (a magic number, a version, a description of the
machine, the object, the storages' keys) and then the storages, each after its length. The zip
format is an uncompressed archive of `data.pkl` and one member `data/KEY` a storage.
"""

from __future__ import annotations

import hashlib
import io
import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.stride_tricks import as_strided
from tqdm import tqdm

from jukejax import files
from jukejax.errors import InteropError
from jukejax.interop import pickles
from jukejax.interop.pickles import Storage, TensorRecord
from jukejax.interop.tensors import Checkpoint, Source

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_BUFFER = 1 << 20  # bytes read at once
_PICKLE_LIMIT = 64 << 20  # bytes; the published files have under 1 MiB


@dataclass(frozen=True)
class TorchTensor:
    """A tensor in a file of PyTorch's."""

    path: Path
    record: TensorRecord
    start: int  # byte in the file where its storage begins

    @property
    def shape(self) -> tuple[int, ...]:
        return self.record.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.record.storage.dtype)

    def read(self) -> np.ndarray[Any, Any]:
        """Its numbers, copied out of the file."""
        record = self.record
        if not math.prod(record.shape):
            return np.zeros(record.shape, self.dtype)
        shape = (record.storage.numel - record.offset,)
        start = self.start + record.offset * self.dtype.itemsize
        flat = np.memmap(self.path, self.dtype, "r", start, shape)
        steps = [s * self.dtype.itemsize for s in record.strides]
        return np.array(as_strided(flat, record.shape, steps))


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: str | Path) -> Checkpoint:
    """Opens a checkpoint; a prefix `module.` of all names is removed.

    Raises:
      InteropError: it is damaged, or has more than tensors and settings.
    """
    path = Path(path)
    with open(path, "rb") as file:
        if path.stat().st_size < 16:
            raise InteropError(f"{path} is too short to be a checkpoint; download it again.")
        zipped = file.read(4) == b"PK\x03\x04"
        value, starts = _read_zip(path, file) if zipped else _read_legacy(path, file)
    model = value.get("model", value) if isinstance(value, dict) else None
    if not isinstance(model, dict) or not all(isinstance(v, TensorRecord) for v in model.values()):
        raise InteropError(
            f"{path} has no dictionary of tensors (under 'model'); name a checkpoint of Jukebox, "
            "such as vqvae.pth.tar or prior_level_2.pth.tar."
        )
    for name, record in model.items():
        if not isinstance(name, str) or record.storage not in starts:
            raise InteropError(f"{path}: {name!r} refers to a storage that the file lacks.")
    prefix = "module." if model and all(name.startswith("module.") for name in model) else ""
    tensors = {
        name.removeprefix(prefix): TorchTensor(path, record, starts[record.storage])
        for name, record in model.items()
    }
    step = value.get("step", 0)
    return Checkpoint(path, tensors, _settings(value), step if type(step) is int else 0)


def _settings(value: dict[str, Any]) -> dict[str, Any] | None:
    """The file's `hps`: plain values and flat tuples of them; what is nested deeper is left out."""
    hps = value.get("hps")
    if not isinstance(hps, dict):
        return None
    plain = (str, int, float, bool, type(None))

    def flat(v: Any) -> bool:
        return isinstance(v, plain) or (
            isinstance(v, (tuple, list)) and all(isinstance(x, plain) for x in v)
        )

    return {k: v for k, v in hps.items() if isinstance(k, str) and flat(v)}


def _read_legacy(path: Path, file: BinaryIO) -> tuple[Any, dict[Storage, int]]:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        where = str(path)
        if pickles.read(data, where) != _MAGIC or pickles.read(data, where) != _VERSION:
            raise InteropError(f"{path} is no PyTorch checkpoint; name another file.")
        machine = pickles.read(data, where)
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise InteropError(f"{path} was not written on a little-endian machine.")
        storages: dict[str, Storage] = {}
        value = pickles.read(data, where, storages)
        keys = pickles.read(data, where)
        named = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
        if not named or sorted(keys) != sorted(storages):
            raise InteropError(f"{path}: the list of its storages does not match its tensors.")
        starts, at = {}, data.tell()
        for key in keys:
            storage = storages[key]
            end = at + 8 + storage.numel * np.dtype(storage.dtype).itemsize
            length = data[at : at + 8]
            if end > len(data):
                raise InteropError(
                    f"{path} is cut short: it has {len(data)} bytes, but storage {key!r} ends at "
                    f"byte {end}. Download it again and compare its SHA-256."
                )
            if struct.unpack("<q", length)[0] != storage.numel:
                raise InteropError(
                    f"{path}: storage {key!r} claims {storage.numel} numbers, its data "
                    f"{struct.unpack('<q', length)[0]}. Download the file again."
                )
            starts[storage] = at + 8
            at = end
        return value, starts


def _read_zip(path: Path, file: BinaryIO) -> tuple[Any, dict[Storage, int]]:
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if sum(info.file_size for info in members.values()) > size:
                raise InteropError(
                    f"{path} says it unpacks to more than its own {size} bytes; a PyTorch file is "
                    "not compressed, so this is not one. Do not use it."
                )
            pickle = [
                name for name in members if name.count("/") == 1 and name.endswith("data.pkl")
            ]
            if len(pickle) != 1 or members[pickle[0]].file_size > _PICKLE_LIMIT:
                raise InteropError(f"{path} is a zip file, but not one of PyTorch's.")
            root = pickle[0].removesuffix("data.pkl")
            order = members.get(root + "byteorder")
            if order and (order.file_size > 8 or _member(path, file, order) != b"little"):
                raise InteropError(f"{path} was not written on a little-endian machine.")
            storages: dict[str, Storage] = {}
            stream = io.BytesIO(_member(path, file, members[pickle[0]]))
            value = pickles.read(stream, str(path), storages)
            starts = {}
            for key, storage in storages.items():
                info = members.get(f"{root}data/{key}")
                wanted = storage.numel * np.dtype(storage.dtype).itemsize
                if info is None or info.file_size != wanted:
                    raise InteropError(
                        f"{path}: storage {key!r} should have {wanted} bytes, but has "
                        f"{info.file_size if info else 'none'}. Download the file again."
                    )
                starts[storage] = _start(path, file, info)
            return value, starts
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, EOFError) as error:
        if isinstance(error, InteropError):
            raise
        raise InteropError(
            f"{path} is cut short or damaged ({error}); download it again and compare its SHA-256."
        ) from error


def _start(path: Path, file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """The byte where a member's data begins.

    Members must be uncompressed, and their data must fit their checksum.
    """
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise InteropError(
            f"{path}: {info.filename} is compressed, which PyTorch never does; do not use the file."
        )
    if info.header_offset < 0:  # a directory that places members before the file's beginning
        raise InteropError(f"{path}: {info.filename} is outside the file. Download the file again.")
    file.seek(info.header_offset)
    header = file.read(30)
    name, extra = struct.unpack("<HH", header[26:30])
    start = info.header_offset + 30 + name + extra
    if header[:4] != b"PK\x03\x04" or start + info.file_size > path.stat().st_size:
        raise InteropError(f"{path}: {info.filename} is outside the file. Download the file again.")
    file.seek(start)
    crc, left = 0, info.file_size
    while left and (part := file.read(min(_BUFFER, left))):
        crc, left = zlib.crc32(part, crc), left - len(part)
    if crc != info.CRC:
        raise InteropError(
            f"{path} is damaged: the checksum of {info.filename} differs. Download the file again."
        )
    return start


def _member(path: Path, file: BinaryIO, info: zipfile.ZipInfo) -> bytes:
    file.seek(_start(path, file, info))
    return file.read(info.file_size)


# --- writing --------------------------------------------------------------------------------------


def write(
    path: str | Path,
    tensors: Mapping[str, Source],
    shared: Mapping[str, str],
    hps: dict[str, Any] | None,
    step: int,
) -> None:
    """Writes a checkpoint in the zip format, one tensor in memory at a time.

    Args:
      tensors: by name.
      shared: names that are the same tensor as another.
      hps: settings; None writes none.
    """
    records = {
        name: TensorRecord(
            Storage(str(i), source.dtype, math.prod(source.shape)), 0, source.shape,
            _row_major(source.shape),
        )
        for i, (name, source) in enumerate(tensors.items())
    }  # fmt: skip
    model = records | {name: records[other] for name, other in shared.items()}
    value = {"model": model, "opt": None, "step": step} | ({"hps": hps} if hps is not None else {})
    size = sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in tensors.values())
    with (
        files.atomic_path(path, size) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        # Members made from a ZipInfo have no time of writing: equal models are equal files.
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), pickles.write(value))
        archive.writestr(zipfile.ZipInfo("archive/byteorder"), "little")
        for name, record in tqdm(records.items(), desc=f"write {Path(path).name}", unit="tensor"):
            array = tensors[name].array(name)
            member = zipfile.ZipInfo(f"archive/data/{record.storage.key}")
            with archive.open(member, "w", force_zip64=True) as out:
                out.write(array.reshape(-1).view(np.uint8).data)
        archive.writestr(zipfile.ZipInfo("archive/version"), "3\n")


def _row_major(shape: Iterable[int]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for n in reversed(tuple(shape)):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))
