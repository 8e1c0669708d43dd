"""Levels, fades, reverberation, Vorbis files and manifest rows of rendered music.

Sound is float64 (N, C) at RATE, or at the rate given; levels are RMS over the
channels, 1.0 = full scale.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jukejax.errors import JukejaxError

MUSIC = Path(__file__).parents[1] / "demo_music"
RATE = 44_100  # Hz
TARGET_RMS = 0.1  # of every track: about -17 LUFS for full mixes
PEAK = 0.9
BLOCK = 65_536  # frames a write: libsndfile's Vorbis encoder overflows its stack on huge writes


class MissingTool(JukejaxError):
    """A program, package or file that rendering needs is not installed."""


def rms(sound: np.ndarray, gate: float = 0.1, rate: int = RATE) -> float:
    """RMS of sound (N, C) over its 50 ms blocks louder than `gate` times the loudest block."""
    size = rate // 20
    mono = np.mean(sound**2, axis=-1)
    blocks = mono[: len(mono) // size * size].reshape(-1, size).mean(1)
    loud = blocks > gate**2 * blocks.max()
    return float(np.sqrt(blocks[loud].mean()))


def level(sound: np.ndarray, rate: int = RATE) -> np.ndarray:
    """Brings sound (N, C) to TARGET_RMS; samples past PEAK are bent smoothly below 1."""
    sound = sound * (TARGET_RMS / max(rms(sound, rate=rate), 1e-9))
    knee = 0.6
    size = np.abs(sound)
    bent = knee + (PEAK - knee) * np.tanh((size - knee) / (PEAK - knee))
    return np.where(size > knee, np.sign(sound) * bent, sound)


def fade(sound: np.ndarray, fade_in: float, fade_out: float, rate: int = RATE) -> np.ndarray:
    """Raised-cosine fades (seconds) at both ends of sound (N, C)."""
    out = sound.copy()
    for seconds, side in ((fade_in, slice(None)), (fade_out, slice(None, None, -1))):
        n = min(int(seconds * rate), len(out))
        if n:
            ramp = 0.5 - 0.5 * np.cos(np.pi * np.arange(n) / n)
            out[side][:n] *= ramp[:, None]
    return out


def reverberate(
    voice: np.ndarray, seconds: float = 1.3, wet: float = 0.22, rate: int = RATE
) -> np.ndarray:
    """A voice (N,) in a small hall: (N, 2), the dry voice in the middle, decaying noise around."""
    n = int(seconds * rate)
    rng = np.random.default_rng(1)
    decay = 10.0 ** (-3.0 * np.arange(n) / n)  # 60 dB over `seconds`
    tail = rng.standard_normal((n, 2)) * decay[:, None]
    kernel = np.ones(6) / 6.0  # walls swallow the treble
    tail = np.stack([np.convolve(tail[:, c], kernel)[:n] for c in range(2)], axis=1)
    tail[: int(0.02 * rate)] = 0.0  # pre-delay
    tail /= np.sqrt((tail**2).sum(0))
    size = 1 << (len(voice) + n - 1).bit_length()
    spectrum = np.fft.rfft(voice, size)[:, None] * np.fft.rfft(tail, size, axis=0)
    return voice[:, None] + wet * np.fft.irfft(spectrum, size, axis=0)[: len(voice)]


def write_ogg(path: Path, sound: np.ndarray, compression: float) -> None:
    """Writes sound (N, 2) as Ogg Vorbis at RATE; compression_level 0 (largest) to 1 (smallest)."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    how = {"format": "OGG", "subtype": "VORBIS", "compression_level": compression}
    with soundfile.SoundFile(path, "w", RATE, sound.shape[1], **how) as file:
        for start in range(0, len(sound), BLOCK):
            file.write(sound[start : start + BLOCK].astype(np.float32))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a songs.jsonl; none where there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def update_manifest(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes rows into a songs.jsonl: rows with a known id are replaced, others are kept."""
    table = {row["id"]: row for row in (*read_rows(path), *rows)}
    text = "".join(json.dumps(table[key], ensure_ascii=False) + "\n" for key in sorted(table))
    path.write_text(text, encoding="utf-8")
