"""The sets of sounds that the suite `generation` compares: real songs, rebuilt ones, samples.

Where no sample directories are given, `make` samples some.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import soundfile
from tqdm import tqdm

from jukejax.evaluation import fidelity, melody, sounds
from jukejax.evaluation.data import Song
from jukejax.evaluation.embedding import Embedder
from jukejax.evaluation.pages.sample_page import write_page
from jukejax.evaluation.subject import Lacking, Subject, digest_files
from jukejax.label_kinds import ARTIST, GENRE
from jukejax.model_dir import LoadedModel
from jukejax.sampling.job import Item, Job
from jukejax.sampling.request import Request
from jukejax.sampling.resolve import plan_level
from jukejax.sampling.run import sample_into
from jukejax.sampling.sample_dir import SampleDir, read_job
from jukejax.text.labels import Vocabulary

SONGS, SECONDS = 200, 45.0  # of a split: songs at most, and seconds from the middle of each
MELODY_SECONDS = 12.0  # of each sound


class Piece(NamedTuple):
    """A sound and its labels; `borders` are those of a sample's windows, in seconds."""

    sound: sounds.Sound
    artist: str
    genre: str
    borders: tuple[float, ...] = ()


# --- the sets -------------------------------------------------------------------------------------


def _middles(songs: Sequence[Song]) -> Iterator[tuple[Song, int, int]]:
    """Songs, evenly spread, with the first and last sample of their middles."""
    for song in songs[:: -(-len(songs) // SONGS)]:
        length = min(song.n_samples, round(SECONDS * song.sample_rate))
        start = (song.n_samples - length) // 2
        yield song, start, start + length


def real(subject: Subject, split: str) -> Iterator[Piece]:
    """The middles of a split's songs, as mean downmix."""
    for song, start, stop in _middles(subject.songs.split(split)):
        sound = subject.songs.audio(song, start, stop)
        yield Piece(sound, song.artist, "".join(song.genres[:1]))


def rebuilt(subject: Subject, level: int) -> Iterator[Piece]:
    """The same of held-out songs, decoded from their codes of a level: a bound for samples."""
    with jax.set_mesh(subject.mesh):
        for song, start, stop in _middles(subject.songs.split("test")):
            codes = subject.codes.read(song)[level]
            sound = np.concatenate([*fidelity.decode_pieces(subject.vqvae, level, codes)])
            yield Piece(sound[start:stop], song.artist, "".join(song.genres[:1]))


def sampled(subject: Subject, folders: Iterable[Path]) -> Iterator[Piece]:
    """The sounds of sample directories, each of its lowest level."""
    rate = subject.vqvae.config.sample_rate
    for folder in folders:
        sample, (_, job) = SampleDir.open(folder), read_job(folder / "job.json")
        level = lowest(folder)
        borders = _borders(subject, job, level)
        for item, path in zip(job.items, sample.sounds(level), strict=True):
            sound, file_rate = soundfile.read(path, dtype="float32")
            if file_rate != rate:
                raise Lacking(f"{path} has {file_rate} Hz, but the model {rate}; name its samples.")
            yield Piece(sound, item.artist, "".join(item.genres[:1]), borders)


def lowest(folder: Path) -> int:
    """The lowest level of a sample directory that has its sounds; Lacking where none has."""
    sample = SampleDir.open(folder)
    for entry in sorted(sample.record["levels"], key=lambda entry: entry["level"]):
        if all(path.exists() for path in sample.sounds(entry["level"])):
            return int(entry["level"])
    raise Lacking(f"{folder} holds no finished level; let `jukejax sample` finish it.")


def _borders(subject: Subject, job: Job, level: int) -> tuple[float, ...]:
    """Where one window of a level ends and the next continues, in seconds."""
    vqvae, config = subject.vqvae.config, subject.prior_config(level)
    samples = job.samples(vqvae.sample_rate, vqvae.block)
    windows = plan_level(job, config, samples).windows
    return tuple(w.given * config.hop / vqvae.sample_rate for w in windows if w.given)


# --- samples that are made ------------------------------------------------------------------------


def source(subject: Subject) -> dict[str, Any]:
    """What identifies the samples: digests of those given, or what `make` makes them from."""
    if not subject.samples:
        wanted = [subject.generate.count, subject.generate.seconds]
        return {"priors": subject.prior_marks(subject.prior_levels[:1]), "generate": wanted}
    files = [path for x in subject.samples for path in sorted(x.glob("level_*/codes.npz"))]
    return {"samples": digest_files([x / "job.json" for x in subject.samples] + files)}


def sample_dirs(subject: Subject) -> Sequence[Path]:
    """The sample directories given, or else the one that `make` makes."""
    return subject.samples or (make(subject),)


def make(subject: Subject) -> Path:
    """Samples the top level into OUT/samples, with labels and lyrics of training songs; resumable.

    Raises:
      Lacking: this is one of several processes.
    """
    if jax.process_count() > 1:
        raise Lacking("Samples are made by one process; sample first and give --samples.")
    level, seconds = subject.prior_levels[0], subject.generate.seconds
    config = subject.prior_config(level)
    songs = subject.songs.split("train")
    names = subject.label_names(config)
    most = config.labels.max_genres if config.labels else 0
    items = tuple(
        Item(*known_labels(song, names, most), song.lyrics) if names else Item(lyrics=song.lyrics)
        for song in _spread_over_labels(songs, subject.generate.count)
    )
    median = float(np.median([song.n_samples / song.sample_rate for song in songs]))
    job = Job(
        model=str(subject.directory.path.resolve()),
        items=items,
        seconds=seconds,
        total_seconds=max(median, seconds),
        levels=(level,),
        max_batch=16,
    )
    mark = repr((dataclasses.replace(job, model=""), subject.prior_marks([level])))
    folder = subject.out / "samples" / hashlib.sha256(mark.encode()).hexdigest()[:12]
    model = LoadedModel(subject.directory, subject.vqvae, subject.mesh)
    for _ in sample_into(folder, model, Request(job, []), progress=True):
        pass
    write_page(folder)
    return folder


def _spread_over_labels(songs: Iterable[Song], count: int) -> Iterator[Song]:
    """`count` songs, in turn of each artist and genres, each time the next song of these."""
    groups: dict[Any, list[Song]] = {}
    for song in songs:
        groups.setdefault((song.artist, song.genres), []).append(song)
    for i in range(count):
        group = list(groups.values())[i % len(groups)]
        yield group[i // len(groups) % len(group)]


def known_labels(song: Song, names: Vocabulary, most: int) -> tuple[str, tuple[str, ...]]:
    """Artist and genres of a song, without those that the label names lack."""
    genres = tuple(g for g in song.genres if names.ids(GENRE, (g,), 32).all())
    return song.artist if names.ids(ARTIST, song.artist) else "", genres[:most]


# --- what is known of a set -----------------------------------------------------------------------


def describe(items: Iterable[Piece], embedder: Embedder, rate: int, title: str) -> dict[str, Any]:
    """All measures of a set of sounds, as JSON: embeddings, tags, levels, notes, labels."""
    vectors, tags, songs, rows, labels = [], [], [], [], []
    counts = sounds.LevelCounts(rate)
    for i, item in enumerate(tqdm(items, title, unit="sound", disable=None)):
        embedded = embedder(item.sound, rate)
        vectors.append(embedded.vectors)
        tags.append(embedded.tags)
        songs += [i] * len(embedded.vectors)
        counts.add([item.sound])
        rows.append(
            sounds.levels(item.sound, rate)
            | {"repetition": sounds.repetition(item.sound, rate)}
            | sounds.joins(item.sound, rate, item.borders)
            | melody.describe(item.sound[: round(MELODY_SECONDS * rate)], rate)
        )
        labels.append([item.artist, item.genre])
    if not rows:
        raise Lacking(f"There is no sound to measure in: {title}.")
    return {
        "vectors": np.concatenate(vectors).round(5).tolist(),
        "tags": np.concatenate(tags).mean(axis=0).tolist() if songs else [],
        "songs": songs,
        "counts": counts.counts.tolist(),
        "sounds": rows,
        "labels": labels,
    }
