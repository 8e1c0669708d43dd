"""Songs to records, compared with decoding and resampling alone.

jukejax benchmark prepare --folder /tmp/prepare

The songs are bundled music in turn as wav, flac, ogg and mp3 of 44.1 kHz, flac and ogg of 48 kHz
and opus. Printed are medians of rounds in which everything is timed in turn.
"""

from __future__ import annotations

import itertools
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from data_pipeline import prepare
from data_pipeline.audio import BLOCK
from experiments.benchmark.timing import in_turn
from jukejax.config import ConfigError

MUSIC = Path("data_pipeline/demo_music/audio")
_KINDS = [("wav", 44_100), ("flac", 48_000), ("ogg", 44_100), ("mp3", 44_100), ("ogg", 48_000)]
_KINDS += [("flac", 44_100), ("opus", 48_000)]


@dataclass(frozen=True)
class Command:
    """Decode, resample, copy and prepare the same songs; times real time of each."""

    folder: Path
    """Gets the songs, which are used again, and data sets, which are removed."""
    songs: int = 25
    """Files; the songs of --audio are taken in turn."""
    audio: Path = MUSIC
    """A folder of sound files."""
    repetitions: int = 5
    """Rounds."""


def write_songs(command: Command, folder: Path) -> None:
    """Writes the songs where they are missing."""
    if folder.exists():
        return
    partial = folder.with_name("partial")
    partial.mkdir(parents=True, exist_ok=True)
    suffixes = (".ogg", ".wav", ".flac", ".mp3")
    paths = sorted(x for x in command.audio.iterdir() if x.suffix in suffixes)
    if not paths:
        raise ConfigError(f"{command.audio} has no sound files; give another folder.")
    for i, source in zip(range(command.songs), itertools.cycle(paths), strict=False):
        suffix, rate = _KINDS[i % len(_KINDS)]
        sound, original = soundfile.read(source, always_2d=True)
        sound = np.clip(soxr.resample(sound, original, rate), -1, 1)
        coded = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
        path = partial / f"song_{i:03d}.{suffix}"
        with soundfile.SoundFile(path, "w", rate, sound.shape[1], **coded) as file:
            for start in range(0, len(sound), BLOCK):  # libsndfile's Vorbis crashes on long ones
                file.write(sound[start : start + BLOCK])
    partial.rename(folder)


def decode(folder: Path, resample: bool) -> float:
    """Decodes all songs, and resamples them to 44.1 kHz if asked; returns seconds of music."""
    music = 0.0
    for path in sorted(folder.iterdir()):
        with soundfile.SoundFile(path) as sound:
            rate, stream = sound.samplerate, None
            if resample and rate != 44_100:
                stream = soxr.ResampleStream(rate, 44_100, sound.channels, dtype="float32")
            music += sound.frames / rate
            more = True
            while more:
                block = sound.read(BLOCK, dtype="float32", always_2d=True)
                more = bool(len(block))
                if stream is not None:
                    stream.resample_chunk(block, last=not more)
    return music


def copy(seconds: float) -> None:
    """Copies int16 stereo, a minute at a time."""
    minute = np.ones((60 * 44_100, 2), np.int16)
    target = np.empty_like(minute)
    for _ in range(round(seconds / 60)):
        np.copyto(target, minute)


def build(folder: Path, out: Path, workers: int) -> None:
    """`prepare build` from scratch."""
    shutil.rmtree(out, ignore_errors=True)
    prepare.build(folder, out, workers=workers, show_progress=False)


def run(command: Command) -> dict[str, Any]:
    """Seconds of all parts, in turn."""
    folder, out = command.folder / f"songs_{command.songs}", command.folder / "records"
    write_songs(command, folder)
    music = decode(folder, resample=False)
    tasks = {
        "decode": lambda: decode(folder, resample=False),
        "decode + resample": lambda: decode(folder, resample=True),
        "copy": lambda: copy(music),
        "prepare, 1 worker": lambda: build(folder, out, 1),
        "prepare, 2 workers": lambda: build(folder, out, 2),
    }
    seconds = in_turn(tasks, command.repetitions)
    shutil.rmtree(out)
    return {"files": command.songs, "music_seconds": music, "seconds": seconds}


def lines(figures: dict[str, Any]) -> list[str]:
    """The figures to print."""
    music, seconds = figures["music_seconds"], figures["seconds"]
    text = [f"{figures['files']} files, {music / 60:.1f} minutes; x real time (slowest to fastest)"]
    for name, times in seconds.items():
        low, middle, high = (
            music / max(x, 1e-9) for x in (max(times), statistics.median(times), min(times))
        )
        text.append(f"  {name:20}{middle:10,.0f} x  ({low:,.0f} to {high:,.0f})")
    pairs = zip(seconds["decode + resample"], seconds["prepare, 1 worker"], strict=True)
    share = statistics.median(bare / whole for bare, whole in pairs)
    return [*text, f"prepare with one worker reaches {share:.0%} of decode + resample"]
