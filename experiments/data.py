"""Where the data pipeline meets the models: what an experiment requires of its data; batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipeline.codes import CodesInfo
from data_pipeline.songs import prepared_songs
from jukejax.config import (
    ConfigError,
    Experiment,
    PriorConfig,
    PriorExperiment,
    Track,
    TracksConfig,
)
from jukejax.label_kinds import KINDS
from jukejax.text import lyrics
from jukejax.text.labels import Vocabulary

HostBatch = dict[str, np.ndarray]


def check_rate(sample_rate: int, data: str | Path) -> None:
    """Checks that songs, or codes of songs, have a model's sample rate.

    Raises:
      ConfigError: they differ.
    """
    rates = set(prepared_songs(data).column("sample_rate").tolist())
    if rates != {sample_rate}:
        raise ConfigError(
            f"model.sample_rate is {sample_rate}, but {data} has songs of "
            f"{', '.join(map(str, sorted(rates)))} Hz; prepare them with --sample-rate "
            f"{sample_rate}, or choose a model of their rate."
        )


def check_codes(config: PriorConfig, info: CodesInfo, data: str | Path) -> None:
    """Checks that codes fit a prior.

    Raises:
      ConfigError: the level, the sample rate, the hop, the number of codes or their groups differ.
    """
    if config.level >= len(info.hops):
        raise ConfigError(f"{data} has {len(info.hops)} levels, but model.level is {config.level}.")
    check_rate(config.sample_rate, data)
    fields = {"hop": info.hops[config.level], "codes": info.codes, "groups": info.groups}
    for name, value in fields.items():
        if getattr(config, name) != value:
            raise ConfigError(
                f"model.{name} is {getattr(config, name)}, but {data} has codes with {name} "
                f"{value}; give --model.{name} {value}, or other codes."
            )


def fit_labels(experiment: PriorExperiment, vocabulary: Vocabulary) -> PriorExperiment:
    """The experiment with its label tables sized for the vocabulary, where no size is given.

    Raises:
      ConfigError: a table is too small for the vocabulary, or the vocabulary has no names for it.
    """
    labels = experiment.model.labels
    if labels is None:
        return experiment
    sizes = {name: len(getattr(vocabulary, name)) for name in labels.tables}
    optional = {kind.table: kind.optional for kind in KINDS}
    for name, size in sizes.items():
        if not size:
            raise ConfigError(
                f"model.labels.{name} is {getattr(labels, name)}, but the label names have no "
                f"{name}, as no song has any. Give 0, or add {name} to the manifest, then prepare "
                "and encode again."
            )
        if 0 < getattr(labels, name) < size:
            raise ConfigError(
                f"model.labels.{name} is {getattr(labels, name)}, but there are {size} label "
                f"names; give at least {size}, or {-1 if optional[name] else 0} for exactly that."
            )
    fitted = {name: max(getattr(labels, name), 0) or size for name, size in sizes.items()}
    model = dataclasses.replace(experiment.model, labels=dataclasses.replace(labels, **fitted))
    return dataclasses.replace(experiment, model=model)


def fit_alphabet(experiment: PriorExperiment, data: str | Path) -> PriorExperiment:
    """The experiment with an alphabet of the training lyrics, if it has "characters" but none."""
    config = experiment.model.lyrics
    if config is None or config.vocabulary:
        return experiment
    songs = prepared_songs(data).of_split("train")
    alphabet = lyrics.alphabet_of(song.lyrics for song in songs)
    config = dataclasses.replace(config, alphabet=alphabet)
    model = dataclasses.replace(experiment.model, lyrics=config)
    return dataclasses.replace(experiment, model=model)


def fit_tracks(
    experiment: PriorExperiment, data: str | Path, named: Sequence[str] = ()
) -> PriorExperiment:
    """The experiment with the events of the data's tracks, where it names tracks without events.

    Args:
      named: NAME or NAME:PLACES of tracks, in place of the experiment's.

    Raises:
      ConfigError: no song has such a track, or a name has another form.
    """
    config = experiment.model.tracks
    if named:
        tracks = _tracks(named)
        config = dataclasses.replace(config, tracks=tracks) if config else TracksConfig(tracks)
    if config is None:
        return experiment
    events: dict[str, set[str]] = {track.name: set() for track in config.tracks}
    for song in prepared_songs(data):
        for name in events.keys() & song.tracks.keys():
            events[name] |= {what for what, _, _ in song.tracks[name]}
    for track in config.tracks:
        name = track.name
        if not (track.events or events[name]):
            raise ConfigError(
                f"model.tracks has {name!r}, but no song of {data} has such a track. Name files "
                "with it as tracks_file in the manifest, then prepare and encode again."
            )
    fitted = tuple(
        track if track.events else dataclasses.replace(track, events=_in_order(events[track.name]))
        for track in config.tracks
    )
    model = dataclasses.replace(experiment.model, tracks=dataclasses.replace(config, tracks=fitted))
    return dataclasses.replace(experiment, model=model)


def _tracks(named: Sequence[str]) -> tuple[Track, ...]:
    """Tracks of NAME or NAME:PLACES."""
    tracks = []
    for text in named:
        name, _, places = text.partition(":")
        if places and not places.isdecimal():
            raise ConfigError(f"--tracks {text}: give NAME or NAME:PLACES, such as notes:2.")
        tracks.append(Track(name, places=int(places or 1)))
    return tuple(tracks)


def _in_order(events: Iterable[str]) -> tuple[str, ...]:
    """Names of events, numbers by value."""
    return tuple(sorted(events, key=lambda x: (0, int(x), x) if x.isdecimal() else (1, 0, x)))


def prior_inputs(config: PriorConfig, batch: HostBatch) -> HostBatch:
    """The arrays of a code loader's batch that a prior reads."""
    wanted = {"codes"} | ({"context"} & batch.keys())
    if config.labels:
        wanted |= set(config.labels.arrays)
    if config.upper:
        wanted |= {"upper"}
    if config.lyrics:
        wanted |= {"lyrics"}
    if config.tracks:
        wanted |= set(config.tracks.arrays)
    return {name: batch[name] for name in wanted}


def batches(
    experiment: Experiment,
    data: str | Path,
    split: str,
    vocabulary: Vocabulary | None,
    rows: Sequence[int] | None = None,
    mixed: Mapping[Path, int] | None = None,
) -> Callable[[int], Iterator[HostBatch]]:
    """Endless batches of a split, from a given step on.

    Args:
      experiment: the sizes and the seed of the batches, and what is drawn at random for training.
      data: codes for a prior, songs for other models.
      split: "train" or "test".
      vocabulary: label names of a prior.
      rows: of the global batch; None: all.
      mixed: further codes, and how many rows of the global batch, the last ones, are of each.
    """
    from data_pipeline.loader import audio_batches

    def from_step(step: int) -> Iterator[HostBatch]:
        if not isinstance(experiment, PriorExperiment):
            return audio_batches(data, experiment, split=split, start_step=step, rows=rows)
        sources = [
            _codes(part, folder, vocabulary, split, step, own)
            for folder, part, own in _parts(experiment, Path(data), rows, mixed or {})
        ]
        if len(sources) == 1:
            return sources[0]
        joined = zip(*sources, strict=True)
        return ({n: np.concatenate([x[n] for x in parts]) for n in parts[0]} for parts in joined)

    return from_step


def _parts(
    experiment: PriorExperiment,
    data: Path,
    rows: Sequence[int] | None,
    mixed: Mapping[Path, int],
) -> Iterator[tuple[Path, PriorExperiment, list[int]]]:
    """Data sets, each with the experiment of its rows of the batch and those that are read here."""
    own = range(experiment.train.batch) if rows is None else rows
    first = 0
    for folder, count in [(data, experiment.train.batch - sum(mixed.values())), *mixed.items()]:
        train = dataclasses.replace(experiment.train, batch=count, accumulate=1)
        read = [row - first for row in own if first <= row < first + count]
        if read:
            yield folder, dataclasses.replace(experiment, train=train), read
        first += count


def _codes(
    experiment: PriorExperiment,
    data: Path,
    vocabulary: Vocabulary | None,
    split: str,
    step: int,
    rows: Sequence[int],
) -> Iterator[HostBatch]:
    from data_pipeline.code_loader import code_batches

    source = code_batches(data, experiment, vocabulary, split=split, start_step=step, rows=rows)
    return (prior_inputs(experiment.model, batch) for batch in source)


def parse_mix(texts: Sequence[str], batch: int) -> dict[Path, int]:
    """Codes to mix in, and their rows of a batch, from "ROWS:PATH".

    Raises:
      ConfigError: another form, or no row of the batch is left for the run's own data.
    """
    mixed: dict[Path, int] = {}
    for text in texts:
        rows, colon, path = text.partition(":")
        if not (colon and path and rows.isdecimal() and int(rows)):
            raise ConfigError(f"--mix {text}: give ROWS:PATH, such as 2:data/other/codes.")
        if Path(path) in mixed:
            raise ConfigError(f"--mix names {path} twice; give all its rows together.")
        mixed[Path(path)] = int(rows)
    if sum(mixed.values()) >= batch:
        raise ConfigError(
            f"--mix takes {sum(mixed.values())} rows of a batch of {batch}; leave some for --data."
        )
    return mixed
