"""Where the phones of words are sung, given the notes of their syllables. Plain Python.

Vowels start on the beat; the consonants before a vowel borrow their time from the note before it,
as singers do. Phones are flite's: those of the CMU dictionary in lower case, and `ax` for the
vowel of "the". Times in seconds, pitches in MIDI numbers (69 = 440 Hz).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
