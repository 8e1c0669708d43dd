"""Words and tunes to hear a model by: twenty lines, to tunes that rendered songs hold out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "demo_music" / "lines"


class Line(NamedTuple):
    """A line to sing.

    Attributes:
      words: a syllable a note; "-" holds the one before it.
      tune: a MIDI file.
      artist, genre: of the rendered songs.
    """

    words: str
    tune: Path
    artist: str
    genre: str


def bundled_lines() -> list[Line]:
    """The lines of the package."""
    rows = json.loads((FOLDER / "lines.json").read_text(encoding="utf-8"))
    return [Line(**row | {"tune": FOLDER / row["tune"]}) for row in rows]
