"""What windows are conditioned on: ids of label names, timing, lyrics and tracks of the window."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jukejax.config import ConfigError, PriorConfig
from jukejax.errors import DataError
from jukejax.label_kinds import KINDS, LabelKind
from jukejax.model_dir import ModelDir
from jukejax.sampling.job import Item, Job
from jukejax.text import lyrics as text
from jukejax.text.labels import Vocabulary, labels_digest
from jukejax.tracks import Tracks, require_known, window


def label_ids(
    config: PriorConfig, vocabulary: Vocabulary, items: Sequence[Item]
) -> dict[str, np.ndarray]:
    """Label ids (N,) or (N, places) of a prior with labels, by name of the batch's array.

    The top level must know every name. The levels below may have other vocabularies: a name that
    they do not know becomes "unknown" there, as in the published code, with a note.

    Raises:
      DataError: a name that the top level does not know, too many names of a bag, or a label of a
        kind that the prior has no table for.
    """
    labels = config.labels
    assert labels is not None

    def label(kind: LabelKind, item: Item) -> Any:  # a year of 0 is unknown
        value = getattr(item, kind.field)
        return (value or None) if kind.decades else value

    def check(item: Item) -> None:
        for kind in KINDS:
            if kind in labels.kinds:
                vocabulary.require(kind, label(kind, item), *kind.shape(labels))
            elif label(kind, item):
                raise DataError(
                    f"the model was trained without {kind.table}; leave out --{kind.option}"
                )

    for item in items:
        try:
            check(item)
        except DataError as error:
            if config.upper is None:
                raise
            print(f"level {config.level} takes unknown labels as 'unknown': {error}")
    return {
        kind.field: np.stack(
            [vocabulary.ids(kind, label(kind, item), *kind.shape(labels)) for item in items]
        )
        for kind in labels.kinds
    }


@dataclass(frozen=True)
class Conditions:
    """What the windows of N songs are conditioned on; called, it gives the arrays of a window.

    Attributes:
      config: of the prior.
      labels: label ids (N,) or (N, places) by name; none for a prior without labels.
      tokens: lyric tokens (n,) of each song; empty for a prior without lyrics.
      tracks: of each song, by name.
      begin: sample of the songs that offsets count from.
      total: length of the songs in samples.
    """

    config: PriorConfig
    labels: dict[str, np.ndarray]
    tokens: tuple[np.ndarray, ...]
    tracks: tuple[Tracks, ...]
    begin: int
    total: int

    def __call__(self, offset: int) -> dict[str, np.ndarray]:
        """Arrays (N, ...) of the window that begins `offset` samples after `begin`."""
        batch, count = dict(self.labels), len(self.tokens)
        if self.config.labels:
            batch["total_length"] = np.full(count, self.total, np.int32)
            batch["offset"] = np.full(count, self.begin + offset, np.int32)
        if self.config.lyrics:
            batch["lyrics"] = np.stack([text.window(x, *self._place(offset)) for x in self.tokens])
        if along := self.config.tracks:
            c, first = self.config, self.begin + offset
            rows = [window(along, x, c.sample_rate, first, c.hop, c.n_ctx) for x in self.tracks]
            batch |= {name: np.stack([row[name] for row in rows]) for name in along.arrays}
        return batch

    def songs(self, chosen: slice) -> Conditions:
        """The conditions of some of the songs."""
        labels = {name: x[chosen] for name, x in self.labels.items()}
        tokens, tracks = self.tokens[chosen], self.tracks[chosen]
        return dataclasses.replace(self, labels=labels, tokens=tokens, tracks=tracks)

    def first_token(self, offset: int) -> int:
        """Number of the first song's first lyric token in a window; -k after k tokens of padding.

        Counted from the window's end: bytes of a character that is cut in two are padding before.
        """
        assert self.config.lyrics is not None
        _, stop = text.window_span(self.tokens[0], *self._place(offset))
        return stop - self.config.lyrics.tokens

    def _place(self, offset: int) -> tuple[Any, ...]:
        """A window's place in the lyrics, as `text.window` takes it.

        In float32, as in the published sampling code: about one window in a thousand would begin a
        token later in float64.
        """
        wanted, begin = self.config.lyrics, self.begin + offset
        assert wanted is not None
        length = self.config.window_samples
        return wanted.tokens, self.total, begin, length, np.float32, wanted.alphabet


def conditions_of(
    config: PriorConfig,
    labels: dict[str, np.ndarray],
    lyrics: Sequence[str],
    tracks: Sequence[Tracks],
    begin: int,
    total: int,
) -> Conditions:
    """Conditions of songs with label ids, lyrics and tracks; see `Conditions`."""
    if config.lyrics is None:
        tokens = [np.zeros(0, np.int32)] * len(lyrics)
    else:
        tokens = [text.encode(x, config.lyrics.alphabet) for x in lyrics]
    labels = labels if config.labels else {}
    return Conditions(config, labels, tuple(tokens), tuple(tracks), begin, total)


def timing_note(config: PriorConfig, total: int) -> str:
    """A sentence where a song of `total` samples is outside the lengths of a prior's timing bins.

    Such lengths, and positions past the range, fall into the first or last bin. "": all is inside.
    """
    labels, seconds = config.labels, total / config.sample_rate
    if labels is None or not config.timing or labels.min_seconds <= seconds <= labels.max_seconds:
        return ""
    nearest = min(max(seconds, labels.min_seconds), labels.max_seconds)
    note = (
        f"The song is {seconds:.4g} s long, but the timing of the prior of level {config.level} "
        f"spans {labels.min_seconds:g} to {labels.max_seconds:g} s: it is conditioned on a length "
        f"of {nearest:g} s"
    )
    if seconds > labels.max_seconds:
        return f"{note}, and at later positions on that one."
    return f"{note}. If the sample is the beginning of a longer song, give --total-seconds."


def job_conditions(
    config: PriorConfig, vocabulary: Vocabulary, job: Job, samples: int
) -> Conditions:
    """Conditions of the songs of a job, whose sample is `samples` long.

    Raises:
      DataError: a label, or an event of a track, that the model does not know.
      ConfigError: positions in the song do not fit into 32 bits.
    """
    labels = label_ids(config, vocabulary, job.items) if config.labels else {}
    begin = round(job.begin_seconds * config.sample_rate)
    total = max(begin + samples, round(job.total_seconds * config.sample_rate))
    if total >= 2**31:
        raise ConfigError(
            f"The song has {total:,} samples at {config.sample_rate} Hz; positions are 32-bit, so "
            f"it must be shorter than {2**31 / config.sample_rate:.0f} seconds."
        )
    if note := timing_note(config, total):
        print(note)
    tracks = [_tracks(config, item) for item in job.items]
    lyrics = [item.lyrics for item in job.items]
    return conditions_of(config, labels, lyrics, tracks, begin, total)


def _tracks(config: PriorConfig, item: Item) -> Tracks:
    """The tracks of a song that a prior reads.

    Raises:
      DataError: a top prior does not read a track that is given, or knows no such event.
    """
    given = {track.name: track.events for track in item.tracks}
    read = [track.name for track in config.tracks.tracks] if config.tracks else []
    unread = sorted(set(given) - set(read))
    if unread and config.upper is None:
        known = f"its tracks are {', '.join(read)}" if read else "it was trained without tracks"
        raise DataError(f"the prior of level {config.level} reads no track {unread[0]!r}; {known}")
    if config.tracks:
        require_known(config.tracks, given, "the tracks to sample")
    return given


def check_labels(
    config: PriorConfig, note: dict[str, Any], vocabulary: Vocabulary, folder: ModelDir
) -> None:
    """Raises ConfigError unless the label names fit a prior, and are those it was trained with."""
    if not config.labels:
        return
    path = folder.labels(config.level)
    for kind, rows in config.labels.tables.items():
        named = len(getattr(vocabulary, kind))
        if named > rows:
            raise ConfigError(
                f"{path} names {named} {kind}, but the prior of level {config.level} has {rows}; "
                "name the labels that belong to it in model.json."
            )
    if note.get("labels", digest := labels_digest(vocabulary, config.labels)) != digest:
        raise ConfigError(
            f"{path} does not hold the label names that the prior of level {config.level} was "
            "trained with; name the labels.json of its codes in model.json."
        )
