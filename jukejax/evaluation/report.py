"""Results of evaluations on disk, and as tables.

A result is `SUITE.json`: what was measured ("result") and all that it was computed from ("source":
fingerprints, steps, digests of the data). The same source gives the same result, so a result whose
source still holds is not computed again.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jukejax import atomic


def code_version() -> str:
    """The installed version of jukejax, or "checkout" where it is run from its source alone."""
    try:
        return importlib.metadata.version("jukejax")
    except importlib.metadata.PackageNotFoundError:
        return "checkout"


def result_path(folder: str | Path, suite: str) -> Path:
    """Where the result of a suite lies."""
    return Path(folder) / f"{suite}.json"


def write_result(
    folder: str | Path, suite: str, source: dict[str, Any], result: dict[str, Any]
) -> Path:
    """Writes `folder`/SUITE.json atomically and returns its path.

    Raises:
      ValueError: a number is NaN or infinite; nothing is written then.
    """
    path = result_path(folder, suite)
    value = {"suite": suite, "version": code_version(), "source": source, "result": result}
    atomic.write_json(path, value)
    return path


def read_result(folder: str | Path, suite: str, source: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a suite if it is there, whole and computed from `source`; else None."""
    try:
        value = json.loads(result_path(folder, suite).read_text(encoding="utf-8"))
        same = value["source"] == json.loads(json.dumps(source))
        return value["result"] if same else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of columns: the first aligned to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        others = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "  ".join((first, *others)).rstrip()

    return "\n".join(line(cells) for cells in (header, *rows))
