"""Suites of a model that is being trained, as a hook of the training loop."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from data_pipeline.codes import codes_info
from data_pipeline.errors import DataError
from data_pipeline.songs import prepared_songs
from experiments import encode
from experiments.evaluate.command import SUITES, known, run_suite
from experiments.evaluate.subject import Lacking, Subject
from jukejax.checkpoint import CheckpointError
from jukejax.config import ConfigError, Experiment, PriorConfig, PriorExperiment
from jukejax.model_dir import LoadedPrior, LoadedVQVAE, ModelDir, fingerprint
from jukejax.parallel.mesh import replicated
from jukejax.training.loop import Hook
from jukejax.training.metrics import MetricsWriter
from jukejax.training.step import TrainState


class InTraining(Subject):
    """The averaged weights of a run at a step, without a checkpoint; and its data set."""

    def __init__(
        self,
        experiment: Experiment,
        mesh: Mesh,
        data: Path,
        labels: Path,
        workdir: Path,
        step: int,
        state: TrainState,
    ) -> None:
        self.experiment, self.step, self.state = experiment, step, state
        prior = isinstance(experiment, PriorExperiment)
        level = experiment.model.level if isinstance(experiment, PriorExperiment) else 0
        priors, names = ({level: workdir}, {level: labels}) if prior else ({}, {})
        directory = ModelDir(workdir, workdir, priors, names)
        songs, codes = (None, data) if prior else (data, None)
        out = workdir / "evaluation" / f"step_{step}"
        super().__init__(directory, mesh, songs, codes, out, experiment.train.batch)

    @functools.cached_property
    def vqvae(self) -> LoadedVQVAE:
        e, state = self.experiment, self.state
        if isinstance(e, PriorExperiment):
            raise Lacking("A prior in training has no VQ-VAE beside it.")
        whole = jax.jit(lambda trees: trees, out_shardings=replicated(self.mesh))
        params, books = whole((state.ema, state.extra.books))  # every host encodes with all of it
        mark = fingerprint(e.model, params, books)
        return LoadedVQVAE(e.model, params, books, self.step, mark)

    @functools.cached_property
    def codes(self) -> Path:
        if self._codes is None:  # of a VQ-VAE: made now, of the held-out songs
            out = self.out / f"codes_{self.vqvae.fingerprint}"
            command = encode.Command(self.directory.vqvae, self.songs, out)
            encode.write_codes(self.vqvae, command, splits=("test",))
            return out
        prepared_songs(self._codes)
        return self._codes

    def prior_config(self, level: int) -> tuple[PriorConfig, dict[str, Any]]:
        assert isinstance(self.experiment, PriorExperiment)
        return self.experiment.model, {}

    def load_prior(self, level: int) -> LoadedPrior:
        mark = codes_info(self.codes).fingerprint
        return LoadedPrior(self.prior_config(level)[0], self.state.ema, self.step, mark)

    def mark(self, part: str) -> Any:
        if part == "priors":
            return {str(level): {"step": self.step} for level in self.prior_levels}
        if part == "vqvae" and isinstance(self.experiment, PriorExperiment):
            return {"fingerprint": codes_info(self.codes).fingerprint}
        if part == "codes" and self._codes is None:  # they follow from the VQ-VAE and the songs
            return self.mark("songs")
        return super().mark(part)


def suites_hook(
    names: Sequence[str],
    every: int,
    experiment: Experiment,
    mesh: Mesh,
    data: Path,
    labels: Path,
    workdir: Path,
    log: Callable[[str], None] = print,
) -> Hook:
    """Runs suites at the first evaluation at or after each multiple of `every` steps, and the last.

    Their scores go to the run's metrics as SUITE/SCORE, their results and report to
    WORKDIR/evaluation/step_N, which `compare` sets side by side. A suite that cannot run says why
    and does not stop training.

    Raises:
      ConfigError: there is no such suite, or `every` is not positive.
    """
    known(names)
    if every < 1:
        raise ConfigError(f"--evaluate-every is {every}; give a number of steps, 1 or more.")
    train = experiment.train

    def hook(step: int, state: TrainState, writer: MetricsWriter) -> None:
        if step % every >= train.evaluate_every and step != train.steps:
            return
        subject = InTraining(experiment, mesh, data, labels, workdir, step, state)
        for name in names:
            try:
                result = run_suite(name, subject)
            except (CheckpointError, ConfigError, DataError) as error:
                log(f"step {step}  {name} is left out: {error}")
                continue
            scores = SUITES[name].scores(result)
            found = {f"{name}/{re.sub(r'[^0-9A-Za-z]+', '_', s.name)}": s.value for s in scores}
            writer.scalars(step, found)

    return hook
