"""Generated songs and manifests for the tests of the data pipeline."""

import json
from pathlib import Path

import numpy as np
import soundfile

RATE = 44_100


def sound(seconds: float, seed: int = 0, rate: int = RATE, channels: int = 2) -> np.ndarray:
    """Smooth noise around a tone: (seconds * rate, channels) float64 within 0.5."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate))[:, None] / rate
    tone = np.sin(2 * np.pi * (220 + 30 * seed) * time + np.arange(channels))
    return 0.3 * tone + 0.1 * rng.uniform(-1, 1, (len(time), channels))


def write_song(path: Path, seconds: float, seed: int = 0) -> np.ndarray:
    """Writes a 16-bit WAV and returns its samples (n, 2) int16."""
    pcm = np.round(sound(seconds, seed) * 32767).astype(np.int16)
    soundfile.write(path, pcm, RATE, subtype="PCM_16")
    return pcm


def write_lines(path: Path, entries: list) -> Path:
    """Writes manifest lines; text is written as it is."""
    texts = [e if isinstance(e, str) else json.dumps(e, ensure_ascii=False) for e in entries]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path
