"""Train a VQ-VAE on songs, or a prior on codes.

python -m experiments.train demo_vqvae --data runs/demo/songs --workdir runs/demo/vqvae
python -m experiments.train demo_prior --data runs/demo/codes --workdir runs/demo/prior
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import jax
import numpy as np
import tyro

from data_pipeline import songs
from data_pipeline.codes import codes_info
from experiments import cli, data
from jukejax import presets
from jukejax.checkpoint import CheckpointError, Checkpoints
from jukejax.config import (
    Experiment,
    PriorExperiment,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.models import vqvae
from jukejax.parallel.mesh import make_mesh
from jukejax.spectrogram import log_spectrogram, to_image
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


def parse(preset: str, arguments: list[str]) -> Command[Any]:
    """A command with the preset's values as defaults."""
    experiment: Any = presets.get(preset)
    missing: Any = tyro.MISSING
    cls: Any = Command
    return tyro.cli(
        cls[type(experiment)],
        args=arguments,
        default=Command(missing, missing, experiment),
        prog=f"python -m experiments.train {preset}",
        config=(tyro.conf.AvoidSubcommands,),
    )


def reconstruction_hook(
    config: VQVAEConfig, batch: dict[str, np.ndarray], first: int | None
) -> Hook:
    """Writes sound and spectrogram of held-out chunks and of their reconstructions by level."""
    audio = np.concatenate(list(batch["audio"]), axis=0)[None]  # chunks one after the other

    @jax.jit
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
    experiment: Experiment, data_dir: str | Path, workdir: str | Path, log: Any = print
) -> TrainState:
    """Trains an experiment on a data set; what the command does after parsing."""
    note: dict[str, Any] = {}
    if isinstance(experiment, PriorExperiment):
        experiment = data.fit_labels(experiment, data.read_vocabulary(data_dir))
        note["fingerprint"] = codes_info(data_dir).fingerprint
    check_same(experiment, note, workdir)
    mesh = make_mesh(experiment.mesh)
    held_out: Any = None
    hooks: tuple[Hook, ...] = ()
    if any(song.split == "test" for song in songs.prepared_songs(data_dir)):
        test = data.batches(experiment, data_dir, "test")
        held_out = lambda: test(0)  # noqa: E731
        if isinstance(experiment, VQVAEExperiment):
            hooks = (reconstruction_hook(experiment.model, next(test(0)), None),)
    else:
        log(f"{data_dir} has no test split: nothing is held out, so learning cannot be judged.")
    train_batches = data.batches(experiment, data_dir, "train")
    return train(experiment, mesh, workdir, train_batches, held_out, hooks, note, log)


def check_same(experiment: Experiment, note: dict[str, Any], workdir: str | Path) -> None:
    """Refuses to go on in a workdir with another model or other codes.

    Raises:
      CheckpointError: what differs, and what to do.
    """
    from jukejax.model_dir import load_experiment

    with Checkpoints(workdir) as checkpoints:
        if checkpoints.latest is None:
            return
    found, found_note = load_experiment(workdir)
    if found.model != experiment.model:
        raise CheckpointError(
            f"{workdir} holds a run of another model ({found.model}); choose an empty workdir, or "
            "the settings that run had."
        )
    if found_note.get("fingerprint") != note.get("fingerprint"):
        raise CheckpointError(
            f"{workdir} was trained on codes of VQ-VAE {found_note.get('fingerprint')}, but the "
            f"data now holds codes of {note.get('fingerprint')}; choose an empty workdir."
        )


@cli.command
def main(arguments: list[str]) -> None:
    preset, rest = cli.take_preset(arguments, USAGE)
    parsed = parse(preset, rest)
    run(parsed.experiment, parsed.data, parsed.workdir)


if __name__ == "__main__":
    main(sys.argv[1:])
