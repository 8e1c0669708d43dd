"""The model and the data that are evaluated (`Subject`), and one question about them (`Suite`)."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jax.sharding import Mesh

from jukejax.config import PriorConfig
from jukejax.errors import CheckpointError, DataError
from jukejax.evaluation.data import Codes, Song, Songs
from jukejax.evaluation.results import Figure, Score, Table
from jukejax.evaluation.words import Aligner
from jukejax.model_dir import LoadedPrior, LoadedRenderer, LoadedVQVAE, ModelDir, load_vqvae
from jukejax.parallel.mesh import batch_ways
from jukejax.text.labels import Vocabulary
from jukejax.training.checkpoint import load_experiment

Result = dict[str, Any]
Item = TypeVar("Item")


class Lacking(CheckpointError):
    """The model or the data lack what a suite asks about; `all` skips that suite."""


@dataclass(frozen=True)
class Generate:
    """What is sampled where no samples are given, and what the suite `generation` embeds with.

    Attributes:
      lines, line_seconds, temperature, guidance: of the suite `singing`.
    """

    count: int = 16
    seconds: float = 12.0
    embedder: str = "musicnn-mtt"
    lines: int = 104
    line_seconds: float = 6.0
    temperature: float = 0.98
    guidance: float = 0.0


class Subject:
    """What is evaluated. Each part is loaded and checked when a suite first asks for it."""

    def __init__(
        self,
        directory: ModelDir,
        mesh: Mesh,
        out: Path,
        songs: Songs | None = None,
        codes: Codes | None = None,
        batch: int = 8,
        samples: tuple[Path, ...] = (),
        generate: Generate | None = None,
        aligner: Callable[[], Aligner] | None = None,
    ) -> None:
        """Names what is evaluated.

        Args:
          out: folder that results are written to.
          songs, codes: the same songs as sound and as codes of the model's VQ-VAE.
          batch: windows that a prior reads at once, rounded up to what the mesh divides.
          samples: sample directories.
          aligner: makes the forced alignment that `reconstruction` judges words with; without it
            nothing of `round_trip` is measured.
        """
        ways = batch_ways(mesh)
        self.directory, self.mesh, self.out = directory, mesh, out
        self.batch = -(-batch // ways) * ways
        self.samples, self.generate = samples, generate or Generate()
        self.aligner = aligner
        self._songs, self._codes = songs, codes
        self.once: Callable[[str, Callable[[], Any]], Any] = lambda key, compute: compute()
        """`once(key, compute)`: the value of compute(), as JSON, kept until the suite is done, so
        that an interrupted run does not compute it again."""

    @functools.cached_property
    def vqvae(self) -> LoadedVQVAE:
        """The model's VQ-VAE; CheckpointError where it cannot be loaded."""
        return load_vqvae(self.directory.vqvae, self.mesh)

    @property
    def levels(self) -> range:
        return range(self.vqvae.config.levels)

    @functools.cached_property
    def systems(self) -> dict[str, tuple[int, LoadedRenderer | None]]:
        """What makes sound of codes, by name, with the level of the codes.

        The decoder of each level (None), and the renderer where the model names one.
        """
        found: dict[str, tuple[int, LoadedRenderer | None]] = {
            f"level {level}": (level, None) for level in self.levels
        }
        if self.directory.renderer:
            renderer = self.directory.load_renderer(self.mesh, self.vqvae)
            found["renderer"] = (renderer.config.level, renderer)
        return found

    @functools.cached_property
    def songs(self) -> Songs:
        """The prepared songs; Lacking where none were given."""
        if self._songs is None:
            raise Lacking("This needs songs; give --songs.")
        self._songs.listed()
        return self._songs

    @functools.cached_property
    def codes(self) -> Codes:
        """The codes of the songs; CheckpointError where another VQ-VAE encoded them."""
        if self._codes is None:
            raise Lacking("This needs codes of the songs; give --codes.")
        encoded_by = self._codes.fingerprint
        if encoded_by != self.vqvae.fingerprint:
            raise CheckpointError(
                f"{self._codes} holds codes of VQ-VAE {encoded_by}, but {self.directory.path} "
                f"names VQ-VAE {self.vqvae.fingerprint}; encode the songs with this one, or name "
                "the other."
            )
        return self._codes

    @property
    def prior_levels(self) -> list[int]:
        """Levels of the priors, top first; Lacking where there are none."""
        if not self.directory.priors:
            raise Lacking(
                f"{self.directory.path} names no priors, which this measures; train one and name "
                "it in model.json."
            )
        return sorted(self.directory.priors, reverse=True)

    def prior_config(self, level: int) -> PriorConfig:
        """Config of a level's prior, checked against the VQ-VAE; no weights are read."""
        return self.directory.checked_config(self.vqvae, level)[0]

    def load_prior(self, level: int) -> LoadedPrior:
        """A level's prior, checked against the VQ-VAE; not kept here."""
        return self.directory.load_prior(self.mesh, self.vqvae, level)

    def label_names(self, config: PriorConfig) -> Vocabulary | None:
        """The label names of a prior; None for one without labels."""
        return Vocabulary.load(self.directory.labels(config.level)) if config.labels else None

    def prior_marks(self, levels: Iterable[int]) -> dict[str, Any]:
        """The latest checkpoint of the priors of these levels: run and step."""
        return {str(level): checkpoint_mark(self.directory.prior(level)) for level in levels}

    def mark(self, part: str) -> Any:
        """What identifies a part (of `Suite.needs`): fingerprints, runs, steps, digests."""
        if part == "vqvae":
            return {"fingerprint": self.vqvae.fingerprint, "step": self.vqvae.step}
        if part == "songs":
            return self.songs.digest()
        if part == "codes":
            return self.codes.digest()
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


@dataclass(frozen=True)
class Suite:
    """One question asked of a model.

    The result is computed again when a part in `needs` changes, or what `source` returns, or
    `definition`. `measure` returns JSON with finite numbers alone. `tables`, `figures` and `scores`
    show a result, also one read from disk.
    """

    title: str
    about: str  # for the report: what is measured, why, and which direction is good
    measure: Callable[[Subject], Result]
    tables: Callable[[Result], list[Table]]
    needs: tuple[str, ...] = ("vqvae", "codes")  # of vqvae, songs, codes, priors, labels
    figures: Callable[[Result], list[Figure]] = lambda result: []
    scores: Callable[[Result], list[Score]] = lambda result: []  # what `compare` compares
    alike: tuple[str, ...] = ()  # parts of the source that must be equal to compare scores
    source: Callable[[Subject], dict[str, Any]] = lambda subject: {}  # what else it depends on
    definition: int = 1  # raised when the same source would give other figures

    def sources(self, subject: Subject) -> dict[str, Any]:
        """All that a result depends on; raises the error that keeps the suite from running."""
        marks = {part: subject.mark(part) for part in self.needs}
        return {**marks, "definition": self.definition, **self.source(subject)}


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of the items, evenly spread."""
    chosen = np.linspace(0, len(items), min(most, len(items)), endpoint=False).astype(int)
    return [items[int(i)] for i in chosen]


def held_out_songs(subject: Subject) -> Sequence[Song]:
    """The test split of the songs, checked against the codes.

    Raises:
      DataError: no test split, or the codes are of other songs.
    """
    songs = subject.songs.split("test")
    encoded = {song.id: song.n_samples for song in subject.codes.split("test")}
    for song in songs:
        if encoded.get(song.id) != song.n_samples:
            raise DataError(
                f"{subject.codes} does not hold held-out song {song.id!r} as {subject.songs} has "
                "it; encode the songs again with `jukejax encode`"
            )
    return songs


def checkpoint_mark(workdir: Path) -> dict[str, Any]:
    """Which checkpoint of a run is the latest: the run's random name, and its step.

    A copy of a run has the same. Imported weights have no name; a digest of the note that says
    where they came from stands in for it.

    Raises:
      CheckpointError: there is none.
    """
    _, note = load_experiment(workdir)
    step = note.pop("step")
    noted = hashlib.sha256(json.dumps(note, sort_keys=True).encode()).hexdigest()[:16]
    return {"run": note.get("run", noted), "step": step}


def digest_files(paths: Iterable[Path]) -> str:
    """16 hexadecimal digits of the SHA-256 of files' names and contents."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} ".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
