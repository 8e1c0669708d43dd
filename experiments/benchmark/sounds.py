"""Short real songs in every format that is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import soxr

from jukejax.config import ConfigError

MUSIC = Path("data_pipeline/demo_music/audio")
_BLOCK = 65_536
FORMATS = {"wav": 44_100, "flac": 44_100, "ogg": 44_100, "mp3": 44_100, "opus": 48_000}  # Hz


def songs(music: Path, count: int, seconds: float) -> list[np.ndarray]:
    """The first seconds of files at 44.1 kHz: `count` arrays (n, channels) float64."""
    paths = sorted(x for x in music.iterdir() if x.suffix in (".ogg", ".wav", ".flac", ".mp3"))
    if not paths:
        raise ConfigError(f"{music} holds no sound files; give another folder.")
    found = []
    for i in range(count):
        sound, rate = soundfile.read(paths[i % len(paths)], always_2d=True)
        cut = sound[: round(seconds * rate)] if seconds else sound
        found.append(soxr.resample(cut, rate, 44_100) if rate != 44_100 else cut)
    return found


def write(path: Path, sound: np.ndarray, rate: int) -> None:
    """Writes sound of 44.1 kHz at a rate, in the format that the suffix names."""
    if rate != 44_100:
        sound = soxr.resample(sound, 44_100, rate)
    coded = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    with soundfile.SoundFile(path, "w", rate, sound.shape[1], **coded) as file:
        for start in range(0, len(sound), _BLOCK):  # libsndfile's Vorbis dies of long ones
            file.write(np.clip(sound[start : start + _BLOCK], -1, 1))
