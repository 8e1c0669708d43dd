"""Train a VQ-VAE on songs, or a prior on codes.

python -m experiments.train demo_vqvae --data runs/demo/songs --workdir runs/demo/vqvae
python -m experiments.train demo_prior --data runs/demo/codes --workdir runs/demo/prior

A workdir in the place of the preset lends its run's settings; with --start-from its weights too.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import jax
import numpy as np
import tyro
from jax.sharding import Mesh

from data_pipeline import songs
from data_pipeline.codes import codes_info
from experiments import cli, data
from jukejax import presets
from jukejax.config import (
    ConfigError,
    Experiment,
    PriorConfig,
    PriorExperiment,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.errors import CheckpointError
from jukejax.evaluation.spectrogram import log_spectrogram, to_image
from jukejax.model_dir import load_experiment
from jukejax.models import vqvae
from jukejax.parallel import distributed
from jukejax.parallel.distributed import check_folder, check_shared
from jukejax.parallel.mesh import check_batch, host_rows, make_mesh, replicated
from jukejax.text.labels import TABLES, Vocabulary, labels_digest
from jukejax.training.checkpoint import directory, open_existing
from jukejax.training.loop import Hook, train
from jukejax.training.metrics import MetricsWriter
from jukejax.training.step import TrainState

USAGE = "python -m experiments.train PRESET --data DIR --workdir DIR [--section.field value ...]"


E = TypeVar("E")


@dataclass(frozen=True)
class Command(Generic[E]):
    """Train a preset. Started again with the same workdir it goes on from the last checkpoint."""

    data: Path
    """Songs (`experiments.prepare`) for a VQ-VAE, codes (`experiments.encode`) for a prior."""
    workdir: Path
    """Gets checkpoints, metrics.jsonl and TensorBoard files."""
    experiment: Annotated[E, tyro.conf.arg(name="")]  # --model.width, not --experiment.model.width
    start_from: Path | None = None
    """A run, imported ones too, whose averaged weights a new run begins with."""
    labels: Path | None = None
    """Label names for a prior, where they are not those of the data: an imported model's own."""
    profile: bool = False
    """Write a trace of some steps beside the TensorBoard files."""
    evaluate: tuple[str, ...] = ()
    """Suites of `experiments.evaluate` to run on the way: reconstruction of a VQ-VAE; likelihood,
    alignment, labels, features, generation and memorisation of a prior."""
    evaluate_every: int = 1000
    """Steps between them; at the first evaluation (train.evaluate-every) from then on."""
    evaluate_vqvae: Path | None = None
    """The VQ-VAE of a prior's codes, for suites that sample: generation, memorisation."""
    evaluate_songs: Path | None = None
    """The songs of a prior's codes, for the same."""


def parse(preset: str, arguments: list[str]) -> Command[Any]:
    """A command with the values of a preset, or of the run in a workdir, as defaults.

    Raises:
      ConfigError: no such preset; data or workdir in a bucket that is not mounted.
    """
    is_run = directory(preset).is_dir()
    experiment: Any = load_experiment(preset)[0] if is_run else presets.get(preset)
    missing: Any = tyro.MISSING
    cls: Any = Command
    parsed: Command[Any] = tyro.cli(
        cls[type(experiment)],
        args=arguments,
        default=Command(missing, missing, experiment),
        prog=f"python -m experiments.train {preset}",
        config=(tyro.conf.AvoidSubcommands,),
    )
    for folder in (parsed.data, parsed.workdir):
        check_folder(folder)
    return parsed


def reconstruction_hook(
    config: VQVAEConfig, mesh: Mesh, batch: dict[str, np.ndarray], first: int | None
) -> Hook:
    """Writes sound and spectrogram of held-out chunks and of their reconstructions by level."""
    audio = np.concatenate(list(batch["audio"]), axis=0)[None]  # chunks one after the other

    @functools.partial(jax.jit, out_shardings=replicated(mesh))
    def rebuild(params: Any, books: Any, x: jax.Array) -> list[jax.Array]:
        codes = [vqvae.encode(config, params, books, x, i) for i in range(config.levels)]
        return [vqvae.decode(config, params, books, z, i) for i, z in enumerate(codes)]

    def show(writer: MetricsWriter, step: int, name: str, sound: np.ndarray) -> None:
        writer.audio(step, name, np.clip(sound, -1, 1), config.sample_rate)
        writer.image(step, name, to_image(log_spectrogram(sound, config.sample_rate)))

    def hook(step: int, state: TrainState, writer: MetricsWriter) -> None:
        nonlocal first
        if first is None or step <= first:
            show(writer, step, "held_out/original", audio[0, :, 0])
            first = step
        for level, y in enumerate(rebuild(state.ema, state.extra.books, audio)):
            show(writer, step, f"held_out/level_{level}", np.asarray(y)[0, :, 0])

    return hook


def run(
    experiment: Experiment,
    data_dir: str | Path,
    workdir: str | Path,
    log: Any = print,
    start_from: str | Path | None = None,
    labels: Path | None = None,
    profile: bool = False,
    evaluate: tuple[str, ...] = (),
    evaluate_every: int = 1000,
    evaluate_vqvae: Path | None = None,
    evaluate_songs: Path | None = None,
) -> TrainState:
    """Trains an experiment on a data set; what the command does after parsing."""
    vocabulary: Vocabulary | None = None
    names = labels or Path(data_dir) / "labels.json"
    note: dict[str, Any] = {}
    if isinstance(experiment, PriorExperiment):
        vocabulary = Vocabulary.load(names)
        info = codes_info(data_dir)
        data.check_codes(experiment.model, info, data_dir)
        experiment = data.fit_labels(experiment, vocabulary)
        experiment = data.fit_alphabet(experiment, data_dir)
        digest = labels_digest(vocabulary, experiment.model.labels)
        note = {"fingerprint": info.fingerprint, "labels": digest}
    else:
        if labels:
            raise ConfigError(f"--labels {labels} is for priors; a VQ-VAE reads no labels.")
        data.check_rate(experiment.model.sample_rate, data_dir)
    check_shared(workdir)
    check_same(experiment, note, workdir, log)
    if start_from is not None:
        check_start(experiment, note, start_from, log, vocabulary)
    mesh = make_mesh(experiment.mesh)
    check_batch(mesh, experiment.train)
    rows = host_rows(mesh, experiment.train.batch).tolist()
    held_out: Any = None
    hooks: tuple[Hook, ...] = ()
    if len(songs.prepared_songs(data_dir).of_split("test")):
        test = functools.partial(data.batches, experiment, data_dir, "test", vocabulary)
        held_out = lambda: test(rows)(0)  # noqa: E731
        if isinstance(experiment, VQVAEExperiment):
            shown = next(test()(0))  # the same on every host
            hooks = (reconstruction_hook(experiment.model, mesh, shown, None),)
    else:
        log(f"{data_dir} has no test split: nothing is held out, so learning cannot be judged.")
    if evaluate:
        from experiments.evaluate.hook import Asked, suites_hook

        asked = Asked(evaluate, evaluate_every, evaluate_vqvae, evaluate_songs)
        where = Path(data_dir), names, Path(workdir)
        hooks += (suites_hook(asked, experiment, mesh, *where, log),)
    train_batches = data.batches(experiment, data_dir, "train", vocabulary, rows)
    return train(
        experiment, mesh, workdir, train_batches, held_out, hooks, note, start_from, log, profile
    )


def check_same(
    experiment: Experiment, note: dict[str, Any], workdir: str | Path, log: Any = print
) -> None:
    """Refuses to go on in a workdir with another model or other codes.

    Raises:
      CheckpointError: what differs, and what to do.
    """
    if not directory(workdir).is_dir():
        return
    with open_existing(workdir) as checkpoints:
        if checkpoints.latest is None:
            return
    found, found_note = load_experiment(workdir)
    if "origin" in found_note:
        raise CheckpointError(
            f"{workdir} holds imported weights, which have no optimizer state to go on with; give "
            f"another --workdir and --start-from {workdir}."
        )
    found_note.setdefault("labels", note.get("labels"))
    for name in ("model", "optimizer", "samples", "downmix", "label_dropout"):
        before, now = (getattr(e, name, None) for e in (found, experiment))
        if before != now:
            raise CheckpointError(
                f"{workdir} holds a run of another {name} ({differences(before, now)}); choose an "
                "empty workdir, or the settings that run had."
            )
    for name, what in (("fingerprint", "codes of VQ-VAE"), ("labels", "label names with digest")):
        if found_note.get(name) != note.get(name):
            raise CheckpointError(
                f"{workdir} was trained on {what} {found_note.get(name)}, but the data now holds "
                f"{note.get(name)}; choose an empty workdir, or the data that run had."
            )
    for name in ("batch", "seed"):
        then, now = getattr(found.train, name), getattr(experiment.train, name)
        if then != now:
            log(
                f"train.{name} was {then} and is {now}: the data goes on at another place, and "
                "what was seen may come again."
            )


# what a run may have other than the one that it starts from
FREE = {"dtype", "remat", "loss", "codebook_decay", "restart_threshold"}


def check_start(
    experiment: Experiment,
    note: dict[str, Any],
    start_from: str | Path,
    log: Any = print,
    vocabulary: Vocabulary | None = None,
) -> None:
    """Refuses to start from weights of another model or for other codes.

    The tables of label names may have grown, where `vocabulary` begins with the old names.

    Raises:
      CheckpointError: what differs, and what to do.
    """
    found, found_note = load_experiment(start_from)
    now: Any = experiment.model
    free = {name: getattr(found.model, name) for name in FREE if hasattr(found.model, name)}
    grown = False
    if type(now) is type(found.model):
        now = dataclasses.replace(now, **free)
        then = found.model.labels if isinstance(found.model, PriorConfig) else None
        if then is not None and now.labels is not None:
            labels = data.before_growing(now.labels, then)
            grown, now = labels != now.labels, dataclasses.replace(now, labels=labels)
    if now != found.model:
        raise CheckpointError(
            f"{start_from} holds weights of another model ({differences(found.model, now)}); "
            "choose the preset and the --model settings that it has."
        )
    if found_note.get("fingerprint") != note.get("fingerprint"):
        raise CheckpointError(
            f"{start_from} learned the codes of VQ-VAE {found_note.get('fingerprint')}, but the "
            f"data holds those of {note.get('fingerprint')}; encode the songs with the VQ-VAE of "
            "those weights."
        )
    if grown:
        assert vocabulary is not None
        old = vocabulary.first(**{name: getattr(now.labels, name) for name in TABLES})
        if found_note.get("labels") != labels_digest(old, now.labels):
            raise CheckpointError(
                f"{start_from} has fewer label names, and the names do not begin with its own: its "
                "rows would come to mean others. Grow its labels.json (`python -m "
                "experiments.labels grow`) and give the result as --labels."
            )
        log(f"More label names than {start_from} has: those it knew keep what it learned of them.")
    elif found_note.get("labels") != note.get("labels"):
        log(
            f"The labels' names are not those that {start_from} learned: artists and genres are "
            "learned anew. Give --labels with its labels.json to keep them."
        )


def differences(before: Any, now: Any, name: str = "") -> str:
    """Which fields of two configs differ, as "width 16, now 32"."""
    if not dataclasses.is_dataclass(before) or type(before) is not type(now):
        if not name:
            before, now = type(before).__name__, type(now).__name__
        return f"{name} {before}, now {now}".strip()
    changed = [
        (f.name, getattr(before, f.name), getattr(now, f.name)) for f in dataclasses.fields(before)
    ]
    return "; ".join(differences(b, n, name) for name, b, n in changed if b != n)


@cli.command
def main(arguments: list[str]) -> None:
    preset, rest = cli.take_preset(arguments, USAGE)
    distributed.start()  # before a run's settings are read, which begins to use devices
    parsed = parse(preset, rest)
    first = jax.process_index() == 0
    run(
        parsed.experiment,
        parsed.data,
        parsed.workdir,
        log=print if first else lambda line: None,
        start_from=parsed.start_from,
        labels=parsed.labels,
        profile=parsed.profile,
        evaluate=parsed.evaluate,
        evaluate_every=parsed.evaluate_every,
        evaluate_vqvae=parsed.evaluate_vqvae,
        evaluate_songs=parsed.evaluate_songs,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
