"""Small JSON files, written atomically, and what killed runs leave behind."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jukejax.atomic import atomic_path, write_json, write_text

__all__ = [
    "atomic_path",
    "file_size",
    "read_json",
    "remove_temporaries",
    "write_json",
    "write_json_lines",
    "write_text",
]

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
