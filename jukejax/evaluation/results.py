"""Results of suites on disk, and the tables, figures and scores that show them.

A result is `SUITE.json`: the measurements ("result"), all that they were computed from ("source":
fingerprints, runs, steps, digests of the data), and the time and memory it took ("cost"). The same
source gives the same result, so it is not computed again for the same source.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jukejax import code_version, files
from jukejax.formatting import table


def spread(interval: Sequence[float] | None, digits: int = 3) -> str:
    """An interval in brackets, or a dash."""
    return "–" if interval is None else f"[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


Columns = Mapping[str, str | Callable[[Any], str]]  # header -> format of a row's keys, or function


class Table(NamedTuple):
    """A table of a report: the first column is aligned to the left, the others to the right."""

    title: str  # what the numbers are, and which direction is good
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    @classmethod
    def of(cls, title: str, columns: Columns, rows: Iterable[Any]) -> Table:
        """A table of rows that are mappings.

        Args:
          columns: by header, what a cell holds: a format string of the row's keys ("{used:.1%}"),
            or a function of the row.
        """

        def cell(row: Any, column: str | Callable[[Any], str]) -> str:
            if callable(column):
                return column(row)
            return column.format(**row).replace("%", " %")

        return cls(title, [*columns], [[cell(row, c) for c in columns.values()] for row in rows])

    def __str__(self) -> str:
        return f"{self.title}\n{table(self.header, self.rows)}"


class Figure(NamedTuple):
    """A picture of a report."""

    title: str
    caption: str  # what the picture shows, and which direction is good
    image: bytes  # PNG, or SVG from its `<svg` or `<?xml` on


class Score(NamedTuple):
    """One number of a result that can be compared with the same number of another model."""

    name: str  # "level 2: bits per token"
    value: float
    better: str  # "lower", "higher", or "" for neither
    by_song: Mapping[str, tuple[float, float]] | None = None  # id -> (value, weight)
    interval: tuple[float, float] | None = None  # 95 %, for scores without figures by song


def result_path(folder: str | Path, suite: str) -> Path:
    """The file of a suite's result."""
    return Path(folder) / f"{suite}.json"


def write_result(
    folder: str | Path,
    suite: str,
    source: dict[str, Any],
    result: dict[str, Any],
    cost: dict[str, Any] | None = None,
) -> Path:
    """Writes `folder`/SUITE.json atomically and returns its path.

    Raises:
      ValueError: a number is NaN or infinite; nothing is written then.
    """
    path = result_path(folder, suite)
    value = {"suite": suite, "version": code_version.version(), "source": source, "result": result}
    files.write_json(path, value | {"cost": cost or {}})
    return path


def read_record(folder: str | Path, suite: str) -> dict[str, Any] | None:
    """All that `write_result` wrote, or None where no file can be read."""
    try:
        value = json.loads(result_path(folder, suite).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    valid = isinstance(value, dict) and {"source", "result"} <= value.keys()
    return {"cost": {}, **value} if valid else None


def read_result(folder: str | Path, suite: str, source: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a suite if there is one that was computed from `source`; else None."""
    record = read_record(folder, suite)
    if record is None or record["source"] != json.loads(json.dumps(source)):
        return None
    return record["result"]


class Journal:
    """Parts of an unfinished result, for the same source: `.SUITE.partial.json`."""

    def __init__(
        self, folder: str | Path, suite: str, source: dict[str, Any], write: bool = True
    ) -> None:
        self.write = write  # in one of several processes
        self.path = Path(folder) / f".{suite}.partial.json"
        self.source = json.loads(json.dumps(source))
        self.parts: dict[str, Any] = {}
        try:
            saved = json.loads(self.path.read_text(encoding="utf-8"))
            if saved["source"] == self.source:
                self.parts = saved["parts"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """The value of compute(), as JSON; from the file where an interrupted run saved it."""
        if key not in self.parts:
            self.parts[key] = json.loads(json.dumps(compute(), allow_nan=False))
            if self.write:
                value = {"source": self.source, "parts": self.parts}
                files.write_json(self.path, value, indent=None)
        return self.parts[key]

    def close(self) -> None:
        """Removes the file: the result is complete."""
        self.path.unlink(missing_ok=True)
