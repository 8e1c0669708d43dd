"""The voices of rendered songs, and their spoken words, analysed once and kept on disk.

A voice is one of flite's recorded speakers, its formants moved by `formants` where that is not 1: a
longer (below 1) or shorter (above 1) vocal tract is another singer (WORLD's envelope, read at other
frequencies).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_pipeline.render.voice import VOICE_RATE, SpokenWord, analyse, speak
from jukejax import files
from jukejax.text.singing import VOWELS, Phone

MARGIN_S = 0.03  # kept of the silence around a spoken word


@dataclass(frozen=True)
class Voice:
    """A singer: flite's speaker, the factor of its formants, and its range in MIDI numbers."""

    artist: str
    speaker: str
    formants: float
    lowest: int
    highest: int


VOICES = {
    "slt": Voice("Flite SLT", "slt", 1.0, 56, 75),
    "rms": Voice("Flite RMS", "rms", 1.0, 43, 62),
    "kal16": Voice("Flite KAL16", "kal16", 1.0, 45, 64),
    "girl": Voice("Flite SLT, short tract", "slt", 1.16, 60, 79),
    "bass": Voice("Flite RMS, long tract", "rms", 0.87, 38, 57),
    "alto": Voice("Flite KAL16, short tract", "kal16", 1.18, 52, 71),
    "awb": Voice("Flite AWB", "awb", 1.0, 45, 64),
}
HELD_OUT = "awb"  # never drawn: a singer that no model of these songs has heard


@functools.cache
def lexicon() -> dict[str, tuple[str, ...]]:
    """flite's phones of the words that are sung, from words.txt."""
    lines = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").splitlines()
    return {word: tuple(phones) for word, *phones in map(str.split, lines)}


def syllables(word: str) -> int:
    """Vowels of a word of the lexicon."""
    return sum(phone in VOWELS for phone in lexicon()[word])


def spoken_word(word: str, voice: Voice, folder: Path) -> SpokenWord:
    """A word as analysed for `voice`, read from `folder`, or made and kept there.

    Raises:
      ValueError: flite pronounces the word in another way than the lexicon says.
    """
    path = folder / voice.speaker / f"{word}.npz"
    if not path.exists():
        _store(word, voice.speaker, path)
    with np.load(path) as kept:
        ends = kept["ends"]
        starts = np.concatenate([[MARGIN_S], ends[:-1]])
        names = lexicon()[word]
        phones = tuple(map(Phone, names, starts.tolist(), ends.tolist()))
        spoken = SpokenWord(
            phones,
            kept["log_envelope"].astype(np.float64),
            kept["aperiodicity"].astype(np.float64),
            kept["voiced"],
        )
    return spoken if voice.formants == 1 else _move_formants(spoken, voice.formants)


def _store(word: str, speaker: str, path: Path) -> None:
    """Speaks, trims, analyses and stores a word; half precision, so a second run reads the same."""
    samples, phones = speak(word, speaker)
    if tuple(phone.name for phone in phones) != lexicon()[word]:
        said = " ".join(phone.name for phone in phones)
        raise ValueError(f"flite's {speaker} says {word!r} as {said}, not as words.txt has it")
    start = phones[0].start - MARGIN_S
    first, last = round(start * VOICE_RATE), round((phones[-1].end + MARGIN_S) * VOICE_RATE)
    shifted = [Phone(p.name, p.start - start, p.end - start) for p in phones]
    spoken = analyse(np.ascontiguousarray(samples[first:last]), shifted, fast=True)
    with files.atomic_path(path) as temporary:
        np.savez(
            temporary,
            ends=np.array([phone.end for phone in shifted]),
            log_envelope=spoken.log_envelope.astype(np.float16),
            aperiodicity=spoken.aperiodicity.astype(np.float16),
            voiced=spoken.voiced,
        )


def _move_formants(spoken: SpokenWord, factor: float) -> SpokenWord:
    """The word from a vocal tract 1/factor as long: envelope (F, Q) read at frequency/factor."""
    n_bins = spoken.log_envelope.shape[1]
    at = np.minimum(np.arange(n_bins) / factor, n_bins - 1.001)
    low = at.astype(int)
    part = at - low

    def read(frames: np.ndarray) -> np.ndarray:
        return frames[:, low] * (1 - part) + frames[:, low + 1] * part

    moved = read(spoken.log_envelope), read(spoken.aperiodicity)
    return replace(spoken, log_envelope=moved[0], aperiodicity=moved[1])
