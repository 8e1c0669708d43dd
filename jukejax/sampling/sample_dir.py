"""A sample directory: `job.json`, and per level `level_N/codes.npz` and `level_N/item_I.wav`."""

from __future__ import annotations

import dataclasses
import datetime
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jukejax import atomic
from jukejax.config import ConfigError, from_dict, to_dict
from jukejax.sampling.job import Job


def read_job(path: Path) -> tuple[dict[str, Any], Job]:
    """What a job.json holds, and the request in it.

    Raises:
      ConfigError: the file is no job.json of a sample directory.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
        request = dict(record["request"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is no job.json that this command wrote ({error!r}); name another, or give "
            "--model and labels."
        ) from error
    return record, from_dict(Job, request, str(path))


class SampleDir:
    """A sample directory: its job, and per level codes (.npz) and sounds."""

    def __init__(self, path: Path, job: Job, sample_rate: int, levels: list[dict]) -> None:
        """Begins the directory, or goes on with one of the same job.

        Raises:
          ConfigError: the directory holds another job, or was begun with other weights.
        """
        self.path = path
        file = path / "job.json"
        if file.exists():
            self.record, found = read_job(file)
            if dataclasses.replace(found, model=job.model) != job:  # the weights decide, see below
                raise ConfigError(
                    f"{path} holds another job; choose another --out, or --job {file} to go on."
                )
            before, now = ([x.get("weights") for x in y] for y in (self.record["levels"], levels))
            if before != now:
                raise ConfigError(
                    f"{path} was begun with other weights ({before}, now {now}); choose another "
                    "--out, or remove it to sample anew."
                )
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
        }  # fmt: skip
        self.save_job()

    def save_job(self) -> None:
        atomic.write_json(self.path / "job.json", self.record)

    def load(self, level: int, shape: tuple[int, int]) -> tuple[np.ndarray, int]:
        """Codes (N, T) of a level and how many of them are made."""
        file = self.path / f"level_{level}" / "codes.npz"
        if not file.exists():
            return np.zeros(shape, np.int32), 0
        try:
            with np.load(file) as data:
                codes, done = data["codes"].astype(np.int32), int(data["done"])
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{file} cannot be read ({error}); remove it to go on.") from error
        if codes.shape != shape or not 0 <= done <= shape[1]:
            raise ConfigError(
                f"{file} holds {done} of {codes.shape} codes, expected {shape}; remove it to go on."
            )
        return codes, done

    def save(self, level: int, codes: np.ndarray, done: int) -> None:
        with atomic.atomic_path(self.path / f"level_{level}" / "codes.npz") as file:
            np.savez(file, codes=codes.astype(np.uint16), done=done)

    def add_time(self, level: int, seconds: float) -> None:
        for entry in self.record["levels"]:
            if entry["level"] == level:
                entry["seconds_to_sample"] = (entry["seconds_to_sample"] or 0.0) + seconds
        self.save_job()

    def write_sound(self, level: int, audio: np.ndarray) -> None:
        import soundfile

        for i, sound in enumerate(audio):
            with atomic.atomic_path(self.path / f"level_{level}" / f"item_{i}.wav") as file:
                soundfile.write(file, sound, self.record["sample_rate"])
