"""Digests of a checkpoint's files, written with it and compared before each restore.

Orbax's format has no checksum of the arrays themselves, so a bit that a disk or a copy turned would
be read as a weight. `digests.json` in the folder of a step has, for each file of each item (params,
ema, config...), its size and the CRC-32 of each piece of 64 MiB: a CRC finds every single turned
bit, and pieces let all cores share one large file. A checkpoint of an earlier version of jukejax
has no such file and is not checked. Several processes each read a share of the pieces. The CRC-32
is that of zlib; ISA-L computes it three times as fast, since a restore waits for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from isal import isal_zlib
from jax.experimental import multihost_utils

from jukejax import files

NAME = "digests.json"
SKIP = "JUKEJAX_SKIP_DIGESTS"  # environment variable: anything but "" skips the comparison
PIECE = 64 << 20  # bytes
_BUFFER = 1 << 20  # bytes read at once: small enough for a core's cache


class Piece(NamedTuple):
    """A part of a file: its path below the step's folder, where it begins, and its CRC-32."""

    file: str
    start: int
    crc: int


def write_digests(step_folder: Path) -> None:
    """Writes `digests.json` of all items in the folder of a step."""
    names = sorted(
        path.relative_to(step_folder).as_posix()
        for item in step_folder.iterdir()
        if item.is_dir()
        for path in item.rglob("*")
        if path.is_file()
    )
    sizes = {name: (step_folder / name).stat().st_size for name in names}
    pieces = [(name, start) for name in names for start in range(0, sizes[name], PIECE)]
    crcs = _in_threads(lambda piece: _crc(step_folder / piece[0], piece[1]), pieces)
    value: dict[str, Any] = {name: {"bytes": sizes[name], "crc32": []} for name in names}
    for (name, _), crc in zip(pieces, crcs, strict=True):
        value[name]["crc32"].append(crc)
    files.write_json(step_folder / NAME, value, indent=None)


def damage(step_folder: Path, items: Iterable[str], shared: bool = True) -> str:
    """What is not as it was saved in items of a checkpoint: "" if nothing is.

    With several processes all of them must call it, each reads a share, and all get the same
    answer; if not `shared`, a process reads all pieces alone.
    """
    if os.environ.get(SKIP) or not (step_folder / NAME).exists():
        return ""
    try:
        value = files.read_json(step_folder / NAME)
        kept = {f: v for f, v in value.items() if f.split("/")[0] in set(items)}
        sizes = {f: int(v["bytes"]) for f, v in kept.items()}
        pieces = [
            Piece(f, k * PIECE, crc) for f, v in kept.items() for k, crc in enumerate(v["crc32"])
        ]
        complete = all(len(v["crc32"]) == -(-sizes[f] // PIECE) for f, v in kept.items())
    except (AttributeError, KeyError, TypeError, ValueError):
        complete = False
    if not complete:
        return f"{NAME} is not readable"
    for name, size in sizes.items():
        if not (step_folder / name).is_file():
            return f"{name} is missing"
        if (actual := files.file_size(step_folder / name)) != size:
            return f"{name} has {actual} bytes and was saved with {size}"
    processes = jax.process_count() if shared else 1
    wrong = _first_wrong(step_folder, pieces, processes)
    return "" if wrong < 0 else f"the bytes of {pieces[wrong].file} are not those that were saved"


def _first_wrong(step_folder: Path, pieces: list[Piece], processes: int) -> int:
    """The index of the first piece whose CRC differs, in any process; -1 if there is none."""
    share = range(jax.process_index() % processes, len(pieces), processes)
    crcs = _in_threads(lambda k: _crc(step_folder / pieces[k].file, pieces[k].start), share)
    wrong = [k for k, crc in zip(share, crcs, strict=True) if crc != pieces[k].crc]
    first = min(wrong, default=len(pieces))
    if processes > 1:
        first = int(np.min(multihost_utils.process_allgather(np.int32(first))))
    return first if first < len(pieces) else -1


def _crc(path: Path, start: int) -> int:
    """The CRC-32 of the piece of a file that begins at byte `start`."""
    crc, left, buffer = 0, PIECE, memoryview(bytearray(_BUFFER))
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while left > 0 and (size := file.readinto(buffer[: min(_BUFFER, left)])):
            crc, left = isal_zlib.crc32(buffer[:size], crc), left - size
    return crc


def _in_threads(function: Any, values: Iterable[Any]) -> list[Any]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, values))
