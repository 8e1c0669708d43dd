"""Makes what a job lacks: rounds of windows of every level and batch, saved every few seconds."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import jax
import numpy as np
from tqdm import tqdm

from jukejax.model_dir import LoadedPrior, LoadedVQVAE, ModelDir
from jukejax.parallel.mesh import Mesh
from jukejax.sampling.cascade import Level, Progress, by_chain, sample_level
from jukejax.sampling.job import Job
from jukejax.sampling.loop import make_loop
from jukejax.sampling.plan import codes_above
from jukejax.sampling.resolve import LevelSetup
from jukejax.sampling.sample_dir import SampleDir
from jukejax.sampling.weights import hold


class Board:
    """Codes of all levels and items of a job as far as they are made, in memory and on disk."""

    def __init__(
        self,
        sample: SampleDir,
        job: Job,
        hops: tuple[int, ...],
        samples: int,
        setups: list[LevelSetup],
    ) -> None:
        self.sample, self.job = sample, job
        self.plans = {setup.level: setup.plan for setup in setups}
        self.codes: list[np.ndarray] = []
        self.there: list[np.ndarray] = []  # (N, T) bool a level: those of rounds that are over
        for level, hop in enumerate(hops):
            codes, done = sample.load(level, (len(job.items), samples // hop))
            there = np.arange(codes.shape[1]) < done[:, None]
            if level in self.plans:
                plan = self.plans[level]
                for item, count in enumerate(sample.made(level, len(codes))):
                    there[item] |= plan.made(plan.rounds_over(count))
            self.codes.append(codes)
            self.there.append(there)
        self.ahead = [there.copy() for there in self.there]  # with the rounds under way

    def finished(self, level: int) -> bool:
        return bool(self.there[level].all())

    def done(self, level: int) -> int:
        """How many codes from the first on are there, of every item."""
        return int(_leading(self.there[level]).min())

    def read(self, level: int, some: slice) -> Progress:
        """How far a batch of a level has come."""
        plan, codes = self.plans[level], self.codes[level][some]
        count = int(self.there[level][some].sum(1).min())
        rows = len(codes) * plan.chains
        drawn = self.sample.load_window(level, some.start, count, rows)
        return Progress(codes, plan.rounds_over(count), drawn)

    def write(self, level: int, some: slice, progress: Progress) -> None:
        """Notes and saves how far a batch has come: its round under way, or all codes."""
        plan = self.plans[level]
        there = plan.made(progress.rounds)
        self.codes[level][some] = progress.codes
        self.ahead[level][some] = plan.made(progress.rounds, progress.drawn.shape[1])
        if not progress.drawn.shape[1]:
            self.there[level][some] = there
            made = self.there[level].sum(1)
            self.sample.save(level, self.codes[level], _leading(self.there[level]), made)
        self.sample.save_window(level, some.start, int(there.sum()), progress.drawn)


def _leading(there: np.ndarray) -> np.ndarray:
    """How many of the first entries (N,) of rows (N, T) are true."""
    return np.where(there.all(1), there.shape[1], there.argmin(1))


class Batch:
    """The rounds of one batch of one level, to be advanced step by step."""

    def __init__(self, setup: LevelSetup, batch: int, some: slice, board: Board) -> None:
        self.setup, self.batch, self.some, self.board = setup, batch, some, board
        self.progress = board.read(setup.level, some)
        self.run: Iterator[Progress] | None = None

    @property
    def finished(self) -> bool:
        return self.progress.rounds == len(self.setup.plan.rounds)

    @property
    def made(self) -> int:
        """Tokens that are there, of all its songs."""
        return int(self.board.ahead[self.setup.level][self.some].sum())

    @property
    def ready(self) -> bool:
        """Whether the codes above that the next windows read are there."""
        if self.setup.config.upper is None:
            return True
        above = self.board.ahead[self.setup.level + 1][self.some]
        n_ctx, ratio, total = self.setup.config.n_ctx, self.setup.ratio, above.shape[1]
        return all(
            above[:, window.start // ratio : codes_above(window, n_ctx, ratio, total)].all()
            for window in self.setup.plan.rounds[self.progress.rounds]
        )

    def begin(self, prior: LoadedPrior, mesh: Mesh) -> LoadedPrior:
        """Gets ready to step; returns the prior with its parameters as this batch's loop wants."""
        if self.run is not None:
            return prior
        job, level, plan = self.board.job, self.setup.level, self.setup.plan
        items = np.arange(len(job.items))[self.some]
        control = by_chain(self.setup.controls[self.batch], len(items), plan.chains)
        rows = len(items) * plan.chains
        loop = make_loop(self.setup.config, mesh, prior.params, rows, control, plan.chains)
        prior = dataclasses.replace(prior, params=loop.place(prior.params))
        made_by = Level(
            self.setup.config,
            loop,
            prior.params,
            plan,
            self.setup.describes[self.batch],
            job.seed,
            items,
            control,
        )
        upper = self.board.codes[level + 1][self.some] if self.setup.config.upper else None
        self.run = sample_level(made_by, self.progress, upper)
        return prior

    def step(self) -> int:
        """A few seconds of work, saved; returns how many tokens a row were made."""
        assert self.run is not None
        before = self.progress
        self.progress = next(self.run)
        if self.finished:
            self.run = None  # it holds weights and caches
        self.board.write(self.setup.level, self.some, self.progress)
        return self._steps(self.progress) - self._steps(before)

    def _steps(self, progress: Progress) -> int:
        return self.setup.plan.steps(progress.rounds) + progress.drawn.shape[1]


def load_prior(
    folder: ModelDir, mesh: Mesh, model: LoadedVQVAE, level: int, weights: str
) -> LoadedPrior:
    """A level's prior with its matrices held in a format (`jukejax.sampling.weights`)."""
    prior = folder.load_prior(mesh, model, level)
    if weights == "float32":
        return prior
    return dataclasses.replace(prior, params=hold(prior.params, weights))


def make(
    board: Board,
    setups: list[LevelSetup],
    folder: ModelDir,
    model: LoadedVQVAE,
    mesh: Mesh,
    stream: bool,
    progress: bool,
) -> Iterator[tuple[int, dict[int, LoadedPrior]]]:
    """Makes all levels; yields a level when it has got on or is finished, and priors in memory.

    From the top down, with one prior in memory at a time; with `stream`, the lowest level that can
    go on goes on, and every prior stays.
    """
    batches = [
        Batch(setup, number, some, board)
        for setup in setups
        for number, some in enumerate(setup.batches)
    ]
    unfinished = [setup.level for setup in setups]
    priors: dict[int, LoadedPrior] = {}
    bars: dict[int, tqdm] = {}
    while unfinished:
        for level in [level for level in unfinished if board.finished(level)]:
            unfinished.remove(level)
            if level in bars:
                bars.pop(level).close()
            yield level, priors
        waiting = [batch for batch in batches if not batch.finished]
        if not waiting:
            continue
        order = reversed(waiting) if stream else iter(waiting)
        batch = next(x for x in order if x.ready)
        level = batch.setup.level
        if level not in priors:
            if not stream:
                priors.clear()
            priors[level] = load_prior(folder, mesh, model, level, board.job.weights)
        if level not in bars:
            made = sum(x.made for x in batches if x.setup.level == level)
            bars[level] = tqdm(
                total=board.codes[level].size, initial=made, unit="tok", desc=f"level {level}",
                disable=not progress,
            )  # fmt: skip
        began, before = time.perf_counter(), batch.made
        with jax.set_mesh(mesh):
            priors[level] = batch.begin(priors[level], mesh)
            steps = batch.step()
        board.sample.add_time(level, steps, time.perf_counter() - began)
        bars[level].update(batch.made - before)
        if not board.finished(level):
            yield level, priors
