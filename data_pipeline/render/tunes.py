"""Tunes to put words to: the bundled public-domain scores, and tunes composed from a seed.

A composed tune has parts (verse, chorus, bridge) of lines of four bars. Each bar has a chord; notes
on strong beats prefer the chord's, notes between move by step, and the last line of a part ends on
the tonic. Chances of leaps, rhythms and scales differ from tune to tune.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_pipeline.render.band import ROOTS
from data_pipeline.render.scores import load_score
from data_pipeline.render.sound import MUSIC

SCORES = MUSIC / "scores"
COMPOSED = 487  # tunes of a seed, beside the bundled ones
HELD_OUT_EVERY = 20  # every 20th tune is for testing
ROOT_NAMES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
REST = 0  # in place of a pitch

Notes = tuple[tuple[int, float], ...]  # (midi, beats) of a syllable, several for a slur
Chords = tuple[tuple[str, float], ...]  # (symbol, beats)


@dataclass(frozen=True)
class Line:
    """A sung line and its chords, which last as long as its notes."""

    syllables: tuple[Notes, ...]
    chords: Chords

    @property
    def beats(self) -> float:
        """Length, rests included."""
        return sum(beats for _, beats in self.chords)


@dataclass(frozen=True)
class Tune:
    """A melody with chords: lines of each part, beats a bar and beats before the first line."""

    name: str
    bar: int
    lead_in: float
    mode: str
    parts: dict[str, tuple[Line, ...]]

    def pitches(self) -> list[int]:
        """All sung pitches (MIDI)."""
        lines = (line for part in self.parts.values() for line in part)
        return [midi for line in lines for notes in line.syllables for midi, _ in notes if midi]


def transpose(line: Line, semitones: int) -> Line:
    """The line in another key."""
    syllables = tuple(
        tuple((midi + semitones if midi else REST, beats) for midi, beats in notes)
        for notes in line.syllables
    )
    chords = tuple((_moved(symbol, semitones), beats) for symbol, beats in line.chords)
    return Line(syllables, chords)


def _moved(symbol: str, semitones: int) -> str:
    match = re.match(r"([A-G])([b#]?)", symbol)
    assert match, symbol
    root = ROOTS[match[1]] + {"b": -1, "#": 1, "": 0}[match[2]] + semitones
    return ROOT_NAMES[root % 12] + symbol[match.end() :]


def make_tune(seed: int, number: int) -> Tune:
    """Tune `number` of a seed: the bundled scores first, then the composed ones."""
    scores = sorted(SCORES.glob("*.json"))
    if number < len(scores):
        return _bundled(scores[number].stem)
    return compose(np.random.default_rng([seed, 1, number]), f"composed-{number:03d}")


def number_of_tunes() -> int:
    """Tunes of any seed."""
    return len(list(SCORES.glob("*.json"))) + COMPOSED


def held_out(number: int) -> bool:
    """Whether a tune is for testing alone."""
    return number % HELD_OUT_EVERY == 3


def _bundled(name: str) -> Tune:
    """A bundled score as a tune of one part, without its words."""
    score = load_score(SCORES / f"{name}.json")
    lines, start = [], float(score["lead_in"])
    for line in score["lines"]:
        syllables = tuple(
            tuple((midi if text else REST, beats) for midi, beats in notes) for text, notes in line
        )
        end = start + sum(beats for notes in syllables for _, beats in notes)
        lines.append(Line(syllables, _between(score["chords"], start, end)))
        start = end
    mode = "minor" if "minor" in score["key"] else "major"
    return Tune(name, score["bar"], float(score["lead_in"]), mode, {"verse": tuple(lines)})


def _between(chords: Sequence[tuple[str, float]], start: float, end: float) -> Chords:
    """The chords from one beat to another."""
    out, at = [], 0.0
    for symbol, beats in chords:
        low, high = max(at, start), min(at + beats, end)
        if high - low > 1e-6:
            out.append((symbol, high - low))
        at += beats
    return tuple(out)


MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
# Chords of four bars as degrees of the scale from 0; the last line of a part ends on 0.
PROGRESSIONS = {
    "major": ("0453", "0340", "0534", "5304", "0034", "0143", "0354", "0240", "3404", "0564"),
    "minor": ("0526", "0340", "0654", "0034", "0563", "5264", "0364", "0054", "3640", "0264"),
}
QUALITIES = {
    "major": ("", "m", "m", "", "7", "m", "m"),
    "minor": ("m", "m", "", "m", "7", "", ""),
}
# Note values of a bar in beats; a dotted quarter is a beat of 6/8, which is written as bar 2.
_LONG, _SHORT = 2 / 3, 1 / 3
RHYTHMS: dict[int, tuple[tuple[float, ...], ...]] = {
    4: (
        (1, 1, 1, 1),
        (2, 1, 1),
        (1, 1, 2),
        (1.5, 0.5, 1, 1),
        (0.5, 0.5, 1, 1, 1),
        (1, 0.5, 0.5, 1, 1),
        (1, 1, 0.5, 0.5, 1),
        (3, 1),
        (2, 2),
        (1.5, 0.5, 1.5, 0.5),
        (0.5, 0.5, 0.5, 0.5, 1, 1),
        (1, 2, 1),
        (1.5, 1.5, 1),
    ),
    3: ((1, 1, 1), (2, 1), (1.5, 0.5, 1), (1, 0.5, 0.5, 1), (0.5, 0.5, 1, 1), (1, 2), (3,)),
    2: (
        (_LONG, _SHORT, _LONG, _SHORT),
        (1, _LONG, _SHORT),
        (_SHORT, _SHORT, _SHORT, _LONG, _SHORT),
        (1, 1),
        (_LONG, _SHORT, 1),
        (1, _SHORT, _SHORT, _SHORT),
    ),
}
# Last bars of a line: notes, then a rest.
ENDINGS: dict[int, tuple[tuple[float, ...], ...]] = {
    4: ((3, -1), (2, -2), (1, 2, -1), (1, 1, 1, -1)),
    3: ((2, -1), (1, 1, -1), (1, -2)),
    2: ((1, -1), (_LONG, _SHORT, -1), (4 / 3, -2 / 3)),
}


class _Composer:
    """The habits of one tune, drawn once, and its generator of random numbers."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.bar = int(rng.choice([4, 4, 4, 3, 3, 2]))
        self.mode = str(rng.choice(["major", "major", "minor"]))
        self.steps = MAJOR if self.mode == "major" else MINOR
        self.pentatonic = rng.random() < 0.25
        self.narrow = rng.uniform(0.45, 1.0)  # how much less likely a wider step is
        self.centre = rng.uniform(3.0, 6.0)  # degrees above the lowest tonic
        self.slurs = rng.choice([0.0, 0.05, 0.15])
        bars = RHYTHMS[self.bar]
        self.liking = rng.dirichlet(np.full(len(bars), 0.5))

    def _rhythm(self) -> list[tuple[float, ...]]:
        """Note values of four bars; the third bar often repeats the first."""
        choices = RHYTHMS[self.bar]
        picks = [choices[self.rng.choice(len(choices), p=self.liking)] for _ in range(3)]
        if self.rng.random() < 0.5:
            picks[2] = picks[0]
        endings = ENDINGS[self.bar]
        return [*picks, endings[self.rng.integers(len(endings))]]

    def _next(self, before: int, chord: int, strong: bool) -> int:
        """The degree of the next note."""
        degrees = np.arange(max(0, before - 5), min(9, before + 5) + 1)
        distance = np.abs(degrees - before)
        weight = np.exp(-self.narrow * distance) * np.where(distance == 0, 0.45, 1.0)
        weight *= np.exp(-(((degrees - self.centre) / 4.0) ** 2))
        weight *= np.where(np.isin((degrees - chord) % 7, (0, 2, 4)), 6.0 if strong else 1.3, 1.0)
        if self.pentatonic:
            avoided = (3, 6) if self.mode == "major" else (1, 5)
            weight *= np.where(np.isin(degrees % 7, avoided), 0.08, 1.0)
        return int(self.rng.choice(degrees, p=weight / weight.sum()))

    def _midi(self, degree: int, chord: int) -> int:
        raised = self.mode == "minor" and chord == 4 and degree % 7 == 6  # the leading tone
        return 60 + 12 * (degree // 7) + self.steps[degree % 7] + raised

    def line(self, ends_part: bool) -> Line:
        """Four bars of melody over four chords."""
        progressions = PROGRESSIONS[self.mode]
        roots = [int(d) for d in progressions[self.rng.integers(len(progressions))]]
        if ends_part:
            roots[2:] = [int(self.rng.choice([4, 4, 3])), 0]
        notes: list[tuple[int, float]] = []
        degree = round(self.centre)
        for number, (root, values) in enumerate(zip(roots, self._rhythm(), strict=True)):
            at = 0.0
            for i, value in enumerate(values):
                last = number == 3 and (i + 1 == len(values) or values[i + 1] < 0)
                if value < 0:
                    notes.append((REST, -value))
                elif ends_part and last:
                    notes.append((self._midi(0 if degree < 4 else 7, root), value))
                else:
                    degree = self._next(degree, root, strong=at in (0.0, 2.0) or last)
                    notes.append((self._midi(degree, root), value))
                at += abs(value)
        chords = tuple((self._symbol(root), float(self.bar)) for root in roots)
        return Line(self._slurred(notes), chords)

    def _symbol(self, root: int) -> str:
        return ROOT_NAMES[self.steps[root] % 12] + QUALITIES[self.mode][root]

    def _slurred(self, notes: Sequence[tuple[int, float]]) -> tuple[Notes, ...]:
        """Notes as syllables; now and then a syllable takes two neighbours of different pitch."""
        out: list[Notes] = []
        for midi, beats in notes:
            before = out[-1] if out else ()
            joins = midi and len(before) == 1 and before[0][0] not in (REST, midi)
            if joins and max(beats, before[0][1]) <= 1 and self.rng.random() < self.slurs:
                out[-1] = (*before, (midi, beats))
            else:
                out.append(((midi, beats),))
        return tuple(out)


def compose(rng: np.random.Generator, name: str) -> Tune:
    """A new tune with a verse, a chorus and a bridge, its tonic at MIDI 60."""
    composer = _Composer(rng)
    first = composer.line(False)
    verse: tuple[Line, ...] = (first, composer.line(True))
    if rng.random() < 0.6:
        verse = (first, composer.line(False), *((first,) * int(rng.random() < 0.5)), verse[1])
    chorus: tuple[Line, ...] = (composer.line(False), composer.line(True))
    if rng.random() < 0.4:
        chorus = (chorus[0], composer.line(False), *chorus)
    bridge = (composer.line(False), composer.line(False))
    parts = {"verse": verse, "chorus": chorus, "bridge": bridge}
    return Tune(name, composer.bar, float(composer.bar), composer.mode, parts)
