"""What the windows of a sample are told: names by a model's vocabularies, times, lyrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jukejax.config import ConfigError, LabelsConfig, PriorConfig
from jukejax.errors import DataError
from jukejax.label_kinds import KINDS, LabelKind
from jukejax.model_dir import ModelDir
from jukejax.sampling.cascade import Describe
from jukejax.sampling.job import Item, Job
from jukejax.text import lyrics as text
from jukejax.text.labels import Vocabulary, labels_digest


def label_ids(
    config: PriorConfig, vocabulary: Vocabulary, items: Sequence[Item]
) -> dict[str, np.ndarray]:
    """Label ids (N,) or (N, places) of a prior with labels, by name of the batch's array.

    A name must be known to the top level. The levels below may have other vocabularies; there a
    name that is not known is "unknown", as in the published code, and said to be.

    Raises:
      DataError: a name that the top level does not know, or too many of a bag; a label of a kind
        that the prior has no table for.
    """
    labels = config.labels
    assert labels is not None
    for item in items:
        try:
            _check(labels, vocabulary, item)
        except DataError as error:
            if config.upper is None:
                raise
            print(f"level {config.level} goes on with what it knows of the labels: {error}")
    return {
        kind.field: np.stack(
            [vocabulary.ids(kind, _label(kind, item), *kind.shape(labels)) for item in items]
        )
        for kind in labels.kinds
    }


def _label(kind: LabelKind, item: Item) -> Any:
    """What an item says of a kind; a year of 0 is unknown."""
    label = getattr(item, kind.field)
    return (label or None) if kind.decades else label


def _check(labels: LabelsConfig, vocabulary: Vocabulary, item: Item) -> None:
    """Raises DataError for a label that a prior does not know, or has no table for."""
    for kind in KINDS:
        label = _label(kind, item)
        if kind not in labels.kinds and label:
            raise DataError(
                f"the model was trained without {kind.table}; leave out --{kind.option}"
            )
        if kind in labels.kinds:
            vocabulary.require(kind, label, *kind.shape(labels))


def describer(config: PriorConfig, vocabulary: Vocabulary, job: Job, samples: int) -> Describe:
    """A function from a window's offset in samples to the label arrays of its batch.

    Raises:
      DataError: an artist or genre that the model does not know.
    """
    fixed = label_ids(config, vocabulary, job.items) if config.labels else {}
    lyrics = [item.lyrics for item in job.items]
    return describe_songs(config, fixed, lyrics, *span(config, job, samples))


def span(config: PriorConfig, job: Job, samples: int) -> tuple[int, int]:
    """Where in its song a job of `samples` begins, and the song's length, in samples."""
    begin = round(job.begin_seconds * config.sample_rate)
    return begin, max(begin + samples, round(job.total_seconds * config.sample_rate))


def describe_songs(
    config: PriorConfig,
    labels: dict[str, np.ndarray],
    lyrics: Sequence[str],
    begin: int,
    total: int,
) -> Describe:
    """As `describer`, of songs with label ids (none for a prior without labels) and lyrics.

    Args:
      begin, total: sample of the songs that offsets count from, and their length in samples.
    """
    count = len(lyrics)
    fixed = dict(labels)
    if config.labels:
        fixed["total_length"] = np.full(count, total, np.int32)
    wanted = config.lyrics
    tokens = [text.encode(x, wanted.alphabet) for x in lyrics] if wanted else []

    def describe(offset: int) -> dict[str, np.ndarray]:
        batch, offset = dict(fixed), begin + offset
        if config.labels:
            batch["offset"] = np.full(count, offset, np.int32)
        if wanted:
            where = (wanted.tokens, total, offset, config.window_samples, np.float32)
            batch["lyrics"] = np.stack([text.window(t, *where, wanted.alphabet) for t in tokens])
        return batch

    return describe


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
