"""The pages' templates in `site/`: what they are rendered with, and how pages are written.

A page needs nothing but itself and the sounds and pictures beside it: style and script are in it.
All text is escaped, and control characters are left out.
"""

from __future__ import annotations

import base64
import functools
import math
import re
import unicodedata
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jukejax import files
from jukejax.evaluation.pages.spectrogram import HIGH_HZ, LOW_HZ
from jukejax.formatting import format_seconds

if TYPE_CHECKING:
    import jinja2

WAVE = 480  # columns of a waveform
TICKS_HZ = ((100, "100"), (1000, "1k"), (10_000, "10k"))


def printable(text: str) -> str:
    """The text without control characters; lines end with a line feed."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def clock(seconds: float) -> str:
    """A position as minutes and seconds: 0:09, 3:25."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def time_ticks(seconds: float, most: int = 6) -> list[tuple[float, str]]:
    """Marks of a time axis, (position in 0..1, label), at most `most` + 1."""
    if not seconds > 0:
        return []
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600)
    step = next((s for s in steps if seconds / s <= most), seconds / most)
    count = math.floor(seconds / step + 1e-9)
    marks = [index * step for index in range(count + 1)]
    return [(at / seconds, f"{at:.1f} s" if step < 1 else clock(at)) for at in marks]


def picture(image: bytes) -> str:
    """An image as HTML's `src`; PNG or SVG by its first bytes."""
    kind = "png" if image.startswith(b"\x89PNG") else "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"


@functools.cache
def templates() -> jinja2.Environment:
    """The templates in `site/`. In them `asset(name)` is the text of a file there, unescaped."""
    import jinja2
    import markupsafe

    folder = resources.files("jukejax.evaluation.pages").joinpath("site")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text("utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda x: printable(x) if type(x) is str else x,
    )
    span = math.log(HIGH_HZ / LOW_HZ)
    environment.filters.update(
        clock=clock,
        duration=format_seconds,
        picture=picture,
        anchor=lambda name: re.sub(r"\W+", "-", name),
    )
    environment.globals.update(
        asset=lambda name: markupsafe.Markup(folder.joinpath(name).read_text("utf-8")),
        frequency_ticks=[(math.log(hz / LOW_HZ) / span, label) for hz, label in TICKS_HZ],
        time_ticks=time_ticks,
        wave=WAVE,
    )
    return environment


def write_html(path: Path, template: str, **values: Any) -> Path:
    """Renders a template to a page; returns its path."""
    html = templates().get_template(template).render(values)
    # Half a surrogate pair in a name cannot be UTF-8; a character reference can be.
    files.write_bytes(path, html.encode("utf-8", "xmlcharrefreplace"))
    return path
