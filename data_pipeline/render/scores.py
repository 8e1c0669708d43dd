"""Scores of sung songs, and the arithmetic that places words on notes. Pure Python and numpy.

A score is a JSON file (see demo_music/scores). Its `lines` are syllables `[text, notes]`, where a
trailing "-" joins a syllable to the next one, and notes are `[midi, beats]` pairs: one for a plain
syllable, several for a slur, and an empty text for a rest. `jukejax.text.singing` places phones.

Units: times in seconds, pitches in MIDI numbers (69 = 440 Hz), F frames of `FRAME_S` seconds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jukejax.text.singing import DIPHTHONGS, VOWELS, Segment, Syllable

FRAME_S = 0.005  # WORLD's frame period


def load_score(path: Path) -> dict[str, Any]:
    """Reads a score and checks that its chords last exactly as long as its melody."""
    score = json.loads(Path(path).read_text(encoding="utf-8"))
    chords = sum(beats for _, beats in score["chords"])
    melody = score["lead_in"] + sum(
        beats for line in score["lines"] for _, notes in line for _, beats in notes
    )
    if abs(chords - melody) > 0.02:
        raise ValueError(f"{path}: {chords} beats of chords for {melody} beats of melody")
    return score


def line_words(line: Sequence[Sequence[Any]]) -> list[str]:
    """The words of a score line: [["A-", ...], ["maz-", ...], ["ing", ...]] gives ["Amazing"]."""
    words, open_word = [], ""
    for text, _ in line:
        if not text:
            continue
        open_word += text.removesuffix("-")
        if not text.endswith("-"):
            words.append(open_word)
            open_word = ""
    if open_word:
        raise ValueError(f"line ends inside the word {open_word!r}")
    return words


def score_words(score: dict[str, Any]) -> list[str]:
    """All the words of a score as printed, in order."""
    return [word for line in score["lines"] for word in line_words(line)]


def score_lyrics(score: dict[str, Any]) -> str:
    """The text as sung, one score line a line."""
    return "\n".join(" ".join(line_words(line)) for line in score["lines"])


def score_syllables(score: dict[str, Any]) -> list[Syllable]:
    """Syllables with their notes in seconds from the start of the song."""
    beat_s = 60.0 / score["tempo"]
    beat, word, out = float(score["lead_in"]), 0, []
    for line in score["lines"]:
        last = max(i for i, (text, _) in enumerate(line) if text)
        for i, (text, notes) in enumerate(line):
            timed = []
            for midi, beats in notes:
                timed.append((float(midi), beat * beat_s, (beat + beats) * beat_s))
                beat += beats
            if not text:
                continue
            out.append(Syllable(word, tuple(timed), i == last))
            word += not text.endswith("-")
    return out


def score_seconds(score: dict[str, Any]) -> float:
    """Seconds from the first beat to the end of the last chord."""
    return 60.0 / score["tempo"] * sum(beats for _, beats in score["chords"])


def word_times(segments: Sequence[Segment], n_words: int) -> list[tuple[float, float]]:
    """(start, end) seconds of each word: from its first phone to the end of its last phone."""
    spans = []
    for word in range(n_words):
        own = [s.target for s in segments if s.word == word]
        spans.append((min(t[0] for t in own), max(t[1] for t in own)))
    return spans


def source_times(segment: Segment, times: np.ndarray) -> np.ndarray:
    """Where in the spoken word to read for song times (F,) inside the segment.

    Consonants and short vowels stretch evenly. A long vowel keeps the speed of its start and end,
    and its middle is stretched; a diphthong is stretched in its first half and glides at the end.
    """
    (s0, s1), (t0, t1) = segment.source, segment.target
    spoken, sung = s1 - s0, t1 - t0
    if segment.phone not in VOWELS or sung <= spoken:
        return s0 + (times - t0) * (spoken / max(sung, 1e-9))
    head, tail = (0.3, 0.5) if segment.phone in DIPHTHONGS else (0.3, 0.3)
    knots_t = [t0, t0 + head * spoken, t1 - tail * spoken, t1]
    knots_s = [s0, s0 + head * spoken, s1 - tail * spoken, s1]
    return np.interp(times, knots_t, knots_s)


def midi_to_hz(midi: np.ndarray) -> np.ndarray:
    """MIDI numbers to Hz."""
    return 440.0 * 2.0 ** ((midi - 69.0) / 12.0)


def pitch_contour(syllables: Sequence[Syllable], n_frames: int, seed: int = 0) -> np.ndarray:
    """The sung pitch (F,) in Hz: notes with short glides, late vibrato and a little drift."""
    notes = [note for s in syllables for note in s.notes]
    times = np.arange(n_frames) * FRAME_S
    starts = np.array([start for _, start, _ in notes])
    index = np.clip(np.searchsorted(starts - 0.045, times, side="right") - 1, 0, None)
    steps = np.array([midi for midi, _, _ in notes])[index]
    window = np.hanning(17)  # 80 ms
    padded = np.pad(steps, 8, mode="edge")
    contour = np.convolve(padded, window / window.sum(), mode="valid")
    for _, start, end in notes:
        if end - start < 0.55:
            continue
        inside = (times >= start + 0.25) & (times < end)
        clock = times[inside] - start - 0.25
        depth = 0.3 * np.minimum(clock / 0.4, 1.0) * np.clip((end - times[inside]) / 0.08, 0, 1)
        contour[inside] += depth * np.sin(2 * np.pi * 5.5 * clock)
    noise = np.random.default_rng(seed).standard_normal(n_frames + 60)
    drift = np.convolve(noise, np.hanning(61), mode="valid")[:n_frames]
    return midi_to_hz(contour + 0.04 * drift / max(float(np.std(drift)), 1e-9))
