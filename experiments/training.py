"""A training run on a prepared data set: its command line, its checks and its hooks.

jax is imported by the functions that need it, so that commands show their help at once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import numpy as np
import tyro

from data_pipeline.codes import codes_info
from data_pipeline.songs import prepared_songs
from experiments import cli, data
from jukejax import presets
from jukejax.config import (
    ConfigError,
    Experiment,
    PriorExperiment,
    RendererExperiment,
    VQVAEExperiment,
    model_kind,
)
from jukejax.errors import DataError
from jukejax.text.labels import Vocabulary, labels_digest

if TYPE_CHECKING:
    from jukejax.training.loop import Hook, Run
    from jukejax.training.step import TrainState

Log = Callable[[str], None]
say: Log = functools.partial(print, flush=True)  # a line of a log file at once
E = TypeVar("E")
COMMON = ("data", "workdir", "vqvae", "start_from", "labels", "evaluate", "evaluate_every")


@dataclass(frozen=True)
class Training(Generic[E]):
    """Train a preset. The same command continues from the last checkpoint of the workdir."""

    data: Path
    """Codes (`jukejax encode`) for a prior, songs (`jukejax prepare`) for other models."""
    workdir: Path
    """Gets checkpoints, metrics.jsonl and TensorBoard files."""
    experiment: Annotated[E, tyro.conf.arg(name="")]  # --model.width, not --experiment.model.width
    vqvae: Path | None = None
    """The run of the VQ-VAE whose codes a renderer reads; it stays as it is."""
    start_from: Path | None = None
    """A run, also an imported one, from whose averaged weights a new run starts."""
    labels: Path | None = None
    """Label names of a prior, if not those of the data: those of an imported model."""
    tracks: tuple[str, ...] = ()
    """Tracks of the songs that a prior is conditioned on, in place of its preset's: NAME, or
    NAME:PLACES where several events sound at once (phones notes:2)."""
    mix: tuple[str, ...] = ()
    """Codes of other songs for a prior to train on too, as ROWS:PATH, such as 2:data/other/codes:
    the number of rows of each batch, and the folder."""
    profile: bool = False
    """Write a trace of five steps beside the TensorBoard files."""
    evaluate: tuple[str, ...] = ()
    """Suites of `jukejax evaluate` to run during training: reconstruction for a VQ-VAE;
    likelihood, alignment, labels, features, generation and memorisation for a prior."""
    evaluate_every: int = 1000
    """Steps between runs of the suites."""
    evaluate_vqvae: Path | None = None
    """The VQ-VAE of a prior's codes, for suites that sample: generation, memorisation."""
    evaluate_songs: Path | None = None
    """The songs of a prior's codes, for the same suites."""


def parse(preset: str, arguments: list[str], program: str = "") -> Training[Any]:
    """A command with the values of a preset, or of the run in a workdir, as defaults.

    `program` is what its messages call it: `jukejax train PRESET` if empty.

    Raises:
      ConfigError: no such preset; data or workdir in a bucket that is not mounted.
    """
    experiment: Any = _run_settings(preset) or presets.get(preset)
    missing: Any = tyro.MISSING
    kind: Any = Training
    folders = {
        VQVAEExperiment: "--data data/songs --workdir runs/vqvae",
        PriorExperiment: "--data data/codes --workdir runs/prior",
        RendererExperiment: "--data data/songs --vqvae runs/vqvae --workdir runs/renderer",
    }[type(experiment)]
    parsed: Training[Any] = cli.parse(
        kind[type(experiment)], arguments, program or f"jukejax train {preset}", COMMON,
        description=f"{Training.__doc__}\n\nExample: jukejax train {preset} {folders}",
        default=Training(missing, missing, experiment), config=(tyro.conf.AvoidSubcommands,),
    )  # fmt: skip
    from jukejax.parallel.distributed import check_folder

    for folder in (parsed.data, parsed.workdir):
        check_folder(folder)
    return parsed


def _run_settings(workdir: str) -> Any:
    """The experiment of the run in a workdir or packed file, or None where there is no run."""
    path = Path(workdir)
    if not path.is_dir() and not (path.is_file() and path.suffix == ".safetensors"):
        return None
    from jukejax.training.checkpoint import directory, load_experiment

    if path.is_dir() and not directory(path).is_dir():
        return None
    return load_experiment(path)[0]


def train(training: Training[Any], log: Log = say) -> TrainState:
    """Trains an experiment on a data set; the state after the last step."""
    from jukejax.training import loop

    run = training_run(training, log)
    state = loop.train(run)
    if isinstance(run.experiment, PriorExperiment) and run.experiment.lora:
        write_adapters(run, state)
    return state


def write_adapters(run: Run, state: TrainState) -> None:
    """Writes the adapters that a run has trained to its workdir, in a file of their own."""
    import jax

    from jukejax.training import adapters
    from jukejax.training.checkpoint import load_experiment

    _, note = load_experiment(run.workdir)
    if jax.process_index() == 0:
        base, folder = Path(str(run.start_from)), Path(run.workdir)
        assert isinstance(run.experiment, PriorExperiment)
        adapters.write(folder, base, run.experiment, state.ema, note)
        run.log(f"{folder / adapters.NAME}: the adapters alone, read as the merged prior.")


def training_run(training: Training[Any], log: Log = print) -> Run:
    """The run of an experiment on a data set, checked against the data and the workdir.

    Raises:
      ConfigError: the experiment does not fit the data or the devices.
      CheckpointError: it does not fit the workdir, or the run to start from.
    """
    import jax

    from jukejax.parallel.distributed import check_shared
    from jukejax.parallel.mesh import check_batch, host_rows, make_mesh
    from jukejax.training.loop import Run
    from jukejax.training.reconstruction import shown_chunks
    from jukejax.training.resume import check_continues, check_start

    log = log if jax.process_index() == 0 else lambda line: None
    if training.evaluate:
        from jukejax.evaluation.in_training import check_suites

        check_suites(training.evaluate, training.evaluate_every)
    experiment, vocabulary, note, frozen = _fitted(training)
    if isinstance(experiment, PriorExperiment) and experiment.lora:
        note |= _of_base(training)
    check_shared(training.workdir)
    check_continues(experiment, note, training.workdir, log)
    if training.start_from is not None:
        check_start(experiment, note, training.start_from, log, vocabulary)
    mesh = make_mesh(experiment.mesh)
    check_batch(mesh, experiment.train)
    rows = host_rows(mesh, experiment.train.batch).tolist()
    source = functools.partial(data.batches, experiment, training.data, vocabulary=vocabulary)
    mixed = data.parse_mix(training.mix, experiment.train.batch)
    run = Run(
        experiment, mesh, training.workdir, source("train", rows=rows, mixed=mixed), note=note,
        extra=frozen, start_from=training.start_from, log=log, profile=training.profile,
    )  # fmt: skip
    songs = prepared_songs(training.data)
    train_songs, test_songs = (len(songs.of_split(name)) for name in ("train", "test"))
    log(_summary(run, train_songs, test_songs))
    hooks: list[Hook] = []
    if test_songs:
        held_out = source("test", rows=rows)
        _check_held_out(held_out, training.data)
        run = dataclasses.replace(run, held_out=lambda: held_out(0))
        if not isinstance(experiment, PriorExperiment):
            rows_shown = range(shown_chunks(experiment))  # the same on every host
            shown = next(source("test", rows=rows_shown)(0))["audio"]
            hooks.append(_reconstructions(run, shown))
    else:
        log(f"{training.data} has no test split: no held-out loss will be measured.")
    if training.evaluate:
        hooks.append(_suites(training, run))
    return dataclasses.replace(run, hooks=hooks)


def _fitted(
    training: Training[Any],
) -> tuple[Experiment, Vocabulary | None, dict[str, Any], Any]:
    """An experiment fitted to its data, and what goes with it.

    A prior's label names, the note of checkpoints, what is frozen of a renderer.
    """
    experiment, folder = training.experiment, training.data
    if training.vqvae and not isinstance(experiment, RendererExperiment):
        raise ConfigError(f"--vqvae {training.vqvae} is for renderers; leave it out.")
    if not isinstance(experiment, PriorExperiment):
        if training.labels:
            raise ConfigError(f"--labels {training.labels} is for priors; leave it out.")
        if training.tracks:
            raise ConfigError(f"--tracks {training.tracks[0]} is for priors; leave it out.")
        if training.mix:
            raise ConfigError(f"--mix {training.mix[0]} is for priors; leave it out.")
        note: dict[str, Any] = {}
        frozen = None
        if isinstance(experiment, RendererExperiment):
            experiment, note, frozen = _with_vqvae(experiment, training)
        data.check_rate(experiment.model.sample_rate, folder)
        return experiment, None, note, frozen
    vocabulary = Vocabulary.load(_label_file(training))
    info = codes_info(folder)
    data.check_codes(experiment.model, info, folder)
    for other in data.parse_mix(training.mix, experiment.train.batch):
        data.check_codes(experiment.model, codes_info(other, info.fingerprint), other)
    experiment = data.fit_alphabet(data.fit_labels(experiment, vocabulary), folder)
    experiment = data.fit_tracks(experiment, folder, training.tracks)
    digest = labels_digest(vocabulary, experiment.model.labels)
    return experiment, vocabulary, {"fingerprint": info.fingerprint, "labels": digest}, None


def _of_base(training: Training[Any]) -> dict[str, Any]:
    """What the note of a run of adapters says of the weights that they change."""
    from jukejax.training.checkpoint import load_experiment

    if training.evaluate:
        raise ConfigError("--evaluate reads whole priors; leave it out with --lora.")
    if training.start_from is None:
        raise ConfigError("--lora trains adapters of a run's weights; give it as --start-from.")
    _, note = load_experiment(training.start_from)
    return {"base": f"run {note.get('run', 'unnamed')}, step {note['step']}"}


def _with_vqvae(
    experiment: RendererExperiment, training: Training[Any]
) -> tuple[RendererExperiment, dict[str, Any], Any]:
    """A renderer fitted to the VQ-VAE of `--vqvae`, the note of checkpoints, what is frozen."""
    from jukejax.model_dir import load_vqvae
    from jukejax.models.renderer import freeze
    from jukejax.parallel.mesh import make_mesh

    if training.evaluate:
        raise ConfigError(
            f"--evaluate {training.evaluate[0]} is for VQ-VAEs and priors; measure a renderer with "
            "`jukejax evaluate`, of a model directory that names it."
        )
    if training.vqvae is None:
        raise ConfigError("A renderer reads the codes of a VQ-VAE; name its run: --vqvae DIR.")
    vqvae = load_vqvae(training.vqvae, make_mesh(experiment.mesh))
    model = dataclasses.replace(experiment.model, vqvae=vqvae.config)
    experiment = dataclasses.replace(experiment, model=model)
    frozen = freeze(model, vqvae.params, vqvae.books)
    return experiment, {"fingerprint": vqvae.fingerprint}, frozen


def _label_file(training: Training[Any]) -> Path:
    return training.labels or training.data / "labels.json"


def _summary(run: Run, train_songs: int, test_songs: int) -> str:
    """What is trained, on what: the first line of a run."""
    from jukejax import costs

    experiment, device = run.experiment, run.mesh.devices.flat[0].device_kind
    mesh = " x ".join(f"{size} {name}" for name, size in run.mesh.shape.items() if size > 1)
    return (
        f"{Path(run.workdir).name}: {model_kind(type(experiment))} of "
        f"{costs.parameters(experiment):,} parameters on {run.mesh.size} x {device}"
        f"{mesh and f' ({mesh})'}; {train_songs:,} training songs, {test_songs:,} test songs"
    )


def _check_held_out(batches: Callable[[int], Any], data: Path) -> None:
    """DataError where the test songs give no batch: found now, not at the first evaluation."""
    try:
        batches(0)
    except DataError as error:
        raise DataError(
            f"No held-out loss can be measured: {error}, or prepare {data} with other test songs "
            "or none (--test-fraction 0)."
        ) from error


def _reconstructions(run: Run, audio: np.ndarray) -> Hook:
    from jukejax.evaluation.pages.spectrogram import log_spectrogram, to_image
    from jukejax.training.reconstruction import reconstruction_hook

    return reconstruction_hook(run, audio, lambda x, rate: to_image(log_spectrogram(x, rate)))


def _suites(training: Training[Any], run: Run) -> Hook:
    from experiments.evaluation_data import PreparedAudio, PreparedCodes, encode_test_split
    from jukejax.evaluation.in_training import Asked, suites_hook

    is_prior = not isinstance(run.experiment, VQVAEExperiment)
    songs = training.evaluate_songs if is_prior else training.data
    asked = Asked(
        training.evaluate,
        training.evaluate_every,
        training.evaluate_vqvae,
        PreparedAudio(songs) if songs else None,
        PreparedCodes(training.data) if is_prior else None,
        _label_file(training),
        encode_test_split,
    )
    return suites_hook(asked, run)
