"""Atomic writes: a reader sees the old content of a file or the new, never a part of it.

A temporary file in the same folder is written, synced to disk and renamed to the target. Renaming
within a folder is atomic, so a run killed at any moment leaves complete files.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jukejax import locks, temporaries
from jukejax.disk_space import PathLike, checked_space


def _sync(path: Path) -> None:
    """Syncs a file or a folder to disk; file systems that cannot sync folders are accepted."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def put(written: Path, target: Path) -> None:
    """Syncs a complete file to disk and renames it to `target` in the same folder."""
    _sync(written)
    written.replace(target)
    _sync(target.parent)


@contextlib.contextmanager
def atomic_path(path: PathLike, needed: int = 0) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; renames it to `path` after the block.

    The temporary name has the target's suffix, for writers that choose a format by it. The parent
    folder is made if absent. If the block raises, the temporary file is removed and `path` is
    unchanged.

    Args:
      needed: bytes of the file, for the sentence of DiskFull; 0: not known.

    Raises:
      DiskFull: there is no space for it.
      FileNotFoundError: the block removed the file.
    """
    target = Path(path)
    temporary = temporaries.temporary(target)
    with checked_space(target, needed):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        try:
            yield temporary
            if target.exists():
                mode = target.stat().st_mode
            temporary.chmod(mode & 0o777)  # some libraries write files for their owner alone
            put(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def atomic_folder(path: PathLike) -> Iterator[Path]:
    """Yields a new folder in the folder of `path`; renames it to `path` after the block.

    Its name depends on the target alone, so the next run removes that of a killed one. Raises
    OSError if `path` exists and is not empty, and FolderInUse if another process writes it.
    """
    target = Path(path)
    partial = target.parent / f".{target.name}.partial"
    with locks.replacing(target):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            partial.replace(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _sync(target.parent)


def write_bytes(path: PathLike, data: bytes) -> None:
    """Replaces `path` by `data` atomically."""
    with atomic_path(path, len(data)) as temporary:
        temporary.write_bytes(data)


def write_text(path: PathLike, text: str) -> None:
    """Replaces `path` by `text` (UTF-8, line ends as given) atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: PathLike, value: Any, indent: int | None = 2) -> None:
    """Replaces `path` by `value` as JSON atomically.

    Raises TypeError for values that are not JSON and ValueError for NaN or infinity, before
    anything is written.
    """
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value of a UTF-8 JSON file; None if the file is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Writes a JSON object a line in UTF-8, atomically; returns their number."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        return sum(1 for row in rows if file.write(json.dumps(row, ensure_ascii=False) + "\n"))


def file_size(path: Path) -> int:
    """Bytes of a file; 0 if it does not exist."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
