"""What is evaluated, and what a suite of figures is."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from data_pipeline import records
from data_pipeline.errors import DataError
from data_pipeline.songs import PreparedSong, prepared_songs
from jukejax.checkpoint import CheckpointError, directory, open_existing
from jukejax.model_dir import LoadedVQVAE, ModelDir


class Lacking(CheckpointError):
    """The model or the data have nothing that a suite could be asked about; `all` goes without."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is evaluated, loaded as far as every suite needs it."""

    directory: ModelDir
    vqvae: LoadedVQVAE
    mesh: Mesh
    songs: Path
    codes: Path
    out: Path
    batch: int

    @property
    def levels(self) -> range:
        return range(self.vqvae.config.levels)


@dataclasses.dataclass(frozen=True)
class Suite:
    """One question. `source` is what the answer depends on beside the VQ-VAE and the codes."""

    source: Callable[[Subject], dict[str, Any]]
    measure: Callable[[Subject], dict[str, Any]]
    table: Callable[[dict[str, Any]], str]
    definition: int = 1  # raised when the same source would give other figures


def held_out_songs(subject: Subject) -> list[PreparedSong]:
    """The test split of the songs, checked against the codes.

    Raises:
      DataError: no test split, or the codes are of other songs.
    """
    songs = records.split_songs(subject.songs, "test")
    encoded = {song.id: (song.n_samples, song.split) for song in prepared_songs(subject.codes)}
    for song in songs:
        if encoded.get(song.id) != (song.n_samples, "test"):
            raise DataError(
                f"{subject.codes} does not hold held-out song {song.id!r} as {subject.songs} has "
                "it; encode the songs again with `python -m experiments.encode`"
            )
    return songs


def checkpoint_mark(workdir: Path) -> dict[str, Any]:
    """Which checkpoint of a run is the latest: its step, and when it was written."""
    with open_existing(workdir) as checkpoints:
        step = checkpoints.latest
    if step is None:
        raise CheckpointError(f"{workdir} holds no whole checkpoint; train there first.")
    written = (directory(workdir) / str(step)).stat().st_mtime
    return {"step": step, "written": datetime.fromtimestamp(written, UTC).isoformat()}


def digest_files(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} ".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def data_digest(folder: Path) -> str:
    """16 hexadecimal digits for a data set's songs and records (whose digests its notes keep)."""
    prepared_songs(folder)  # a folder that holds none is refused in a sentence
    return digest_files([folder / "songs.jsonl", *sorted((folder / "shards").glob("*.json"))])
