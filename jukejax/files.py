"""Write files so that a reader sees the old content or the new, never a part of it.

A temporary file in the same folder is filled, forced to disk and renamed over the target; rename
within a folder is atomic, so a run that is killed at any moment leaves a whole file behind.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PathLike = str | os.PathLike[str]


def _sync(path: Path) -> None:
    """Forces a file's or a folder's content to disk; file systems that cannot sync folders pass."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def put(whole: Path, target: Path) -> None:
    """Forces a file that is whole to disk, and renames it to `target` in the same folder."""
    _sync(whole)
    whole.replace(target)
    _sync(target.parent)


@contextlib.contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it to `path` when the block ends well.

    The temporary name keeps the target's suffix, so writers that choose a format by it work. The
    parent folder is made if absent. When the block raises, the temporary file is removed, `path`
    is left as it was, and the error goes on. Raises FileNotFoundError if the block removed it.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    name = f".{target.stem[:32]}.{secrets.token_hex(6)}.tmp{target.suffix}"
    temporary = target.parent / name
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o777)
        put(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(path: PathLike) -> Iterator[Path]:
    """Yields a new folder beside `path`, which becomes `path` when the block ends well.

    The folder has one name per target, so what a killed run left is cleared by the next. Raises
    OSError where `path` is there and not empty.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.partial"
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
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: PathLike, text: str) -> None:
    """Replaces `path` by `text` (UTF-8, line ends as given) atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: PathLike, value: Any, indent: int | None = 2) -> None:
    """Replaces `path` by `value` as JSON atomically.

    Raises TypeError for what JSON cannot hold and ValueError for NaN or infinity, before anything
    is written.
    """
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


_TEMPORARY = re.compile(r"\..{1,32}\.[0-9a-f]{12}\.tmp.*")  # the names that atomic_path gives


def read_json(path: Path) -> Any:
    """The value in a UTF-8 JSON file, or None where the file is missing or cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Writes one JSON object a line in UTF-8, atomically; returns how many."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        return sum(1 for row in rows if file.write(json.dumps(row, ensure_ascii=False) + "\n"))


def remove_temporaries(folder: Path) -> None:
    """Removes what killed runs left half written in `folder` (`atomic_path`'s names)."""
    for path in folder.glob(".*.tmp*"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def file_size(path: Path) -> int:
    """Bytes of a file, 0 when it went away."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
