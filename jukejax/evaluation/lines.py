"""Lines of held-out songs: their words and tracks, samples of them, and the sounds beside those.

A line is a few seconds of a song, from just before a word to the last complete one. S samples, T
codes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import soundfile
from numpy.typing import NDArray

from jukejax.codec import Decoder, Piece
from jukejax.config import PriorConfig
from jukejax.evaluation.data import Song
from jukejax.evaluation.fidelity import Sound
from jukejax.evaluation.pages.sample_page import write_page
from jukejax.evaluation.round_trip import ORIGINAL, Excerpt, cut
from jukejax.evaluation.sample_sets import known_labels
from jukejax.evaluation.subject import Lacking, Subject, evenly, held_out_songs
from jukejax.model_dir import LoadedModel
from jukejax.sampling import sound
from jukejax.sampling.job import Item, Job
from jukejax.sampling.request import Request
from jukejax.sampling.run import sample_into
from jukejax.sampling.sample_dir import SampleDir
from jukejax.tracks import Tracks, song_tracks

AHEAD = 0.1  # seconds of a line before its first word
LEAST = 3  # words of a line
CHOICES = 8  # texts that an aligner picks from
BATCH = 32  # lines that are sampled at once
SAMPLES = "samples"
BASELINES = ("round trip", "shuffled codes", "unigram codes")


class Lines(NamedTuple):
    """The lines that are sung, and the texts that wrong ones are drawn from."""

    chosen: list[Excerpt]
    pool: list[Excerpt]


def choose(subject: Subject, config: PriorConfig) -> Lines:
    """Lines of the held-out songs with word times and all tracks of a prior, evenly over them.

    Raises:
      Lacking: the prior reads no tracks, or there are too few lines.
    """
    asked, tracks = subject.generate, config.tracks
    if tracks is None:
        raise Lacking("The prior reads no tracks, so it cannot be given words and a tune to sing.")
    samples = line_samples(subject)
    names = {track.name for track in tracks.tracks}
    songs = [x for x in held_out_songs(subject) if x.words and names <= x.tracks.keys()]
    pool = [line for song in songs for line in of_song(song, samples, subject.vqvae.config.block)]
    if len({line.song.id for line in pool}) < 2:
        raise Lacking(
            f"No two held-out songs have word times, the tracks {', '.join(sorted(names))} and "
            f"lines of {LEAST} words in {samples / config.sample_rate:.1f} s."
        )
    return Lines(evenly(pool, asked.lines), pool)


def of_song(song: Song, samples: int, block: int) -> Iterator[Excerpt]:
    """Consecutive lines of a song, of at most S samples each, that begin at whole blocks.

    All S samples of a line are in the song.
    """
    first = 0  # word
    while first < len(song.words):
        start = max(0, round((song.words[first][1] - AHEAD) * song.sample_rate)) // block * block
        if start + samples > song.n_samples:
            return
        line = cut(song, start, samples, first)
        words = len(line.text.printed) if line.text else 0
        if words >= LEAST:
            yield line
        first += max(1, words)


def texts(line: Excerpt, pool: Sequence[Excerpt]) -> list[list[str]]:
    """The line's words, then wrong ones: as many words of lines of other songs.

    Raises:
      Lacking: there are too few such lines.
    """
    assert line.text
    right = line.text.printed
    others = [
        other.text.printed[: len(right)]
        for other in pool
        if other.text and other.song.id != line.song.id and len(other.text.printed) >= len(right)
    ]
    wrong = [text for text in others if text != right]
    if len(wrong) < CHOICES - 1:
        raise Lacking(
            f"{len(wrong)} lines of other held-out songs have {len(right)} words, but "
            f"{CHOICES - 1} are needed to pick the right one from; give shorter lines "
            "(--line-seconds) or more held-out songs."
        )
    return [right, *random.Random(f"{line.song.id} {line.start}").sample(wrong, CHOICES - 1)]


def shifted(line: Excerpt) -> Tracks:
    """The song's tracks in a line, in seconds from its start."""
    begin, end = line.start / line.rate, line.stop / line.rate
    return {
        name: [
            (what, max(0.0, a - begin), b - begin) for what, a, b in events if b > begin and a < end
        ]
        for name, events in line.song.tracks.items()
    }


# --- sounds ---------------------------------------------------------------------------------------


def renders(subject: Subject, level: int) -> bool:
    """Whether the model's renderer is of this level: it then makes every sound of codes."""
    directory = subject.directory
    return bool(directory.renderer) and directory.checked_renderer(subject.vqvae)[0].level == level


def sample(subject: Subject, config: PriorConfig, chosen: Sequence[Excerpt]) -> Iterator[Sound]:
    """The lines sung by the model: (S,) each, from their tracks and the labels of their songs.

    They are sampled into OUT/singing, where they are kept; an interrupted run continues. Only the
    top level is sampled.

    Raises:
      Lacking: this is one of several processes.
    """
    if jax.process_count() > 1:
        raise Lacking("Lines are sampled by one process; run this suite alone in one.")
    asked, level = subject.generate, config.level
    names, labels = subject.label_names(config), config.labels
    read = {track.name for track in config.tracks.tracks} if config.tracks else set()
    items = []
    for line in chosen:
        tracks = {name: events for name, events in shifted(line).items() if name in read}
        artist, genres = "", tuple[str, ...]()
        if names and labels:
            artist, genres = known_labels(line.song, names, labels.max_genres)
        items.append(Item(artist, genres, tracks=song_tracks(tracks)))
    seconds = line_samples(subject) / config.sample_rate
    lengths = [line.song.n_samples / line.rate for line in chosen]
    job = Job(
        model=str(subject.directory.path.resolve()), items=tuple(items), seconds=seconds,
        total_seconds=max(float(np.median(lengths)), seconds), levels=(level,), max_batch=BATCH,
        temperature=(asked.temperature,) * len(subject.levels), guidance=asked.guidance,
        render=renders(subject, level),
    )  # fmt: skip
    mark = repr((dataclasses.replace(job, model=""), subject.prior_marks([level])))
    folder = subject.out / "singing" / hashlib.sha256(mark.encode()).hexdigest()[:12]
    print(f"singing: {len(items)} lines of {seconds:.1f} s, seed {job.seed}, in {folder}")
    model = LoadedModel(subject.directory, subject.vqvae, subject.mesh)
    for _ in sample_into(folder, model, Request(job, []), progress=True):
        pass
    write_page(folder)
    for path in SampleDir.open(folder).sounds(level):
        yield soundfile.read(path, dtype="float32")[0]


def line_samples(subject: Subject) -> int:
    """S of a line: whole blocks."""
    config, seconds = subject.vqvae.config, subject.generate.line_seconds
    return max(1, round(seconds * config.sample_rate / config.block)) * config.block


class Beside:
    """The sounds that a sample of a line stands beside."""

    def __init__(self, subject: Subject, level: int) -> None:
        """Args: level: of the codes that are decoded."""
        self.subject, self.level = subject, level
        self.samples = line_samples(subject)
        seconds = self.samples / subject.vqvae.config.sample_rate
        directory, renderer = subject.directory, None
        if renders(subject, level):
            renderer = directory.load_renderer(subject.mesh, subject.vqvae)
        self.decoder = sound.decoder(subject.vqvae, level, seconds, renderer)
        counts = subject.codes.token_counts(level, subject.vqvae.config.codes)[1]
        self.unigram = counts / counts.sum()

    def __call__(self, line: Excerpt) -> dict[str, Sound]:
        """By version: the original line (S,), decoded from its codes, shuffled, or drawn ones."""
        stop = line.start + self.samples
        codes = self.subject.codes.read(line.song)[self.level].astype(np.int32)
        begin, end = line.start // self.decoder.hop, stop // self.decoder.hop
        rng = np.random.default_rng(line.start)
        outputs = codes[begin:end].reshape(-1, self.subject.vqvae.config.groups)
        drawn = rng.choice(len(self.unigram), end - begin, p=self.unigram)
        baselines = (
            decoded(self.decoder, codes, begin, end),
            decoded(self.decoder, rng.permutation(outputs).reshape(-1), 0, end - begin),
            decoded(self.decoder, drawn, 0, end - begin),
        )  # fmt: skip
        original = self.subject.songs.audio(line.song, line.start, stop)
        return {ORIGINAL: original} | dict(zip(BASELINES, baselines, strict=True))


def decoded(decoder: Decoder, codes: NDArray[Any], begin: int, end: int) -> Sound:
    """The sound of codes begin .. end - 1, as part of all codes (T,)."""
    first, last = max(0, begin - decoder.reach), min(len(codes), end + decoder.reach)
    piece = Piece(first, last, begin - first, end - first)
    return np.clip(decoder.decode(codes[None], piece)[0], -1.0, 1.0)
