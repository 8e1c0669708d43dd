"""A generated manifest, validated, split, planned and streamed: peak memory and time.

python -m experiments.benchmark manifest --lines 1200000 --folder /tmp/manifest

The lines refer to a few real sound files. A manifest of a tenth of the lines is measured too, in
a process of its own, so that the growth in bytes a song can be told.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmark import sounds
from jukejax import files
from jukejax.config import ConfigError
from jukejax.host_memory import peak_bytes

_BAD = 100_000  # one line in so many is bad, in one of three ways
_WORDS = ("love", "night", "moon", "river", "road", "home", "sun", "rain", "heart", "dance")


@dataclass(frozen=True)
class Command:
    """Validate, split, plan and stream a generated manifest; measure memory and time."""

    folder: Path
    """Gets the manifests; they are kept, and used again."""
    lines: int = 1_200_000
    """Songs listed."""
    audio: Path = sounds.MUSIC
    """A folder of sound files that the lines refer to."""
    batch: int = 4
    """Chunks a batch."""
    seconds: float = 9.0
    """Length of a chunk."""
    only_write: bool = False
    """Write the manifest and stop."""
    json: bool = False
    """Print the result as one JSON object too."""


def generate(path: Path, lines: int, audio: Path) -> None:
    """Writes a manifest of many songs of few files, in no order; a function of the arguments."""
    sounds = sorted(str(x.resolve()) for x in audio.iterdir() if x.suffix != ".md")
    if not sounds:
        raise ConfigError(f"{audio} holds no files; give another --audio.")
    rng = np.random.default_rng(0)
    numbers = rng.permutation(lines)

    def entries() -> Iterator[dict[str, Any]]:
        for place, number in enumerate(map(int, numbers)):
            artist = int(5000 * rng.random() ** 2)
            entry: dict[str, Any] = {
                "id": f"artist {artist:04d}/album {number % 9}/song {number:07d}",
                "audio": sounds[number % len(sounds)],
                "artist": f"Artist {artist:04d}",
                "genres": [f"genre {artist % 120}", f"genre {number % 7}"][: 1 + number % 2],
                "year": 1950 + number % 75,
            }
            if number % 3 == 0:
                entry["lyrics"] = " ".join(_WORDS[i] for i in rng.integers(0, len(_WORDS), 150))
            if number % 50 == 0:
                entry["group"] = f"group {number // 100}"
            if place % _BAD == _BAD - 1:
                bad = {"audio": "nowhere.ogg"}, {"id": "artist"}, {"yaer": 1999}
                entry |= bad[place // _BAD % 3]
            yield entry

    files.write_json_lines(path, entries())


def measure(manifest: Path, batch: int, samples: int) -> dict[str, Any]:
    """Seconds and peak memory after each stage; for a process of its own."""
    from data_pipeline import loader, records
    from data_pipeline.song_files import SongFiles

    records.tensorflow()
    found: dict[str, Any] = {"stages": {}, "peak_before": peak_bytes()}
    began = time.perf_counter()

    def stage(name: str) -> None:
        found["stages"][name] = {"at": time.perf_counter() - began, "peak": peak_bytes()}

    songs = SongFiles(manifest)
    stage("validated, planned")
    batches = loader.audio_batches(songs, split="train", samples=samples, batch_size=batch, seed=0)
    stage("headers read")
    first = next(batches)["audio"]
    stage("first batch")
    for _ in range(10):
        next(batches)
    stage("ten more batches")
    listed, splits = songs.listed, songs.plan.splits
    return found | {
        "songs": len(listed.songs),
        "problems": [str(problem) for problem in listed.problems[:12]],
        "problem_count": len(listed.problems),
        "shards": len(songs.plan),
        "train": len(splits["train"].songs),
        "test": len(splits["test"].songs),
        "shape": list(first.shape),
    }


def run(command: Command) -> dict[str, Any]:
    """Writes the manifests where they are not there yet, and measures both."""
    found: dict[str, Any] = {}
    for lines in (command.lines // 10, command.lines):
        path = command.folder / f"songs_{lines}.jsonl"
        if not path.exists():
            generate(path, lines, command.audio)
        if not command.only_write:
            context = multiprocessing.get_context("spawn")
            samples = round(command.seconds * 44_100)
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                found[str(lines)] = pool.submit(measure, path, command.batch, samples).result()
            found[str(lines)]["bytes"] = path.stat().st_size
    if found:
        small, large = found.values()
        peaks = [x["stages"]["ten more batches"]["peak"] for x in (small, large)]
        found["bytes_a_song"] = (peaks[1] - peaks[0]) / (large["songs"] - small["songs"])
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """The figures to print."""
    if not found:
        return ["written"]
    told = []
    for count, one in found.items():
        if count == "bytes_a_song":
            continue
        told.append(
            f"{int(count):,} lines ({one['bytes'] / 1e6:,.0f} MB): {one['songs']:,} songs, "
            f"{one['train']:,} train, {one['test']:,} test, {one['shards']:,} shards, "
            f"{one['problem_count']} problems"
        )
        told += [f"    {problem[:150]}" for problem in one["problems"]]
        told.append(f"  {'before':20}{'':10}  peak {one['peak_before'] / 1e6:7.1f} MB")
        told += [
            f"  {name:20}{x['at']:8.1f} s  peak {x['peak'] / 1e6:7.1f} MB"
            for name, x in one["stages"].items()
        ]
    told.append(f"peak memory grows by {found['bytes_a_song']:.1f} bytes a song")
    return told
