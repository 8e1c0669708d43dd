"""Where the data pipeline meets the models: a training run on a prepared data set.

jax is imported by the functions that need it, so that commands show their help at once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import numpy as np
import tyro

from data_pipeline.codes import CodesInfo, codes_info
from data_pipeline.songs import prepared_songs
from jukejax.config import ConfigError, Experiment, PriorConfig, PriorExperiment, VQVAEExperiment
from jukejax.text import lyrics
from jukejax.text.labels import Vocabulary, labels_digest

if TYPE_CHECKING:
    from jukejax.training.loop import Hook, Run
    from jukejax.training.step import TrainState

HostBatch = dict[str, np.ndarray]
Log = Callable[[str], None]
E = TypeVar("E")


@dataclass(frozen=True)
class Training(Generic[E]):
    """Train a preset. The same command continues from the last checkpoint of the workdir.

    Example: jukejax train demo_vqvae --data runs/demo/songs --workdir runs/demo/vqvae
    """

    data: Path
    """Songs (`experiments.prepare`) for a VQ-VAE, codes (`experiments.encode`) for a prior."""
    workdir: Path
    """Gets checkpoints, metrics.jsonl and TensorBoard files."""
    experiment: Annotated[E, tyro.conf.arg(name="")]  # --model.width, not --experiment.model.width
    start_from: Path | None = None
    """A run, also an imported one, from whose averaged weights a new run starts."""
    labels: Path | None = None
    """Label names of a prior, if not those of the data: those of an imported model."""
    profile: bool = False
    """Write a trace of five steps beside the TensorBoard files."""
    evaluate: tuple[str, ...] = ()
    """Suites of `experiments.evaluate` to run during training: reconstruction for a VQ-VAE;
    likelihood, alignment, labels, features, generation and memorisation for a prior."""
    evaluate_every: int = 1000
    """Steps between runs of the suites."""
    evaluate_vqvae: Path | None = None
    """The VQ-VAE of a prior's codes, for suites that sample: generation, memorisation."""
    evaluate_songs: Path | None = None
    """The songs of a prior's codes, for the same suites."""


def train(training: Training[Any], log: Log = print) -> TrainState:
    """Trains an experiment on a data set; the state after the last step."""
    from jukejax.training import loop

    return loop.train(training_run(training, log))


def training_run(training: Training[Any], log: Log = print) -> Run:
    """The run of an experiment on a data set, checked against the data and the workdir.

    Raises:
      ConfigError: the experiment does not fit the data or the devices.
      CheckpointError: it does not fit the workdir, or the run to start from.
    """
    from jukejax.parallel.distributed import check_shared
    from jukejax.parallel.mesh import check_batch, host_rows, make_mesh
    from jukejax.training.loop import Run
    from jukejax.training.resume import check_continues, check_start

    experiment, vocabulary, note = _fitted(training)
    check_shared(training.workdir)
    check_continues(experiment, note, training.workdir, log)
    if training.start_from is not None:
        check_start(experiment, note, training.start_from, log, vocabulary)
    mesh = make_mesh(experiment.mesh)
    check_batch(mesh, experiment.train)
    rows = host_rows(mesh, experiment.train.batch).tolist()
    source = functools.partial(batches, experiment, training.data, vocabulary=vocabulary)
    run = Run(
        experiment, mesh, training.workdir, source("train", rows=rows), note=note,
        start_from=training.start_from, log=log, profile=training.profile,
    )  # fmt: skip
    hooks: list[Hook] = []
    if len(prepared_songs(training.data).of_split("test")):
        held_out = source("test", rows=rows)
        run = dataclasses.replace(run, held_out=lambda: held_out(0))
        if isinstance(experiment, VQVAEExperiment):
            shown = next(source("test")(0))["audio"]  # the same on every host
            hooks.append(_reconstructions(experiment, run, shown))
    else:
        log(f"{training.data} has no test split: no held-out loss will be measured.")
    if training.evaluate:
        hooks.append(_suites(training, run))
    return dataclasses.replace(run, hooks=hooks)


def _fitted(
    training: Training[Any],
) -> tuple[Experiment, Vocabulary | None, dict[str, Any]]:
    """An experiment fitted to its data, a prior's label names, and the note of checkpoints."""
    experiment, data = training.experiment, training.data
    if isinstance(experiment, VQVAEExperiment):
        if training.labels:
            raise ConfigError(f"--labels {training.labels} is for priors; a VQ-VAE has no labels.")
        check_rate(experiment.model.sample_rate, data)
        return experiment, None, {}
    vocabulary = Vocabulary.load(_label_file(training))
    info = codes_info(data)
    check_codes(experiment.model, info, data)
    experiment = fit_alphabet(fit_labels(experiment, vocabulary), data)
    digest = labels_digest(vocabulary, experiment.model.labels)
    return experiment, vocabulary, {"fingerprint": info.fingerprint, "labels": digest}


def _label_file(training: Training[Any]) -> Path:
    return training.labels or training.data / "labels.json"


def _reconstructions(experiment: VQVAEExperiment, run: Run, audio: np.ndarray) -> Hook:
    from jukejax.evaluation.spectrogram import log_spectrogram, to_image
    from jukejax.training.reconstruction import reconstruction_hook

    def picture(sound: np.ndarray) -> np.ndarray:
        return to_image(log_spectrogram(sound, experiment.model.sample_rate))

    return reconstruction_hook(experiment, run.mesh, audio, picture)


def _suites(training: Training[Any], run: Run) -> Hook:
    from experiments.evaluate.hook import Asked, suites_hook

    asked = Asked(
        training.evaluate, training.evaluate_every, training.evaluate_vqvae,
        training.evaluate_songs,
    )  # fmt: skip
    folders = training.data, _label_file(training), Path(run.workdir)
    return suites_hook(asked, run.experiment, run.mesh, *folders, run.log)


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
                f"give at least so many, or {-1 if name in ('years', 'tags') else 0} to take as "
                "many as there are."
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


def code_arguments(config: PriorConfig, vocabulary: Vocabulary | None) -> dict[str, Any]:
    """What the code loaders need to know of a prior."""
    return {
        "level": config.level,
        "n_ctx": config.n_ctx,
        "upper_ratio": config.upper.ratio if config.upper else 0,
        "labels": vocabulary if config.labels else None,
        "max_genres": config.labels.max_genres if config.labels else 1,
        "lyric_tokens": config.lyrics.tokens if config.lyrics else 0,
        "alphabet": config.lyrics.alphabet if config.lyrics else "v2",
        "years": bool(config.labels and config.labels.years),
        "max_tags": config.labels.max_tags if config.labels and config.labels.tags else 0,
    }


def prior_inputs(config: PriorConfig, batch: HostBatch) -> HostBatch:
    """The arrays of a code loader's batch that a prior reads."""
    wanted = {"codes"}
    if config.labels:
        optional = {"year": config.labels.years, "tags": config.labels.tags}
        wanted |= {"artist", "genres", "total_length", "offset"}
        wanted |= {name for name, rows in optional.items() if rows}
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
    from data_pipeline.loader import code_batches

    config = experiment.model
    codes = code_arguments(config, vocabulary)
    dropout = experiment.label_dropout if training else 0.0

    def from_step(step: int) -> Iterator[HostBatch]:
        found = code_batches(data, start_step=step, label_dropout=dropout, **codes, **shared)
        return (prior_inputs(config, batch) for batch in found)

    return from_step
