"""The sets of sounds that the suite `generation` compares: real songs, rebuilt ones, samples."""

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

SONGS, SECONDS = 200, 45.0  # of a split: songs at most, and so much from the middle of each
MELODY_SECONDS = 12.0  # of each sound


class Piece(NamedTuple):
    """A sound and what was asked for; times (s) of window borders in samples."""

    sound: sounds.Sound
    artist: str
    genre: str
    borders: tuple[float, ...] = ()


def _spread(songs: Sequence[Song]) -> Sequence[Song]:
    """Songs at even distances in the list, SONGS at most."""
    return songs[:: -(-len(songs) // SONGS)]


def _middle(song: Song) -> tuple[int, int]:
    length = min(song.n_samples, round(SECONDS * song.sample_rate))
    start = (song.n_samples - length) // 2
    return start, start + length


def real(subject: Subject, split: str) -> Iterator[Piece]:
    """The middles of a split's songs, as mean downmix."""
    for song in _spread(subject.songs.split(split)):
        sound = subject.songs.audio(song, *_middle(song))
        yield Piece(sound, song.artist, "".join(song.genres[:1]))


def rebuilt(subject: Subject, level: int) -> Iterator[Piece]:
    """The same of held-out songs, decoded from their codes of a level: what samples can reach."""
    with jax.set_mesh(subject.mesh):
        for song in _spread(subject.songs.split("test")):
            start, stop = _middle(song)
            codes = subject.codes.read(song)[level]
            sound = np.concatenate([*fidelity.decode_pieces(subject.vqvae, level, codes)])
            yield Piece(sound[start:stop], song.artist, "".join(song.genres[:1]))


def sampled(subject: Subject, folders: Iterable[Path]) -> Iterator[Piece]:
    """The sounds of sample directories, of the lowest level that each has."""
    rate = subject.vqvae.config.sample_rate
    for folder in folders:
        found, (_, job) = SampleDir.open(folder), read_job(folder / "job.json")
        level = lowest(folder)
        borders = _borders(subject, job, level)
        for item, path in zip(job.items, found.sounds(level), strict=True):
            sound, file_rate = soundfile.read(path, dtype="float32")
            if file_rate != rate:
                raise Lacking(f"{path} has {file_rate} Hz, but the model {rate}; name its samples.")
            yield Piece(sound, item.artist, "".join(item.genres[:1]), borders)


def lowest(folder: Path) -> int:
    """The lowest level of a sample directory whose sounds are there; Lacking where none is."""
    found = SampleDir.open(folder)
    for entry in sorted(found.record["levels"], key=lambda entry: entry["level"]):
        if all(path.exists() for path in found.sounds(entry["level"])):
            return int(entry["level"])
    raise Lacking(f"{folder} holds no finished level; let experiments.sample finish it.")


def _borders(subject: Subject, job: Job, level: int) -> tuple[float, ...]:
    """Where one window of a level ends and the next goes on, in seconds."""
    vqvae, config = subject.vqvae.config, subject.prior_config(level)
    samples = job.samples(vqvae.sample_rate, vqvae.hops[-1])
    windows = plan_level(job, config, samples).windows
    return tuple(w.given * config.hop / vqvae.sample_rate for w in windows if w.given)


def source(subject: Subject) -> dict[str, Any]:
    """What tells samples from others: the files given, or what is to be made."""
    if not subject.samples:
        wanted = [subject.generate.count, subject.generate.seconds]
        return {"priors": subject.prior_marks(subject.prior_levels[:1]), "generate": wanted}
    files = [path for x in subject.samples for path in sorted(x.glob("level_*/codes.npz"))]
    return {"samples": digest_files([x / "job.json" for x in subject.samples] + files)}


def make(subject: Subject) -> Path:
    """Samples of the top level with labels and lyrics of training songs, OUT/samples; resumable."""
    level, wanted = subject.prior_levels[0], subject.generate
    if jax.process_count() > 1:
        raise Lacking("Samples are made by one process; sample first and give --samples.")
    config = subject.prior_config(level)
    songs = subject.songs.split("train")
    by_label: dict[Any, list[Song]] = {}
    names = subject.label_names(config)
    for song in songs:
        by_label.setdefault((song.artist, song.genres), []).append(song)
    groups = list(by_label.values())
    chosen = [groups[i % len(groups)][i // len(groups) % len(groups[i % len(groups)])]
              for i in range(wanted.count)]  # fmt: skip
    items = tuple(
        Item(*_known(s, names, config.labels.max_genres), s.lyrics)
        if names and config.labels
        else Item(lyrics=s.lyrics)
        for s in chosen
    )
    whole = float(np.median([song.n_samples / song.sample_rate for song in songs]))
    job = Job(
        model=str(subject.directory.path.resolve()),
        items=items,
        seconds=wanted.seconds,
        total_seconds=max(whole, wanted.seconds),
        levels=(level,),
        max_batch=16,
    )
    mark = hashlib.sha256(
        repr((dataclasses.replace(job, model=""), subject.prior_marks([level]))).encode()
    )
    folder = subject.out / "samples" / mark.hexdigest()[:12]
    model = LoadedModel(subject.directory, subject.vqvae, subject.mesh)
    for _ in sample_into(folder, model, Request(job, []), progress=True):
        pass
    write_page(folder)
    return folder


def _known(song: Song, names: Vocabulary, most: int) -> tuple[str, tuple[str, ...]]:
    """Artist and genres of a song as far as the label names have them."""
    genres = tuple(g for g in song.genres if names.ids(GENRE, (g,), 32).all())
    return song.artist if names.ids(ARTIST, song.artist) else "", genres[:most]


def describe(items: Iterable[Piece], embedder: Embedder, rate: int, title: str) -> dict[str, Any]:
    """All that the suite needs to know of a set of sounds, as JSON has it."""
    vectors, tags, songs, rows, labels = [], [], [], [], []
    counts = sounds.LevelCounts(rate)
    for i, item in enumerate(tqdm(items, title, unit="sound", disable=None)):
        found = embedder(item.sound, rate)
        vectors.append(found.vectors)
        tags.append(found.tags)
        songs += [i] * len(found.vectors)
        counts.add([item.sound])
        rows.append(
            sounds.levels(item.sound, rate)
            | {"repetition": sounds.repetition(item.sound, rate)}
            | sounds.joins(item.sound, rate, item.borders)
            | melody.describe(item.sound[: round(MELODY_SECONDS * rate)], rate)
        )
        labels.append([item.artist, item.genre])
    if not rows:
        raise Lacking(f"There is no sound to look at for: {title}.")
    return {
        "vectors": np.concatenate(vectors).round(5).tolist(),
        "tags": np.concatenate(tags).mean(axis=0).tolist() if songs else [],
        "songs": songs,
        "counts": counts.counts.tolist(),
        "sounds": rows,
        "labels": labels,
    }
