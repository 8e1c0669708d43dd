"""Suites of a model that is being trained, as a hook of the training loop."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jukejax.config import ConfigError, PriorConfig, PriorExperiment, VQVAEExperiment
from jukejax.errors import CheckpointError, DataError
from jukejax.evaluation.data import Codes, Songs
from jukejax.evaluation.subject import Lacking, Subject
from jukejax.evaluation.suites import SUITES, run_suite
from jukejax.model_dir import LoadedPrior, LoadedVQVAE, ModelDir, fingerprint, load_vqvae
from jukejax.parallel.mesh import replicated
from jukejax.training.loop import Hook, Run
from jukejax.training.metrics import MetricsWriter
from jukejax.training.step import TrainState


@dataclass(frozen=True)
class Asked:
    """Which suites run while a model trains, how often, and what they need besides its data."""

    suites: tuple[str, ...]
    every: int = 1000
    vqvae: Path | None = None
    """The VQ-VAE of a prior's codes: what sampled codes are decoded with."""
    songs: Songs | None = None
    """A VQ-VAE's training songs; or the songs of a prior's codes, to compare samples with."""
    codes: Codes | None = None
    """A prior's training codes."""
    labels: Path = Path()
    """File of a prior's label names."""
    encode: Callable[[LoadedVQVAE, Songs, Path], Codes] | None = None
    """Writes the codes of the held-out songs to a folder."""


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

    def __init__(self, run: Run, asked: Asked, step: int, state: TrainState) -> None:
        self.run, self.asked, self.step, self.state = run, asked, step, state
        workdir, experiment = Path(run.workdir), run.experiment
        directory = ModelDir(workdir, workdir, {}, {})
        if isinstance(experiment, PriorExperiment):
            assert asked.codes is not None
            config, note = experiment.model, {"step": step, "fingerprint": asked.codes.fingerprint}
            paths = workdir, workdir, {config.level: workdir}, {config.level: asked.labels}
            directory = PriorInTraining(*paths, config, note, state.ema)
        super().__init__(
            directory, run.mesh, workdir / "evaluation" / f"step_{step}", asked.songs, asked.codes,
            experiment.train.batch,
        )  # fmt: skip

    @functools.cached_property
    def vqvae(self) -> LoadedVQVAE:
        e, state = self.run.experiment, self.state
        if isinstance(e, PriorExperiment):
            if self.asked.vqvae is None:
                raise Lacking("A prior in training needs its VQ-VAE for this: --evaluate-vqvae.")
            return load_vqvae(self.asked.vqvae, self.mesh)
        assert isinstance(e, VQVAEExperiment)
        gather = jax.jit(lambda trees: trees, out_shardings=replicated(self.mesh))
        params, books = gather((state.ema, state.extra.books))  # every host encodes with all of it
        mark = fingerprint(e.model, params, books)
        return LoadedVQVAE(e.model, params, books, self.step, mark)

    @functools.cached_property
    def songs(self) -> Songs:
        if self._songs is None:
            raise Lacking("A prior in training needs its songs for this: --evaluate-songs.")
        return super().songs

    @functools.cached_property
    def codes(self) -> Codes:
        if self._codes is None:  # of a VQ-VAE: encoded now, the held-out songs alone
            assert self.asked.encode is not None
            out = self.out / f"codes_{self.vqvae.fingerprint}"
            return self.asked.encode(self.vqvae, self.songs, out)
        self._codes.listed()
        return super().codes if self.asked.vqvae else self._codes

    def prior_config(self, level: int) -> PriorConfig:
        assert isinstance(self.run.experiment, PriorExperiment)
        return self.run.experiment.model

    def load_prior(self, level: int) -> LoadedPrior:
        mark = self.codes.fingerprint
        return LoadedPrior(self.prior_config(level), self.state.ema, self.step, mark)

    def prior_marks(self, levels: Iterable[int]) -> dict[str, Any]:
        return {str(level): {"step": self.step} for level in levels}

    def mark(self, part: str) -> Any:
        if part == "vqvae" and isinstance(self.run.experiment, PriorExperiment):
            return {"fingerprint": self.codes.fingerprint}
        if part == "codes" and self._codes is None:  # they follow from the VQ-VAE and the songs
            return self.mark("songs")
        return super().mark(part)


def check_suites(suites: Sequence[str], every: int) -> None:
    """Checks which suites are to run during a training, and how often.

    Raises:
      ConfigError: there is no such suite, or `every` is below 1.
    """
    for name in suites:
        if name not in SUITES:
            raise ConfigError(
                f"--evaluate has {name!r}, which is no suite; while a model trains, name some of "
                f"{', '.join(SUITES)}."
            )
    if every < 1:
        raise ConfigError(f"--evaluate-every is {every}; give a number of steps, 1 or more.")


def suites_hook(asked: Asked, run: Run) -> Hook:
    """Runs suites every `asked.every` steps and after the last one.

    Their scores go to the run's metrics as SUITE/SCORE, their results and report to
    WORKDIR/evaluation/step_N, which `compare` compares. A suite that cannot run says why and does
    not stop training.

    Raises:
      ConfigError: as `check_suites`.
    """
    check_suites(asked.suites, asked.every)

    def evaluate(step: int, state: TrainState, writer: MetricsWriter) -> None:
        subject = InTraining(run, asked, step, state)
        for name in asked.suites:
            try:
                result = run_suite(name, subject)
            except (CheckpointError, ConfigError, DataError) as error:
                run.log(f"step {step}  {name} is left out: {error}")
                continue
            scores = {
                f"{name}/{re.sub(r'[^0-9A-Za-z]+', '_', score.name)}": score.value
                for score in SUITES[name].scores(result)
            }
            writer.scalars(step, scores)

    return Hook(asked.every, evaluate)
