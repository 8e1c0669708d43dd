"""Where the data pipeline meets the models: what an experiment requires of its data; batches."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipeline import audio
from data_pipeline.codes import CodesInfo
from data_pipeline.songs import prepared_songs
from jukejax.config import (
    ConfigError,
    Experiment,
    PriorConfig,
    PriorExperiment,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.label_kinds import KINDS
from jukejax.sampling.job import Options
from jukejax.text import lyrics
from jukejax.text.labels import Vocabulary

if TYPE_CHECKING:
    from jukejax.model_dir import LoadedModel
    from jukejax.sampling.request import Request

HostBatch = dict[str, np.ndarray]


def check_rate(sample_rate: int, data: str | Path) -> None:
    """Refuses songs, or codes of songs, of another sample rate than a model's.

    Raises:
      ConfigError: they differ.
    """
    found = set(prepared_songs(data).column("sample_rate").tolist())
    if found != {sample_rate}:
        raise ConfigError(
            f"model.sample_rate is {sample_rate}, but {data} holds songs of "
            f"{', '.join(map(str, sorted(found)))} Hz; prepare them with --sample-rate "
            f"{sample_rate}, or choose a model of their rate."
        )


def check_codes(config: PriorConfig, info: CodesInfo, data: str | Path) -> None:
    """Refuses codes that a prior's numbers do not fit.

    Raises:
      ConfigError: the level, the sample rate, the hop or the number of codes differ.
    """
    if config.level >= len(info.hops):
        raise ConfigError(f"{data} has {len(info.hops)} levels, but model.level is {config.level}.")
    check_rate(config.sample_rate, data)
    for name, found in (("hop", info.hops[config.level]), ("codes", info.codes)):
        if getattr(config, name) != found:
            raise ConfigError(
                f"model.{name} is {getattr(config, name)}, but {data} holds codes with {name} "
                f"{found}; give --model.{name} {found}, or other codes."
            )


def fit_labels(experiment: PriorExperiment, vocabulary: Vocabulary) -> PriorExperiment:
    """The experiment with its label tables sized for the vocabulary, where no size is given.

    Raises:
      ConfigError: a table that is too small for the vocabulary, or one that it has no names for.
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
                f"{name}: no song of theirs has any. Give 0, or {name} in the manifest and "
                "prepare and encode again."
            )
        if 0 < getattr(labels, name) < size:
            raise ConfigError(
                f"model.labels.{name} is {getattr(labels, name)}, but the label names are {size}; "
                f"give at least so many, or {-1 if optional[name] else 0} to take as many as "
                "there are."
            )
    fitted = {name: max(getattr(labels, name), 0) or size for name, size in sizes.items()}
    model = dataclasses.replace(experiment.model, labels=dataclasses.replace(labels, **fitted))
    return dataclasses.replace(experiment, model=model)


def fit_alphabet(experiment: PriorExperiment, data: str | Path) -> PriorExperiment:
    """The experiment with the characters of the data's training lyrics, where it asks for them."""
    words = experiment.model.lyrics
    if words is None or words.vocabulary:
        return experiment
    songs = prepared_songs(data).of_split("train")
    words = dataclasses.replace(words, alphabet=lyrics.alphabet_of(song.lyrics for song in songs))
    return dataclasses.replace(
        experiment, model=dataclasses.replace(experiment.model, lyrics=words)
    )


def prior_inputs(config: PriorConfig, batch: HostBatch) -> HostBatch:
    """The arrays of a code loader's batch that a prior reads."""
    wanted = {"codes"}
    if config.labels:
        wanted |= set(config.labels.arrays)
    if config.upper:
        wanted |= {"upper"}
    if config.lyrics:
        wanted |= {"lyrics"}
    return {name: batch[name] for name in wanted}


def batches(
    experiment: Experiment,
    data: str | Path,
    split: str,
    vocabulary: Vocabulary | None,
    rows: Sequence[int] | None = None,
) -> Callable[[int], Iterator[HostBatch]]:
    """Endless batches of a split, from a step on: these rows of the global ones, or all.

    A VQ-VAE's need no vocabulary.
    """
    t = experiment.train
    shared: dict[str, Any] = {
        "split": split,
        "batch_size": t.batch,
        "seed": t.seed,
        "rows": rows,
    }
    training = split == "train"
    if isinstance(experiment, VQVAEExperiment):
        from data_pipeline.loader import audio_batches

        audio: dict[str, Any] = {
            "samples": experiment.samples,
            "downmix": experiment.downmix if training else "mean",
        }
        return lambda step: audio_batches(data, start_step=step, **audio, **shared)
    from data_pipeline.code_loader import code_batches

    config = experiment.model
    dropout = experiment.label_dropout if training else 0.0

    def from_step(step: int) -> Iterator[HostBatch]:
        found = code_batches(
            data, config, vocabulary, start_step=step, label_dropout=dropout, **shared
        )
        return (prior_inputs(config, batch) for batch in found)

    return from_step


def read_prompt(path: Path, seconds: float, config: VQVAEConfig) -> np.ndarray:
    """The first seconds of a sound file (0: all of it): (S,) float32 at the model's sample rate.

    The mean of the channels.

    Raises:
      DataError: the file is not a sound, or is silent or shorter than asked for.
      ConfigError: `seconds` is not possible, or shorter than one top-level code.
    """
    rate, top = config.sample_rate, config.hops[-1]
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"prompt_seconds is {seconds}; it must be 0 (all) or more.")
    wanted = round(seconds * rate)
    if seconds and wanted < top:
        raise ConfigError(
            f"prompt_seconds is {seconds}; one code of the top level is {top} samples."
        )
    blocks = audio.decode(path, min_seconds=max(seconds, top / rate), sample_rate=rate)
    sound = np.concatenate([block.mean(1, dtype=np.float32) / 32768.0 for block in blocks])
    return sound[:wanted] if seconds else sound


def song_request(
    model: LoadedModel, options: Options, words: Path | None, prompt: Path | None, seconds: float
) -> Request:
    """The request of a command: options, a text file, and the first seconds of a sound file."""
    from jukejax.sampling.request import make_request

    if seconds and prompt is None:
        raise ConfigError("--prompt-seconds needs --prompt.")
    sound = read_prompt(prompt, seconds, model.vqvae.config) if prompt else None
    request = make_request(model, options, lyrics.read_lyrics(words) if words else "", sound)
    if prompt is None:
        return request
    return request._replace(notes={"origin": {"prompt": str(prompt.resolve())}})
