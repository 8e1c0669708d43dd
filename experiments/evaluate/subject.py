"""What is evaluated, and what a suite of figures is."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from data_pipeline import records
from data_pipeline.codes import codes_info
from data_pipeline.songs import PreparedSong, prepared_songs
from jukejax.config import PriorConfig
from jukejax.errors import CheckpointError, DataError
from jukejax.evaluation.report import Figure, Score, Table
from jukejax.model_dir import LoadedPrior, LoadedVQVAE, ModelDir, load_vqvae
from jukejax.parallel.mesh import batch_ways
from jukejax.training.checkpoint import load_experiment

Result = dict[str, Any]


class Lacking(CheckpointError):
    """The model or the data have nothing that a suite could be asked about; `all` goes without."""


class Subject:
    """What is evaluated. A part is loaded and checked when a suite first asks for it."""

    generate, generate_seconds, embedder = 16, 12.0, "musicnn-mtt"  # of the suite generation

    def __init__(
        self,
        directory: ModelDir,
        mesh: Mesh,
        songs: Path | None,
        codes: Path | None,
        out: Path,
        batch: int = 8,
        samples: tuple[Path, ...] = (),
    ) -> None:
        ways = batch_ways(mesh)
        self.directory, self.mesh, self.out = directory, mesh, out
        self.batch = -(-batch // ways) * ways  # what the mesh divides
        self.samples = samples
        self._songs, self._codes = songs, codes
        self.once: Callable[[str, Callable[[], Any]], Any] = lambda key, compute: compute()
        """`once(key, compute)`: compute(), as JSON has it, kept until the suite is done; a run that
        was interrupted does not compute it again."""

    @functools.cached_property
    def vqvae(self) -> LoadedVQVAE:
        """The model's VQ-VAE; CheckpointError where it cannot be had."""
        return load_vqvae(self.directory.vqvae, self.mesh)

    @property
    def levels(self) -> range:
        return range(self.vqvae.config.levels)

    @functools.cached_property
    def songs(self) -> Path:
        """The prepared songs; Lacking where none were given."""
        if self._songs is None:
            raise Lacking("This needs songs; give --songs.")
        prepared_songs(self._songs)
        return self._songs

    @functools.cached_property
    def codes(self) -> Path:
        """The codes of the songs; CheckpointError where they are another VQ-VAE's."""
        if self._codes is None:
            raise Lacking("This needs codes of the songs; give --codes.")
        info = codes_info(self._codes)
        if info.fingerprint != self.vqvae.fingerprint:
            raise CheckpointError(
                f"{self._codes} holds codes of VQ-VAE {info.fingerprint}, but "
                f"{self.directory.path} names VQ-VAE {self.vqvae.fingerprint}; encode the songs "
                "with this one, or name the other."
            )
        return self._codes

    @property
    def prior_levels(self) -> list[int]:
        """Levels of the priors, top first; Lacking where there are none."""
        if not self.directory.priors:
            raise Lacking(
                f"{self.directory.path} names no priors, so there is nothing to ask them; train "
                "one and name it in model.json."
            )
        return sorted(self.directory.priors, reverse=True)

    def prior_config(self, level: int) -> tuple[PriorConfig, dict[str, Any]]:
        """Config and note of a level's prior, checked against the VQ-VAE; no weights are read."""
        return self.directory.checked_config(self.vqvae, level)

    def load_prior(self, level: int) -> LoadedPrior:
        """A level's prior, checked against the VQ-VAE; not kept here."""
        return self.directory.load_prior(self.mesh, self.vqvae, level)

    def prior_marks(self, levels: Iterable[int]) -> dict[str, Any]:
        """Which checkpoints of some levels' priors are the latest."""
        return {str(level): checkpoint_mark(self.directory.prior(level)) for level in levels}

    def mark(self, part: str) -> Any:
        """What tells a part (of `Suite.needs`) from another: fingerprints, runs, steps, digests."""
        if part == "vqvae":
            return {"fingerprint": self.vqvae.fingerprint, "step": self.vqvae.step}
        if part == "songs":
            return data_digest(self.songs)
        if part == "codes":
            return data_digest(self.codes)
        if part == "priors":
            return self.prior_marks(self.prior_levels)
        if part == "labels":
            files = self.directory.label_files
            for path in files.values():
                if not path.is_file():
                    raise CheckpointError(
                        f"{self.directory.path} names {path} for labels, which is not there."
                    )
            return {str(level): digest_files([path]) for level, path in sorted(files.items())}
        raise KeyError(part)


def nothing(subject: Subject) -> dict[str, Any]:
    return {}


def none(result: Result) -> list[Any]:
    return []


@dataclass(frozen=True)
class Suite:
    """One question asked of a model.

    The answer is computed again when anything changes that `needs` names, what `source` returns,
    or `definition`. `measure` gives what JSON can hold, finite numbers alone. `tables`, `figures`
    and `scores` show a result, also one read from disk.
    """

    title: str
    about: str  # for the report: what is measured, why, and which direction is good
    measure: Callable[[Subject], Result]
    tables: Callable[[Result], list[Table]]
    needs: tuple[str, ...] = ("vqvae", "codes")  # of vqvae, songs, codes, priors, labels
    figures: Callable[[Result], list[Figure]] = none
    scores: Callable[[Result], list[Score]] = none  # what `compare` sets side by side
    alike: tuple[str, ...] = ()  # parts of the source that must be the same for that
    source: Callable[[Subject], dict[str, Any]] = nothing  # what else it depends on
    definition: int = 1  # raised when the same source would give other figures

    def sources(self, subject: Subject) -> dict[str, Any]:
        """All that a result depends on; raises what keeps the suite from running."""
        marks = {part: subject.mark(part) for part in self.needs}
        return {**marks, "definition": self.definition, **self.source(subject)}


def held_out_songs(subject: Subject) -> Sequence[PreparedSong]:
    """The test split of the songs, checked against the codes.

    Raises:
      DataError: no test split, or the codes are of other songs.
    """
    songs = records.split_songs(subject.songs, "test")
    encoded = {song.id: song.n_samples for song in prepared_songs(subject.codes).of_split("test")}
    for song in songs:
        if encoded.get(song.id) != song.n_samples:
            raise DataError(
                f"{subject.codes} does not hold held-out song {song.id!r} as {subject.songs} has "
                "it; encode the songs again with `python -m experiments.encode`"
            )
    return songs


def checkpoint_mark(workdir: Path) -> dict[str, Any]:
    """Which checkpoint of a run is the latest: the run's random name, and its step.

    A copy of a run has the same. Imported weights have no name: what they came from names them.

    Raises:
      CheckpointError: there is none.
    """
    _, note = load_experiment(workdir)
    step = note.pop("step")
    noted = hashlib.sha256(json.dumps(note, sort_keys=True).encode()).hexdigest()[:16]
    return {"run": note.get("run", noted), "step": step}


def digest_files(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} ".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def data_digest(folder: Path) -> str:
    """16 hexadecimal digits for a data set's songs and records (whose digests its notes keep)."""
    prepared_songs(folder)  # a folder that holds none is refused in a sentence
    return digest_files([folder / "songs.jsonl", *sorted((folder / "shards").glob("*.json"))])
