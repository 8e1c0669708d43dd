"""Scores of sung songs, and the arithmetic that places words on notes. Pure Python and numpy.

A score is a JSON file (see demo_music/scores). Its `lines` are syllables `[text, notes]`, where a
trailing "-" joins a syllable to the next one, and notes are `[midi, beats]` pairs: one for a plain
syllable, several for a slur, and an empty text for a rest. Vowels start on the beat; the
consonants before a vowel borrow their time from the note before it, as singers do.

Units: times in seconds, pitches in MIDI numbers (69 = 440 Hz), F frames of `FRAME_S` seconds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

FRAME_S = 0.005  # WORLD's frame period
BREATH_S = 0.16  # taken from the last note of each line
MAX_PHONE_S = 0.13  # spoken consonants longer than this are shortened
CONSONANT_SHARE = 0.45  # of a note at most


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


VOWELS = _names("aa ae ah ao aw ax axr ay eh er ey ih iy ow oy uh uw")
DIPHTHONGS = _names("aw ay ey ow oy")
VOICELESS = _names("p t k ch f th s sh hh")
SONORANTS = _names("l r w y m n ng el em en")
ONSETS = _names(
    """p b t d k g ch jh f v th dh s z sh zh hh m n l r w y
    p_l p_r b_l b_r t_r t_w d_r d_w k_l k_r k_w g_l g_r f_l f_r th_r s_p s_t s_k s_m s_n s_l s_w
    sh_r hh_y p_y b_y k_y f_y m_y v_y s_p_l s_p_r s_t_r s_k_r s_k_w"""
)


@dataclass(frozen=True)
class Syllable:
    """A sung syllable: `word` counts words from 0, `notes` are (midi, start_s, end_s)."""

    word: int
    notes: tuple[tuple[float, float, float], ...]
    ends_line: bool

    @property
    def start(self) -> float:
        return self.notes[0][1]

    @property
    def end(self) -> float:
        return self.notes[-1][2]


@dataclass(frozen=True)
class Phone:
    """A phone of a spoken word: its name, and its start and end in that recording, in seconds."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Segment:
    """A phone (or silence) placed in the song: source times in its word, target times in song."""

    word: int
    phone: str
    source: tuple[float, float]
    target: tuple[float, float]


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


def split_syllables(phones: Sequence[str], n_syllables: int) -> list[tuple[int, int, int]]:
    """Cuts a word's phones into syllables: a list of (first, vowel, past_last) phone indices.

    Consonants between two vowels go to the right one as far as English words may start with them.
    """
    vowels = [i for i, phone in enumerate(phones) if phone in VOWELS]
    if len(vowels) != n_syllables:
        raise ValueError(f"{list(phones)} has {len(vowels)} vowels for {n_syllables} syllables")
    cuts = [0]
    for left, right in pairwise(vowels):
        cut = left + 1
        while cut < right and "_".join(phones[cut:right]) not in ONSETS:
            cut += 1
        cuts.append(cut)
    cuts.append(len(phones))
    return list(zip(cuts[:-1], vowels, cuts[1:], strict=True))


def _lengths(phones: Sequence[Phone]) -> list[float]:
    return [min(0.85 * (p.end - p.start), MAX_PHONE_S) for p in phones]


def place_phones(syllables: Sequence[Syllable], words: Sequence[Sequence[Phone]]) -> list[Segment]:
    """Places every phone of every word in the song; vowels start where their notes start.

    `words` are the phones of each word as spoken. Returns the segments in time order; the time
    between a segment's end and the next one's start is silence.
    """
    counts = [sum(s.word == w for s in syllables) for w in range(len(words))]
    parts: list[tuple[list[Phone], Phone, list[Phone]]] = []  # onset, vowel, coda of a syllable
    for word, count in zip(words, counts, strict=True):
        for first, nucleus, past in split_syllables([p.name for p in word], count):
            onset, coda = list(word[first:nucleus]), list(word[nucleus + 1 : past])
            parts.append((onset, word[nucleus], coda))
    out: list[Segment] = []
    room_before = syllables[0].start  # seconds of silence the first onset may use
    for i, (syllable, (onset, vowel, coda)) in enumerate(zip(syllables, parts, strict=True)):
        if i == 0 or room_before > 0:  # after a rest: this onset was not placed yet
            _append_run(out, syllable.word, onset, syllable.start, min(room_before, 1.0))
        end = syllable.end - (
            min(BREATH_S, 0.25 * (syllable.end - syllable.start)) if syllable.ends_line else 0.0
        )
        following = syllables[i + 1] if i + 1 < len(syllables) else None
        joined = following is not None and following.start - end < 0.02
        tail = list(coda) + (parts[i + 1][0] if joined else [])
        budget = CONSONANT_SHARE * (end - syllable.start)
        scale = min(1.0, budget / max(sum(_lengths(tail)), 1e-9))
        vowel_end = end - scale * sum(_lengths(tail))
        target = (syllable.start, vowel_end)
        out.append(Segment(syllable.word, vowel.name, (vowel.start, vowel.end), target))
        clock = vowel_end
        for j, (phone, length) in enumerate(zip(tail, _lengths(tail), strict=True)):
            owner = syllable.word if j < len(coda) else following.word  # type: ignore[union-attr]
            target = (clock, clock + scale * length)
            out.append(Segment(owner, phone.name, (phone.start, phone.end), target))
            clock = target[1]
        room_before = 0.0 if joined or following is None else following.start - end
    return out


def _append_run(
    out: list[Segment], word: int, onset: Sequence[Phone], end: float, room: float
) -> None:
    """Appends the consonants of `onset` so that they end at `end` and fit into `room` seconds."""
    lengths = _lengths(onset)
    scale = min(1.0, 0.9 * room / max(sum(lengths), 1e-9))
    clock = end - scale * sum(lengths)
    for phone, length in zip(onset, lengths, strict=True):
        out.append(
            Segment(word, phone.name, (phone.start, phone.end), (clock, clock + scale * length))
        )
        clock += scale * length


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
