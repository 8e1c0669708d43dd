"""A singing voice: words spoken by flite, re-timed and re-pitched with the WORLD vocoder.

flite (Debian package `flite`) speaks each word once and prints when its phones end; WORLD
(PyPI package `pyworld`) analyses the recording as pitch, spectral envelope and noisiness,
which are read again along the score's time line.

Shapes: F frames of FRAME_S seconds, N samples at VOICE_RATE, Q spectral bins.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.render.scores import FRAME_S, pitch_contour, source_times
from data_pipeline.render.sound import MissingTool
from jukejax.text.singing import (
    SONORANTS,
    VOICELESS,
    VOWELS,
    Phone,
    Segment,
    Syllable,
    place_phones,
)

VOICE_RATE = 16_000  # Hz, what the flite voices give
SILENCE = 1e-10  # power of the spectral envelope in rests
VOWEL_POWER = 1e-4  # every word's vowels are brought near this mean envelope power

PRONOUNCE = {"a": "ax", "to": "t uw"}  # as sung, where flite spells the word out


def parse_durations(printed: str) -> list[Phone]:
    """Phones from `flite -psdur` output: "pau:0.197 d:0.273 ..." (each with its end time)."""
    phones, start = [], 0.0
    for item in printed.split():
        name, end = item.rsplit(":", 1)
        if name != "pau":
            phones.append(Phone(name, start, float(end)))
        start = float(end)
    return phones


def spoken_form(word: str) -> str:
    """The word as given to flite: lower case, without punctuation at the ends."""
    return re.sub(r"^[^\w]+|[^\w]+$", "", word.lower().replace("’", "'"))


@dataclass(frozen=True)
class SpokenWord:
    """An analysed word: phones, log power envelope and aperiodicity (F, Q), voicing (F,)."""

    phones: tuple[Phone, ...]
    log_envelope: np.ndarray
    aperiodicity: np.ndarray
    voiced: np.ndarray


def speak(word: str, voice: str, phones: str | None = None) -> tuple[np.ndarray, list[Phone]]:
    """Samples (N,) of one word at VOICE_RATE and its phones; `phones` overrides flite's lexicon."""
    import soundfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "word.wav"
        what = ["-p", f"pau {phones} pau"] if phones else ["-t", word]
        command = ["flite", "-voice", voice, "-psdur", *what, "-o", str(path)]
        try:
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise MissingTool("flite is missing: run `apt-get install flite`.") from error
        samples, rate = soundfile.read(path, dtype="float64")
    if rate != VOICE_RATE:
        raise ValueError(f"voice {voice} speaks at {rate} Hz, not {VOICE_RATE}")
    return samples, parse_durations(done.stdout)


def analyse(samples: np.ndarray, phones: Sequence[Phone], fast: bool = False) -> SpokenWord:
    """Analyses a spoken word (N,) with WORLD, and evens out the loudness of its vowels.

    Pitch is tracked by Harvest, or by DIO where `fast`: 40 times quicker, a word in 0.07 s.
    """
    import pyworld as world

    frame_ms = 1000 * FRAME_S
    track: Callable[..., Any] = world.dio if fast else world.harvest
    pitch, times = track(samples, VOICE_RATE, f0_floor=65.0, f0_ceil=400.0, frame_period=frame_ms)
    pitch = world.stonemask(samples, pitch, times, VOICE_RATE)
    envelope = world.cheaptrick(samples, pitch, times, VOICE_RATE)
    aperiodicity = world.d4c(samples, pitch, times, VOICE_RATE, threshold=0.0)
    voiced = pitch > 0
    vowel = np.zeros(len(times), bool)
    for phone in phones:
        span = (times >= phone.start) & (times < phone.end)
        if phone.name in VOWELS:
            vowel |= span
        if phone.name in VOWELS | SONORANTS and (span & voiced).any():
            good = np.flatnonzero(span & voiced)  # a sung vowel is never whispered
            nearest = good[np.abs(good[None] - np.flatnonzero(span)[:, None]).argmin(1)]
            aperiodicity[span] = aperiodicity[nearest]
    power = envelope[vowel].mean() if vowel.any() else envelope.mean()
    envelope = envelope * (VOWEL_POWER / max(power, 1e-16)) ** 0.9
    return SpokenWord(tuple(phones), np.log(np.maximum(envelope, 1e-16)), aperiodicity, voiced)


def _read(frames: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Rows of frames (F, Q) read at fractional rows `at` (G,): (G, Q)."""
    at = np.clip(at, 0, len(frames) - 1.001)
    low = at.astype(int)
    part = (at - low)[:, None]
    return frames[low] * (1 - part) + frames[low + 1] * part


def _smooth_joins(frames: np.ndarray, joins: Sequence[int], half: int = 5) -> None:
    """Replaces `half` rows either side of each join in frames (F, Q) by a straight line."""
    for join in joins:
        low, high = max(join - half, 0), min(join + half, len(frames) - 1)
        ramp = np.linspace(0.0, 1.0, high - low + 1)[:, None]
        frames[low : high + 1] = frames[low] * (1 - ramp) + frames[high] * ramp


def _meet(left: Segment, right: Segment) -> bool:
    """Whether there is no silence between two segments."""
    return right.target[0] - left.target[1] < 2 * FRAME_S


def _edges(segments: Sequence[Segment], n_frames: int) -> np.ndarray:
    """Gain (F,): 0 in silences, 1 in phones, with 20 ms rises and 60 ms falls at their borders."""
    times = np.arange(n_frames) * FRAME_S
    gain = np.zeros(n_frames)
    start = segments[0].target[0]
    for here, after in zip(segments, [*segments[1:], None], strict=True):
        if after is not None and _meet(here, after):
            continue
        rise = np.clip((times - start) / 0.02, 0, 1)
        fall = np.clip((here.target[1] + 0.02 - times) / 0.06, 0, 1)
        gain = np.maximum(gain, np.minimum(rise, fall))
        start = after.target[0] if after is not None else start
    return gain


def _low_cut(voiced: np.ndarray, n_bins: int) -> np.ndarray:
    """Log gain (F, Q): 40 dB less below 400 Hz where unvoiced, so that no vowel's hum is hissed."""
    hiss = np.convolve(np.pad(~voiced, 2, mode="edge"), np.full(5, 0.2), mode="valid")
    bins = np.linspace(0.0, VOICE_RATE / 2, n_bins)
    cut = np.clip((900.0 - bins) / 500.0, 0.0, 1.0) * np.log(1e-4)
    return hiss[:, None] * cut[None]


def sing_frames(
    segments: Sequence[Segment], words: Sequence[SpokenWord], pitch: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """WORLD's view of the song: pitch (F,), envelope and aperiodicity (F, Q), 1 = all noise."""
    n_frames, n_bins = len(pitch), words[0].log_envelope.shape[1]
    log_env = np.full((n_frames, n_bins), np.log(SILENCE))
    noise = np.ones((n_frames, n_bins))
    voiced = np.zeros(n_frames, bool)
    joins: list[int] = []
    before: Segment | None = None
    for segment in segments:
        first = int(np.ceil(segment.target[0] / FRAME_S))
        last = min(int(np.ceil((segment.target[1]) / FRAME_S)), n_frames)
        if segment is segments[-1] or last <= first:
            last = min(max(last, first + 1), n_frames)
        times = np.arange(first, last) * FRAME_S
        rows = source_times(segment, times) / FRAME_S
        word = words[segment.word]
        log_env[first:last] = _read(word.log_envelope, rows)
        noise[first:last] = _read(word.aperiodicity, rows)
        if segment.phone in VOWELS or segment.phone in SONORANTS:
            voiced[first:last] = True
        elif segment.phone not in VOICELESS:
            at = np.clip(np.rint(rows).astype(int), 0, len(word.voiced) - 1)
            voiced[first:last] = word.voiced[at]
        if before is not None and before.word != segment.word and _meet(before, segment):
            joins.append(first)
        before = segment
    _smooth_joins(log_env, joins)
    _smooth_joins(noise, joins)
    log_env += _low_cut(voiced, n_bins)
    gain = _edges(segments, n_frames)[:, None]
    envelope = np.exp(log_env) * gain**2 + SILENCE * 1e-2
    noise[~voiced] = 1.0  # rather than zero pitch, whose borders WORLD turns into clicks
    return pitch, envelope, np.clip(noise, 1e-3, 1.0)


def high_pass(samples: np.ndarray, low: float = 50.0, high: float = 90.0) -> np.ndarray:
    """Removes frequencies below `low` Hz from samples (N,); those above `high` Hz stay."""
    size = 1 << (len(samples) + VOICE_RATE).bit_length()
    hertz = np.fft.rfftfreq(size, 1.0 / VOICE_RATE)
    gain = np.clip((hertz - low) / (high - low), 0.0, 1.0)
    return np.fft.irfft(np.fft.rfft(samples, size) * gain, size)[: len(samples)]


def even_loudness(samples: np.ndarray, strength: float = 0.5) -> np.ndarray:
    """Compresses a voice (N,): brings 60 ms stretches nearer to its mean loudness."""
    width = int(0.06 * VOICE_RATE)
    window = np.hanning(2 * width + 1)
    power = np.convolve(samples**2, window / window.sum(), mode="same")
    level = np.sqrt(np.maximum(power, 1e-12))
    active = level > 0.1 * level.max()
    reference = float(np.sqrt(np.mean(power[active])))
    gain = np.clip((reference / level) ** strength, 0.3, 2.0)
    return samples * gain


def sing(
    words: Sequence[str],
    syllables: Sequence[Syllable],
    voice: str,
    seconds: float,
    pronounce: dict[str, str] | None = None,
) -> tuple[np.ndarray, list[Segment]]:
    """Sings `words` on `syllables`: samples (N,) at VOICE_RATE, and the place of every phone."""
    known: dict[str, SpokenWord] = {}
    for word in map(spoken_form, words):
        if word not in known:
            samples, phones = speak(word, voice, (PRONOUNCE | (pronounce or {})).get(word))
            known[word] = analyse(samples, phones)
    try:
        return sing_spoken([known[spoken_form(word)] for word in words], syllables, seconds)
    except ValueError as error:
        raise ValueError(f"voice {voice}, words {list(words)}: {error}") from error


def sing_spoken(
    spoken: Sequence[SpokenWord], syllables: Sequence[Syllable], seconds: float, seed: int = 0
) -> tuple[np.ndarray, list[Segment]]:
    """As `sing`, of words that are analysed; `seed` is that of the small drifts of the pitch.

    Raises:
      ValueError: a word has other syllables than `syllables` give it.
    """
    import pyworld as world

    segments = place_phones(syllables, [word.phones for word in spoken])
    pitch = pitch_contour(syllables, round(seconds / FRAME_S), seed)
    frames = sing_frames(segments, spoken, pitch)
    samples = world.synthesize(*map(np.ascontiguousarray, frames), VOICE_RATE, 1000 * FRAME_S)
    return even_loudness(high_pass(samples)), segments
