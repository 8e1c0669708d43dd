"""The report: one `index.html` with every result of an evaluation directory.

Pictures are in the page, which is opened from disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jukejax.evaluation.pages.templates import write_html
from jukejax.evaluation.results import Figure, Table


class Section(NamedTuple):
    """One suite of a report."""

    name: str
    title: str
    about: str
    facts: Sequence[tuple[str, str]]  # name, value: its source and cost
    tables: Sequence[Table]
    figures: Sequence[Figure]


def write_report(folder: str | Path, title: str, sections: Sequence[Section]) -> Path:
    """Writes `folder`/index.html atomically and returns its path."""
    path = Path(folder) / "index.html"
    return write_html(path, "report.html.j2", title=title, sections=sections)


def facts(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values of the source and the cost of a result on disk."""
    rows = [(name, _short(value)) for name, value in record["source"].items()]
    cost = record["cost"]
    if cost:
        rows.append(("took", f"{cost['seconds']:.0f} s, at most {cost['peak_mib']:.0f} MiB"))
    return [("jukejax", str(record.get("version", ""))), *rows]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_short(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return str(value)
