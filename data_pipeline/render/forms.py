"""From a tune to a score: a form, a key for the singer, a tempo, a genre's band, random words.

Words are drawn uniformly from the lexicon, so neither a tune nor the words before say which word
comes next; a chorus has the same words each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_pipeline.render.tunes import ROOT_NAMES, Line, Tune, transpose
from data_pipeline.render.voices import Voice, lexicon, syllables

SHORTEST_NOTE_S = 0.17
SHORTEST_S, LONGEST_S = 30.0, 110.0  # what a form aims at
MOST_S = 118.0
FORMS = {
    "strophic": ("verse",),
    "AABA": ("verse", "verse", "bridge", "verse"),
    "verse and chorus": ("verse", "chorus", "verse", "chorus", "bridge", "chorus"),
}
A_CAPPELLA = "a cappella"


@dataclass(frozen=True)
class Genre:
    """A band: how it plays, its tempi, and the General MIDI programs to draw from."""

    styles: tuple[str, ...]
    tempo: tuple[float, float]
    chord: tuple[int, ...]
    bass: tuple[int, ...]
    pad: tuple[int, ...] = ()
    drums: str = ""


GENRES = {
    "ballad": Genre(("arpeggio",), (60, 92), (0, 4, 5), (32, 33), (48, 49, 50)),
    "folk": Genre(("strum", "arpeggio"), (84, 132), (24, 25, 105, 15), (32,)),
    "hymn": Genre(("block",), (66, 100), (19, 20, 16), (19, 58), (52, 53)),
    "waltz": Genre(("waltz",), (96, 160), (21, 23, 6, 11), (32, 43), drums="soft"),
    "rock": Genre(("pulse", "strum"), (96, 144), (27, 29, 30, 28), (33, 34), drums="loud"),
    "synth pop": Genre(("pulse", "arpeggio"), (96, 136), (80, 81, 62, 88), (38, 39), (89, 90, 91)),
    A_CAPPELLA: Genre(("block",), (66, 132), (0,), (0,)),
}


def write_score(tune: Tune, voice: Voice, genre: str, rng: np.random.Generator) -> dict[str, Any]:
    """A score as `scores.load_score` gives it, with `sections` (name, start and end beat).

    Genre A_CAPPELLA has no interludes; who renders it leaves the band out.
    """
    band = GENRES[genre]
    shift = _key(tune.pitches(), voice, rng)
    shortest = min(
        beats
        for part in tune.parts.values()
        for line in part
        for notes in line.syllables
        for midi, beats in notes
        if midi
    )
    tempo = min(float(rng.uniform(*band.tempo)), 60 * shortest / SHORTEST_NOTE_S)
    form = "strophic" if len(tune.parts) == 1 else str(rng.choice(list(FORMS)))
    score = _Writer(tune, shift, tempo, rng, interludes=genre != A_CAPPELLA).write(FORMS[form])
    programs = {"chord": int(rng.choice(band.chord)), "bass": int(rng.choice(band.bass))}
    if band.pad and rng.random() < 0.7:
        programs["pad"] = int(rng.choice(band.pad))
    drums = "loud" if genre == "synth pop" and rng.random() < 0.7 else band.drums
    return score | {
        "tempo": tempo,
        "bar": tune.bar,
        "style": str(rng.choice(band.styles)),
        "step": 1 / 3 if tune.bar == 2 else 0.5,
        "programs": programs,
        "form": form,
        "key": f"{ROOT_NAMES[shift % 12]} {tune.mode}",
        **({"drums": drums} if drums else {}),
    }


def _key(pitches: Sequence[int], voice: Voice, rng: np.random.Generator) -> int:
    """Semitones to move a tune by, so that the voice reaches its notes if it can."""
    low, high = voice.lowest - min(pitches), voice.highest - max(pitches)
    return int(rng.integers(low, high + 1)) if low <= high else round((low + high) / 2)


class _Writer:
    """Appends parts to a score until it is long enough."""

    def __init__(
        self, tune: Tune, shift: int, tempo: float, rng: np.random.Generator, interludes: bool
    ) -> None:
        self.rng, self.interludes, self.bar = rng, interludes, tune.bar
        self.parts = {
            name: [transpose(line, shift) for line in lines] for name, lines in tune.parts.items()
        }
        self.beat_s = 60.0 / tempo
        self.lines: list[list[list[Any]]] = []
        self.chords: list[tuple[str, float]] = []
        self.sections: list[tuple[str, float, float]] = []
        self.chorus: list[list[str]] = []
        self.lead_in = tune.lead_in
        self.by_syllables: dict[int, list[str]] = {}
        for word in lexicon():
            self.by_syllables.setdefault(syllables(word), []).append(word)

    @property
    def beats(self) -> float:
        return sum(beats for _, beats in self.chords)

    def write(self, form: Sequence[str]) -> dict[str, Any]:
        """The parts of `form`, over and over, as long as there is room."""
        aim = self.rng.uniform(SHORTEST_S, LONGEST_S)
        self._band_alone("intro", self.lead_in)
        number = 0
        while number == 0 or self.beats * self.beat_s < aim:
            part = form[number % len(form)]
            length = sum(line.beats for line in self.parts[part])
            if number and (self.beats + length + self.bar) * self.beat_s > MOST_S:
                break
            if number and self.interludes and self.rng.random() < 0.25:
                self._band_alone("interlude", 2.0 * self.bar)
            self._sing(part)
            number += 1
        self._band_alone("outro", float(self.bar))
        return {
            "lead_in": self.lead_in,
            "lines": self.lines,
            "chords": self.chords,
            "sections": self.sections,
        }

    def _band_alone(self, name: str, beats: float) -> None:
        """A stretch without voice, over the verse's first chord, a rest of the line before."""
        tonic = self.parts["verse"][-1].chords[-1][0]
        self.sections.append((name, self.beats, self.beats + beats))
        self.chords.append((tonic, beats))
        if self.lines:
            self.lines[-1].append(["", [[0, beats]]])

    def _sing(self, part: str) -> None:
        lines, start = self.parts[part], self.beats
        words = self.chorus if part == "chorus" else []
        for number, line in enumerate(lines):
            if number == len(words):
                words.append(self._words(sum(notes[0][0] > 0 for notes in line.syllables)))
            pieces = [piece for word in words[number] for piece in _pieces(word)]
            self.lines.append(_set(line, pieces))
            self.chords += line.chords
        self.sections.append((part, start, self.beats))

    def _words(self, count: int) -> list[str]:
        """Random words of `count` syllables together."""
        out: list[str] = []
        while count:
            most = [n for n in self.by_syllables if n <= count]
            sizes = np.array([len(self.by_syllables[n]) for n in most], float)
            n = int(self.rng.choice(most, p=sizes / sizes.sum()))
            out.append(self.by_syllables[n][self.rng.integers(len(self.by_syllables[n]))])
            count -= n
        return out


def _pieces(word: str) -> list[str]:
    """A word cut into as many pieces as it has syllables; all but the last end in "-"."""
    n = syllables(word)
    cuts = [round(i * len(word) / n) for i in range(n + 1)]
    return [word[cuts[i] : cuts[i + 1]] + "-" * (i + 1 < n) for i in range(n)]


def _set(line: Line, pieces: Sequence[str]) -> list[list[Any]]:
    """A score's line: the pieces of words on the line's syllables."""
    left = iter(pieces)
    return [
        [next(left) if notes[0][0] else "", [list(note) for note in notes]]
        for notes in line.syllables
    ]
