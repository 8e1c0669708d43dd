"""Suites of a model that is being trained, as a hook of the training loop."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from data_pipeline.codes import codes_info
from data_pipeline.songs import prepared_songs
from experiments import codes
from experiments.evaluate.command import SUITES, known, run_suite
from experiments.evaluate.subject import Lacking, Subject
from jukejax.config import ConfigError, Experiment, PriorConfig, PriorExperiment
from jukejax.errors import CheckpointError, DataError
from jukejax.model_dir import LoadedPrior, LoadedVQVAE, ModelDir, fingerprint, load_vqvae
from jukejax.parallel.mesh import replicated
from jukejax.training.loop import Hook
from jukejax.training.metrics import MetricsWriter
from jukejax.training.step import TrainState


@dataclass(frozen=True)
class Asked:
    """Which suites run while a model trains, how often, and what they need beside its data."""

    suites: tuple[str, ...]
    every: int = 1000
    vqvae: Path | None = None
    """The VQ-VAE of a prior's codes: what sampled codes are decoded with."""
    songs: Path | None = None
    """The songs of a prior's codes, to compare samples with."""


@dataclass(frozen=True)
class PriorInTraining(ModelDir):
    """A model directory whose one prior is in memory, so that it can be sampled."""

    config: PriorConfig
    note: dict[str, Any]
    params: Any

    def prior_config(self, level: int) -> tuple[PriorConfig, dict[str, Any]]:
        self.prior(level)  # there is no other
        return self.config, self.note

    def load_prior(self, mesh: Mesh, vqvae: LoadedVQVAE, level: int) -> LoadedPrior:
        self.checked_config(vqvae, level)
        return LoadedPrior(self.config, self.params, self.note["step"], vqvae.fingerprint)


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
        asked: Asked,
    ) -> None:
        self.experiment, self.step, self.state, self.beside = experiment, step, state, asked.vqvae
        out, batch = workdir / "evaluation" / f"step_{step}", experiment.train.batch
        if not isinstance(experiment, PriorExperiment):
            super().__init__(ModelDir(workdir, workdir, {}, {}), mesh, data, None, out, batch)
            return
        config, info = experiment.model, codes_info(data)
        note = {"step": step, "fingerprint": info.fingerprint}
        named = workdir, workdir, {config.level: workdir}, {config.level: labels}
        directory = PriorInTraining(*named, config, note, state.ema)
        super().__init__(directory, mesh, asked.songs, data, out, batch)

    @functools.cached_property
    def vqvae(self) -> LoadedVQVAE:
        e, state = self.experiment, self.state
        if isinstance(e, PriorExperiment):
            if self.beside is None:
                raise Lacking("A prior in training needs its VQ-VAE for this: --evaluate-vqvae.")
            return load_vqvae(self.beside, self.mesh)
        whole = jax.jit(lambda trees: trees, out_shardings=replicated(self.mesh))
        params, books = whole((state.ema, state.extra.books))  # every host encodes with all of it
        mark = fingerprint(e.model, params, books)
        return LoadedVQVAE(e.model, params, books, self.step, mark)

    @functools.cached_property
    def songs(self) -> Path:
        if self._songs is None:
            raise Lacking("A prior in training needs its songs for this: --evaluate-songs.")
        return super().songs

    @functools.cached_property
    def codes(self) -> Path:
        if self._codes is None:  # of a VQ-VAE: made now, of the held-out songs
            out = self.out / f"codes_{self.vqvae.fingerprint}"
            encoding = codes.Encoding(self.directory.vqvae, self.songs, out)
            codes.write_codes(self.vqvae, encoding, splits=("test",))
            return out
        prepared_songs(self._codes)
        return super().codes if self.beside else self._codes

    def prior_config(self, level: int) -> tuple[PriorConfig, dict[str, Any]]:
        assert isinstance(self.experiment, PriorExperiment)
        return self.experiment.model, {}

    def load_prior(self, level: int) -> LoadedPrior:
        mark = codes_info(self.codes).fingerprint
        return LoadedPrior(self.prior_config(level)[0], self.state.ema, self.step, mark)

    def prior_marks(self, levels: Iterable[int]) -> dict[str, Any]:
        return {str(level): {"step": self.step} for level in levels}

    def mark(self, part: str) -> Any:
        if part == "vqvae" and isinstance(self.experiment, PriorExperiment):
            return {"fingerprint": codes_info(self.codes).fingerprint}
        if part == "codes" and self._codes is None:  # they follow from the VQ-VAE and the songs
            return self.mark("songs")
        return super().mark(part)


def suites_hook(
    asked: Asked,
    experiment: Experiment,
    mesh: Mesh,
    data: Path,
    labels: Path,
    workdir: Path,
    log: Callable[[str], None] = print,
) -> Hook:
    """Runs suites every `asked.every` steps and after the last one.

    Their scores go to the run's metrics as SUITE/SCORE, their results and report to
    WORKDIR/evaluation/step_N, which `compare` sets side by side. A suite that cannot run says why
    and does not stop training.

    Raises:
      ConfigError: there is no such suite, or `asked.every` is not positive.
    """
    known(asked.suites)
    if asked.every < 1:
        raise ConfigError(f"--evaluate-every is {asked.every}; give a number of steps, 1 or more.")

    def run(step: int, state: TrainState, writer: MetricsWriter) -> None:
        subject = InTraining(experiment, mesh, data, labels, workdir, step, state, asked)
        for name in asked.suites:
            try:
                result = run_suite(name, subject)
            except (CheckpointError, ConfigError, DataError) as error:
                log(f"step {step}  {name} is left out: {error}")
                continue
            scores = SUITES[name].scores(result)
            found = {f"{name}/{re.sub(r'[^0-9A-Za-z]+', '_', s.name)}": s.value for s in scores}
            writer.scalars(step, found)

    return Hook(asked.every, run)
