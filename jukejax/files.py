"""Atomic writes: a reader sees the old content of a file or the new, never a part of it.

A temporary file in the same folder is written, synced to disk and renamed to the target. Renaming
within a folder is atomic, so a run killed at any moment leaves complete files.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jukejax import locks
from jukejax.errors import DiskFull

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def checked_space(target: PathLike) -> Iterator[None]:
    """Raises DiskFull, which says how much is free, where a library finds no space for `target`."""
    try:
        yield
    except Exception as error:
        free = _free(Path(target))
        if isinstance(error, DiskFull) or not _means_full(error, free):
            raise
        raise DiskFull(
            f"{target} cannot be written: no space is left on its disk ({free / 1e6:,.1f} MB are "
            "free). Free some and run the same command again; all that was complete before is kept."
        ) from error


def _means_full(error: Exception, free: int) -> bool:
    """Whether an error is that of a full disk.

    ArrayRecord raises RuntimeError and Orbax ValueError, with the system's words in their texts;
    libsndfile says "System error" and nothing else. SQLite has words of its own.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    words = [os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "database or disk is full"]
    nearly = free < 1 << 20 and type(error).__name__ == "LibsndfileError"
    return nearly or any(word in str(error) for word in words)


def _free(path: Path) -> int:
    """Free bytes on the disk of a file or folder, which may not exist yet."""
    parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(parent).free


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
def atomic_path(path: PathLike) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; renames it to `path` after the block.

    The temporary name has the target's suffix, for writers that choose a format by it. The parent
    folder is made if absent. If the block raises, the temporary file is removed and `path` is
    unchanged. Raises FileNotFoundError if the block removed the file, and DiskFull.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    name = f".{target.stem[:32]}.{secrets.token_hex(6)}.tmp{target.suffix}"
    temporary = target.parent / name
    temporary.touch(exist_ok=False)
    try:
        with checked_space(target):
            yield temporary
            if target.exists():
                temporary.chmod(target.stat().st_mode & 0o777)
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
            with checked_space(target):
                yield partial
            partial.replace(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _sync(target.parent)


def write_bytes(path: PathLike, data: bytes) -> None:
    """Replaces `path` by `data` atomically."""
    with atomic_path(path) as temporary:
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


_TEMPORARY = re.compile(r"\..{1,32}\.[0-9a-f]{12}\.tmp.*")  # the names that atomic_path gives


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


def remove_temporaries(folder: Path) -> None:
    """Removes temporary files that killed runs left in `folder` (by `atomic_path`'s names)."""
    for path in folder.glob(".*.tmp*"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def file_size(path: Path) -> int:
    """Bytes of a file; 0 if it does not exist."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
