"""A sample directory: `job.json`, and per level `level_N/codes.npz` and `level_N/item_I.wav`.

While a window is sampled, `level_N/window_I.npz` is its journal: the ids drawn so far (of all
chains), for the batch of songs that begins with item I. `level_N/item_I.part.wav` is the sound
until it is complete.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jukejax import files, locks, stored
from jukejax.config import ConfigError, from_dict, to_dict
from jukejax.disk_space import checked_space
from jukejax.sampling.job import Job

_REMOVE = "remove it to continue."  # what it had is sampled again
_REMEDY = "restore a copy of it, or sample again into another folder."


def read_job(path: Path) -> tuple[dict[str, Any], Job]:
    """The content of a job.json, and the job in it.

    Raises:
      ConfigError, DataError: there is no such file, or it is damaged.
    """
    try:
        record = stored.read_object(path, {"request": dict}, _REMEDY)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} does not exist; name a folder that `jukejax sample` made."
        ) from error
    stored.check_job_record(record, path, _REMEDY)
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{path} has a half of a surrogate pair; {_REMEDY}") from error
    try:
        return record, from_dict(Job, record["request"], str(path))
    except ConfigError as error:
        where = "" if str(path) in str(error) else f"{path}: "
        raise ConfigError(f"{where}{error}") from error


def _read_complete(path: Path) -> tuple[dict[str, Any], Job]:
    """As `read_job`, of a job.json that a sample directory was begun with."""
    record, job = read_job(path)
    stored.check_fields(record, stored.JOB_FIELDS, str(path), _REMEDY)
    return record, job


def check_folder(path: Path, wanted: Mapping[str, Any]) -> None:
    """Checks a folder to sample into as far as it can be before a model is loaded.

    Args:
      wanted: fields of the job to be sampled there, by name.

    Raises:
      ConfigError: it is a file, cannot be written to, or has samples of another job.
      FolderInUse: another process samples into it.
    """
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not existing.is_dir():
        raise ConfigError(f"{existing} is a file; give an --out that is a folder, or a new one.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{existing} cannot be written to; give another --out.")
    with locks.writing(path):  # a short look: loading a large model takes minutes
        pass
    if not (path / "job.json").exists():
        return
    job = read_job(path / "job.json")[1]
    changes = [
        f"{name} {getattr(job, name)}, now {value}"
        for name, value in wanted.items()
        if getattr(job, name) != value
    ]
    if changes:
        raise _another_job(path, f" ({'; '.join(changes)})")


def _another_job(path: Path, changes: str = "") -> ConfigError:
    return ConfigError(
        f"{path} has samples of another job{changes}; choose another --out, or --job "
        f"{path / 'job.json'} to continue it."
    )


def digest(codes: list[np.ndarray]) -> str:
    """16 hexadecimal digits of the SHA-256 of given codes, an array (N, n) a level."""
    total = hashlib.sha256()
    for z in codes:
        total.update(str(z.shape).encode() + z.astype("<u2").tobytes())
    return total.hexdigest()[:16]


class SampleDir:
    """A sample directory: its job, and per level codes (.npz) and sounds."""

    def __init__(
        self,
        path: Path,
        job: Job,
        sample_rate: int,
        levels: list[dict],
        given: list[np.ndarray] | None = None,
        notes: dict[str, Any] | None = None,
    ) -> None:
        """Begins the directory, or continues one of the same job, with more levels if asked for.

        Args:
          levels: the entry of each level in job.json, top first.
          given: codes (N, n) per level, bottom first, that the songs begin with.
          notes: further entries of a new job.json.

        Raises:
          ConfigError: the directory has another job, or was begun with other weights.
        """
        self.path = path
        file = path / "job.json"
        if file.exists():
            self._continue(file, job, levels)
            return
        self.record = {
            "title": ", ".join(dict.fromkeys(i.artist for i in job.items if i.artist)) or "Samples",
            "model": job.model,
            "seed": job.seed,
            "seconds": job.seconds,
            "sample_rate": sample_rate,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "items": [{"artist": i.artist, "genres": i.genres, "lyrics": i.lyrics}
                      for i in job.items],
            "levels": levels,
            "request": to_dict(job),
            **(notes or {}),
        }  # fmt: skip
        for level, codes in enumerate(given or []):
            for stale in (path / f"level_{level}").glob("window_*.npz"):
                stale.unlink()
            self.save(level, codes, np.full(len(codes), codes.shape[1]))
        self.save_job()  # last: without it nothing has begun

    @classmethod
    def open(cls, path: Path) -> SampleDir:
        """An existing directory, to read.

        Raises:
          ConfigError: there is none.
        """
        sample = cls.__new__(cls)
        sample.path, (sample.record, _) = path, _read_complete(path / "job.json")
        return sample

    def _continue(self, file: Path, job: Job, levels: list[dict]) -> None:
        for left in self.path.glob("level_*/.*.tmp.*"):  # by a run killed while writing
            left.unlink()
        self.record, kept = _read_complete(file)
        # the weights decide about the model, see below; levels may be added
        if dataclasses.replace(kept, model=job.model, levels=job.levels) != job:
            raise _another_job(self.path)
        before = {entry["level"]: entry for entry in self.record["levels"]}
        for entry in levels:
            for kind in ("weights", "renderer"):
                was, now = before.get(entry["level"], entry).get(kind), entry.get(kind)
                if was != now:
                    raise ConfigError(
                        f"{self.path} was begun with other weights ({was}, now {now}); choose "
                        "another --out, or remove it to restart from scratch."
                    )
        merged = {entry["level"]: entry for entry in levels} | before
        self.record["levels"] = [merged[level] for level in sorted(merged, reverse=True)]
        both = {*kept.levels, *job.levels} if kept.levels and job.levels else ()  # (): all
        self.record["request"]["levels"] = sorted(both, reverse=True)
        self.save_job()

    def save_job(self) -> None:
        files.write_json(self.path / "job.json", self.record)

    def load(self, level: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Codes (N, T) of a level, and how many from the first on are sampled or given, (N,).

        The file may have fewer than T, as for a song that begins with given codes; the rest is 0.
        """
        file = self.path / f"level_{level}" / "codes.npz"
        out = np.zeros(shape, np.int32)
        if not file.exists():
            return out, np.zeros(shape[0], int)
        codes, done = _read(file, "codes", "done")
        fits = codes.ndim == 2 and len(codes) == shape[0] and codes.shape[1] <= shape[1]
        if not fits or not 0 <= done.min() <= done.max() <= codes.shape[1]:
            raise ConfigError(
                f"{file} has {done} of {codes.shape} codes, not {shape}; remove it to continue."
            )
        out[:, : codes.shape[1]] = codes
        return out, np.broadcast_to(done, len(out)).astype(int)

    def codes(self, level: int) -> np.ndarray:
        """Codes (N, T) int32 in the file of a level; T is 0 where there is none."""
        file = self.path / f"level_{level}" / "codes.npz"
        if not file.exists():
            return np.zeros((len(self.record["items"]), 0), np.int32)
        return _read(file, "codes")[0]

    def made(self, level: int, items: int) -> np.ndarray:
        """How many codes (items,) of a level are sampled or given, anywhere in the song."""
        file = self.path / f"level_{level}" / "codes.npz"
        if not file.exists():
            return np.zeros(items, int)
        arrays = stored.read_arrays(file, ("done",), _REMOVE)
        return np.broadcast_to(arrays.get("made", arrays["done"]), items).astype(int)

    def save(
        self, level: int, codes: np.ndarray, done: np.ndarray, made: np.ndarray | None = None
    ) -> None:
        """Saves codes (N, T), how many from the first on are sampled (N,), and how many at all."""
        ids, file = codes.astype(np.uint16), self.path / f"level_{level}" / "codes.npz"
        with files.atomic_path(file, ids.nbytes) as temporary:
            np.savez(temporary, codes=ids, done=done, made=done if made is None else made)

    def load_window(self, level: int, item: int, done: int, count: int) -> np.ndarray:
        """Ids (count, n) drawn in the round of windows that begins when `done` codes are sampled.

        Of the batch of songs from `item` on, with `count` rows; n is 0 where there is no journal.
        """
        file = self.path / f"level_{level}" / f"window_{item}.npz"
        if file.exists():
            drawn, place = _read(file, "drawn", "place")
            if place.tolist() == [item, done] and len(drawn) == count:
                return drawn
        return np.zeros((count, 0), np.int32)

    def save_window(self, level: int, item: int, done: int, drawn: np.ndarray) -> None:
        """Saves what `load_window` returns; the journal of a finished round (n is 0) is removed."""
        if not drawn.shape[1]:
            (self.path / f"level_{level}" / f"window_{item}.npz").unlink(missing_ok=True)
            return
        with files.atomic_path(self.path / f"level_{level}" / f"window_{item}.npz") as file:
            np.savez(file, drawn=drawn.astype(np.uint16), place=np.array([item, done]))

    def add_time(self, level: int, steps: int, seconds: float) -> None:
        """Adds to a level's steps (one token per row of a batch each) and the seconds they took."""
        for entry in self.record["levels"]:
            if entry["level"] == level:
                entry["steps"] = (entry.get("steps") or 0) + steps
                entry["seconds_to_sample"] = (entry.get("seconds_to_sample") or 0.0) + seconds
        self.save_job()

    def sounds(self, level: int) -> list[Path]:
        """Paths of the sounds of a level, one per item."""
        count = len(self.record["items"])
        return [self.path / f"level_{level}" / f"item_{i}.wav" for i in range(count)]

    def has_sound(self, level: int) -> bool:
        """Whether the sounds of a level exist and are newer than its codes."""
        codes = (self.path / f"level_{level}" / "codes.npz").stat().st_mtime_ns
        return all(x.exists() and x.stat().st_mtime_ns >= codes for x in self.sounds(level))

    def add_sound(self, level: int, piece: np.ndarray, first: bool) -> None:
        """Appends a piece (N, n) to `item_I.part.wav` of a level; the `first` starts the files."""
        import soundfile

        mode, rate = ("w", self.record["sample_rate"]) if first else ("r+", None)
        size = 2 * piece.shape[1]  # 16-bit mono
        if first:
            size = round(2 * self.record["seconds"] * self.record["sample_rate"])
        for target, sound in zip(self.sounds(level), piece, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            with (
                checked_space(target, size),
                soundfile.SoundFile(_part(target), mode, rate, 1 if first else None) as file,
            ):
                file.seek(0, soundfile.SEEK_END)
                file.write(sound)

    def finish_sound(self, level: int) -> None:
        """Renames the complete sounds of a level to `item_I.wav`."""
        for target in self.sounds(level):
            files.put(_part(target), target)


def _part(sound: Path) -> Path:
    return sound.with_suffix(".part.wav")


def _read(file: Path, *names: str) -> list[np.ndarray]:
    """Arrays of an .npz file as int32."""
    arrays = stored.read_arrays(file, names, _REMOVE)
    return [arrays[name].astype(np.int32) for name in names]
