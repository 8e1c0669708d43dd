"""Sounds of held-out chunks and of their reconstructions in TensorBoard, while a model trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jukejax.config import RendererExperiment, VQVAEExperiment
from jukejax.models import renderer, vqvae
from jukejax.parallel.mesh import replicated
from jukejax.training.adversarial import RENDERER
from jukejax.training.loop import Hook, Run
from jukejax.training.metrics import MetricsWriter
from jukejax.training.step import TrainState

SHOWN_SECONDS = 60.0
OfSound = VQVAEExperiment | RendererExperiment  # models of which sounds are shown


def shown_chunks(experiment: OfSound) -> int:
    """How many chunks of a batch are shown: each device rebuilds all of them."""
    fitting = int(SHOWN_SECONDS * experiment.model.sample_rate) // experiment.samples
    return min(experiment.train.batch, max(fitting, 1))


def jit_rebuild(experiment: OfSound, mesh: Mesh) -> jax.stages.Wrapped:
    """The jitted (params, extra, audio (B, S, 1)) -> its reconstruction by level, replicated."""

    def rebuild(params: Any, extra: Any, x: jax.Array) -> dict[int, jax.Array]:
        if isinstance(experiment, RendererExperiment):
            r = experiment.model
            vectors = renderer.to_vectors(r, extra, x)
            return {r.level: renderer.apply(r, params[RENDERER], vectors)}
        config = experiment.model
        codes = [vqvae.encode(config, params, extra.books, x, i) for i in range(config.levels)]
        return {i: vqvae.decode(config, params, extra.books, z, i) for i, z in enumerate(codes)}

    return jax.jit(rebuild, out_shardings=replicated(mesh))


def reconstruction_hook(
    run: Run, audio: np.ndarray, picture: Callable[[np.ndarray, int], np.ndarray]
) -> Hook:
    """Writes the sound and a picture of chunks and of their reconstructions at every evaluation.

    Args:
      run: of a VQ-VAE or a renderer.
      audio: chunks (B, S, 1) in [-1, 1], the same on every host; shown one after the other.
      picture: a sound (S,) and its sample rate -> pixels, uint8 (H, W, 3).
    """
    assert isinstance(run.experiment, OfSound)
    config = run.experiment.model
    original_shown = False

    rebuild = jit_rebuild(run.experiment, run.mesh)

    def show(writer: MetricsWriter, step: int, name: str, sound: np.ndarray) -> None:
        writer.audio(step, name, sound, config.sample_rate)
        writer.image(step, name, picture(sound, config.sample_rate))

    def write(step: int, state: TrainState, writer: MetricsWriter) -> None:
        nonlocal original_shown
        if not original_shown:
            show(writer, step, "held_out/original", audio.reshape(-1))
            original_shown = True
        for level, y in rebuild(state.ema, state.extra, audio).items():
            show(writer, step, f"held_out/level_{level}", np.asarray(y).reshape(-1))

    return Hook(run.experiment.train.evaluate_every, write)
