"""Songs to records, beside the bare cost of what must be done to each sample.

python -m experiments.benchmark prepare --folder /tmp/prepare

The songs are bundled music in turn as wav, flac, ogg and mp3 of 44.1 kHz, flac and ogg of 48 kHz
and opus. Everything is done once to warm up, then in turns; printed are medians.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from data_pipeline import prepare
from data_pipeline.audio import BLOCK
from experiments.benchmark import sounds

_KINDS = [("wav", 44_100), ("flac", 48_000), ("ogg", 44_100), ("mp3", 44_100), ("ogg", 48_000)]
_KINDS += [("flac", 44_100), ("opus", 48_000)]


@dataclass(frozen=True)
class Command:
    """Decode, resample, copy and prepare the same songs; times real time of each."""

    folder: Path
    """Gets the songs, which are used again, and data sets, which are removed."""
    songs: int = 25
    """Files; bundled songs are taken in turn."""
    audio: Path = sounds.MUSIC
    """Where they are taken from."""
    repetitions: int = 5
    """Turns."""
    json: bool = False
    """Print the result as one JSON object too."""


def write_songs(command: Command, folder: Path) -> None:
    """Writes the songs where they are not there yet."""
    if folder.exists():
        return
    partial = folder.with_name("partial")
    partial.mkdir(parents=True, exist_ok=True)
    for i, sound in enumerate(sounds.songs(command.audio, command.songs, 0)):
        suffix, rate = _KINDS[i % len(_KINDS)]
        sounds.write(partial / f"song_{i:03d}.{suffix}", sound, rate)
    partial.rename(folder)


def decode_and_resample(folder: Path) -> tuple[float, float, float]:
    """Seconds that decoding and resampling to 44.1 kHz take, and seconds of music."""
    spent, music = {"decode": 0.0, "resample": 0.0}, 0.0
    for path in sorted(folder.iterdir()):
        with soundfile.SoundFile(path) as sound:
            rate, stream = sound.samplerate, None
            if rate != 44_100:
                stream = soxr.ResampleStream(rate, 44_100, sound.channels, dtype="float32")
            music += sound.frames / rate
            while True:
                began = time.perf_counter()
                block = sound.read(BLOCK, dtype="float32", always_2d=True)
                decoded = time.perf_counter()
                spent["decode"] += decoded - began
                if stream is not None:
                    stream.resample_chunk(block, last=not len(block))
                    spent["resample"] += time.perf_counter() - decoded
                if not len(block):
                    break
    return spent["decode"], spent["resample"], music


def copy(seconds: float) -> float:
    """Seconds that a copy of so much int16 stereo takes, a minute at a time."""
    minute = np.ones((60 * 44_100, 2), np.int16)
    target = np.empty_like(minute)
    began = time.perf_counter()
    for _ in range(round(seconds / 60)):
        np.copyto(target, minute)
    return time.perf_counter() - began


def timed_prepare(folder: Path, out: Path, workers: int) -> float:
    """Seconds that `prepare build` takes, all of it, with so many processes."""
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    prepare.build(folder, out, workers=workers, show_progress=False)
    spent = time.perf_counter() - began
    shutil.rmtree(out)
    return spent


def run(command: Command) -> dict[str, Any]:
    """All in turns."""
    folder = command.folder / f"songs_{command.songs}"
    write_songs(command, folder)
    music = decode_and_resample(folder)[2]
    out = command.folder / "records"
    parts: dict[str, Callable[[], float]] = {
        "copy": lambda: copy(music),
        "prepare, 1 worker": lambda: timed_prepare(folder, out, 1),
        "prepare, 2 workers": lambda: timed_prepare(folder, out, 2),
    }
    timed_prepare(folder, out, 1)
    spent: dict[str, list[float]] = {name: [] for name in ("decode", "resample", *parts)}
    for _ in range(command.repetitions):
        decode, resample, _ = decode_and_resample(folder)
        spent["decode"].append(decode)
        spent["resample"].append(resample)
        for name, part in parts.items():
            spent[name].append(part())
    bare = [a + b for a, b in zip(spent["decode"], spent["resample"], strict=True)]
    shares = [a / b for a, b in zip(bare, spent["prepare, 1 worker"], strict=True)]
    spent["decode + resample"] = bare
    return {
        "files": command.songs,
        "music_seconds": music,
        "seconds": {name: statistics.median(times) for name, times in spent.items()},
        "range": {name: [min(times), max(times)] for name, times in spent.items()},
        "share_of_bare": statistics.median(shares),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The figures to print."""
    music = found["music_seconds"]
    told = [f"{found['files']} files, {music / 60:.1f} minutes; x real time (slowest to fastest)"]
    for name, seconds in found["seconds"].items():
        low, high = (music / max(x, 1e-9) for x in reversed(found["range"][name]))
        told.append(
            f"  {name:20}{music / max(seconds, 1e-9):10,.0f} x  ({low:,.0f} to {high:,.0f})"
        )
    told.append(
        f"prepare with one worker reaches {100 * found['share_of_bare']:.0f} % of decode + resample"
    )
    return told
