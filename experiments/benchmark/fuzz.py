"""Damaged sound files through `prepare build`: decoded as soundfile does, or skipped with a reason.

python -m experiments.benchmark fuzz --folder /tmp/fuzz --mutations 500

Seconds of bundled songs in every format are damaged in one of five ways each: flipped bits, a cut
end, a damaged header, a zeroed block, appended garbage. Between them lie whole files, which must
all come through.
"""

from __future__ import annotations

import collections
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from data_pipeline import prepare, records
from data_pipeline.plan import Options
from data_pipeline.songs import PreparedSong, prepared_songs
from experiments.benchmark import sounds
from jukejax import files

_WHOLE = 10  # every tenth file is not damaged
_KINDS = {
    "cut short": "cut short",
    "damaged": "is damaged",
    "not a sound file": "not a sound file|channels at",
    "NaN": "NaN or inf",
    "too short": "shorter than",
    "silent": "silent",
    "strange rate": "sample rate of",
}


@dataclass(frozen=True)
class Command:
    """Prepare damaged files and compare what comes out with soundfile."""

    folder: Path
    """Gets the files and the records; what is there is replaced."""
    mutations: int = 500
    """Damaged files."""
    seconds: float = 3.0
    """Length of each file."""
    audio: Path = sounds.MUSIC
    """Songs that the files are cut from."""
    seed: int = 0
    """Of the damage."""
    json: bool = False
    """Print the result as one JSON object too."""


def flip(data: bytearray, rng: np.random.Generator) -> None:
    """Flips one bit of up to 20 bytes anywhere."""
    for place in rng.integers(0, len(data), rng.integers(1, 21)):
        data[place] ^= 1 << int(rng.integers(8))


def cut(data: bytearray, rng: np.random.Generator) -> None:
    """Takes away the end."""
    del data[int(rng.integers(0, len(data))) :]


def header(data: bytearray, rng: np.random.Generator) -> None:
    """Writes random bytes over one to four of the first 100."""
    start = int(rng.integers(0, 100))
    data[start : start + 4] = rng.bytes(int(rng.integers(1, 5)))[: len(data) - start]


def zeros(data: bytearray, rng: np.random.Generator) -> None:
    """Zeroes up to 4 kB."""
    start = int(rng.integers(0, len(data)))
    size = min(int(rng.integers(1, 4096)), len(data) - start)
    data[start : start + size] = bytes(size)


def garbage(data: bytearray, rng: np.random.Generator) -> None:
    """Appends up to 10 kB of random bytes."""
    data += rng.bytes(int(rng.integers(1, 10_000)))


DAMAGE: list[Callable[[bytearray, np.random.Generator], None]] = [flip, cut, header, zeros, garbage]


def write_files(command: Command, folder: Path) -> dict[str, str]:
    """Writes the damaged files and whole ones among them; the damage by name, "" of whole ones."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(command.seed)
    names = list(sounds.FORMATS)
    found = sounds.songs(command.audio, 5, command.seconds)
    whole = {}
    for i, sound in enumerate(found):
        for suffix in names:
            path = folder / f"whole_{i}.{suffix}"
            sounds.write(path, sound, sounds.FORMATS[suffix])
            whole[suffix, i] = path.read_bytes()
            path.unlink()
    damage = {}
    for number in range(command.mutations + command.mutations // _WHOLE):
        suffix, song = names[number % len(names)], number // len(names) % len(found)
        data = bytearray(whole[suffix, song])
        done = number % (_WHOLE + 1) < _WHOLE
        if done:
            mutate = DAMAGE[int(rng.integers(len(DAMAGE)))]
            mutate(data, rng)
        name = f"{number:05d}"
        (folder / f"{name}.{suffix}").write_bytes(data)
        damage[f"{name}.{suffix}"] = mutate.__name__ if done else ""
    return damage


def by_soundfile(path: Path) -> np.ndarray | None:
    """What soundfile reads, as (n, 2) int16 of 44.1 kHz; None where it cannot."""
    try:
        sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, ValueError, MemoryError):
        return None
    if rate != 44_100:
        sound = soxr.resample(sound, rate, 44_100)
    pcm = np.clip(np.rint(sound * 32768.0), -32768, 32767).astype(np.int16)
    return np.repeat(pcm, 2, axis=1) if pcm.shape[1] == 1 else pcm


def is_right(out: Path, song: PreparedSong) -> bool:
    """Whether a song's records hold what soundfile reads; resampled, to within one rounding."""
    expected = by_soundfile(Path(song.audio))
    found = records.read_audio(out, song, 0, song.n_samples)
    if expected is None or expected.shape != found.shape:
        return False
    near = 0 if soundfile.info(song.audio).samplerate == 44_100 else 1
    return int(np.abs(expected.astype(np.int32) - found).max()) <= near


def kind(reason: str) -> str:
    """A reason in two words."""
    return next((name for name, words in _KINDS.items() if re.search(words, reason)), "other")


def run(command: Command) -> dict[str, Any]:
    """Damages, prepares, compares."""
    shutil.rmtree(command.folder, ignore_errors=True)
    damage = write_files(command, command.folder / "files")
    manifest = command.folder / "songs.jsonl"
    files.write_json_lines(manifest, ({"id": x, "audio": f"files/{x}"} for x in damage))
    out = command.folder / "records"
    report = prepare.build(manifest, out, options=Options(), show_progress=False)
    reasons = {item["id"]: item["reason"] for item in report.skipped}
    table: dict[str, collections.Counter[str]] = {x: collections.Counter() for x in sounds.FORMATS}
    wrong = []
    kept = {song.id: song for song in prepared_songs(out)}
    for name, how in damage.items():
        row = table[name.split(".")[1]]
        if not how:
            row["whole"] += 1
            if name not in kept or not is_right(out, kept[name]):
                wrong.append(name)
        elif name in reasons:
            row[kind(reasons[name])] += 1
        elif name in kept and is_right(out, kept[name]):
            row["decoded"] += 1
        else:
            wrong.append(name)
    files.write_json(command.folder / "reasons.json", reasons)
    return {
        "mutations": sum(map(bool, damage.values())),
        "table": {suffix: dict(row) for suffix, row in table.items()},
        "wrong": [f"{name} ({damage[name] or 'whole'})" for name in wrong],
        "others": [reason for reason in reasons.values() if kind(reason) == "other"],
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The figures to print."""
    names = ["decoded", *_KINDS, "other", "whole"]
    names = [name for name in names if any(name in row for row in found["table"].values())]
    told = [f"{found['mutations']} damaged files: decoded as by soundfile, or skipped as ..."]
    told.append(" " * 6 + "".join(f"{name:>18}" for name in names))
    for suffix, row in found["table"].items():
        told.append(f"{suffix:6}" + "".join(f"{row.get(name, 0):18}" for name in names))
    told.append(f"wrong: {len(found['wrong'])} {json.dumps(found['wrong'][:10])}")
    return told + [f"other: {reason}" for reason in found["others"][:10]]
