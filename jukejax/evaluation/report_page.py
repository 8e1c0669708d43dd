"""The report: one `index.html` that shows every result of an evaluation directory.

It needs nothing but itself: pictures are in it, and it is read from disk. Text is escaped.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from jukejax import files
from jukejax.evaluation.report import Figure, Table


class Section(NamedTuple):
    """One suite of a report."""

    name: str
    title: str
    about: str
    facts: Sequence[tuple[str, str]]  # what it was measured on, and what that cost
    tables: Sequence[Table]
    figures: Sequence[Figure]


def picture(image: bytes) -> str:
    """An image as HTML's `src`; PNG or SVG by its first bytes."""
    kind = "png" if image.startswith(b"\x89PNG") else "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"


def write_report(folder: str | Path, title: str, sections: Sequence[Section]) -> Path:
    """Writes `folder`/index.html atomically and returns its path."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(picture=picture, anchor=lambda name: re.sub(r"\W+", "-", name))
    source = resources.files("jukejax.evaluation").joinpath("report.html.j2").read_text("utf-8")
    html = environment.from_string(source).render(title=title, sections=sections)
    path = Path(folder) / "index.html"
    files.write_bytes(path, html.encode("utf-8", "xmlcharrefreplace"))
    return path


def facts(record: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, which) of the source and the cost of a result on disk."""
    found = [(name, _short(value)) for name, value in record["source"].items()]
    cost = record["cost"]
    if cost:
        found.append(("took", f"{cost['seconds']:.0f} s, at most {cost['peak_mib']:.0f} MiB"))
    return [("jukejax", str(record.get("version", ""))), *found]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_short(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return str(value)
