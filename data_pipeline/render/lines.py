"""The lines to hear a model by: `python -m data_pipeline.render.lines` writes demo_music/lines.

Words written for this project, to the first lines of tunes that rendered songs hold out, in keys
that the singers reach. "-" among the words holds the syllable before it for a note of a slur.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from data_pipeline.render.band import VOICE, Note, midi_bytes
from data_pipeline.render.forms import A_CAPPELLA, GENRES
from data_pipeline.render.tunes import Line, make_tune
from data_pipeline.render.voices import VOICES
from data_pipeline.sung_lines import FOLDER
from jukejax import files

SEED = 0  # of the tunes, as of the songs
LEAD_IN = 1.0  # beats
SINGERS = ("slt", "rms", "kal16", "girl", "bass", "alto")
EACH = 4  # singers a line
WORDS = (  # number of the tune, tempo, words
    (3, 120, "In the morning when the rain falls I will walk along the shore"),
    (43, 132, "Every window in the city has a candle burning low"),
    (63, 132, "Follow the river until it - meets the sea"),
    (183, 108, "Carry me home - on the - evening - train"),
    (123, 112, "Silver and gold are the leaves on the tree tonight"),
)


def melody(line: Line, lowest: int, highest: int) -> list[Note]:
    """The sung notes of a line, moved to the middle of a range of MIDI numbers."""
    notes = [note for syllable in line.syllables for note in syllable]
    pitches = [pitch for pitch, _ in notes if pitch]
    shift = round((lowest + highest - min(pitches) - max(pitches)) / 2)
    starts = itertools.accumulate((beats for _, beats in notes), initial=LEAD_IN)
    return [
        (start, beats, VOICE, pitch + shift, 80)
        for start, (pitch, beats) in zip(starts, notes, strict=False)
        if pitch
    ]


def write(folder: Path) -> None:
    """Writes the MIDI files, and lines.json with the words, tune, artist and genre of each."""
    singers, genres = itertools.cycle(SINGERS), itertools.cycle((A_CAPPELLA, *GENRES))
    rows = []
    for number, tempo, words in WORDS:
        tune = make_tune(SEED, number)
        for singer in itertools.islice(singers, EACH):
            voice, name = VOICES[singer], f"{tune.name}-{singer}.mid"
            notes = melody(tune.parts["verse"][0], voice.lowest, voice.highest)
            files.write_bytes(folder / name, midi_bytes(notes, tempo, {}))
            rows.append(
                {"words": words, "tune": name, "artist": voice.artist, "genre": next(genres)}
            )
    files.write_text(folder / "lines.json", json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    write(FOLDER)
