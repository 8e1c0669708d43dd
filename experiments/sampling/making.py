"""Makes what a job lacks: chains of windows, one a level and a batch, saved every few seconds."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import jax
import numpy as np
from tqdm import tqdm

from experiments.sampling.setup import LevelSetup
from jukejax.model_dir import LoadedPrior, LoadedVQVAE, ModelDir
from jukejax.parallel.mesh import Mesh
from jukejax.sampling.cascade import Level, Progress, sample_level
from jukejax.sampling.job import Job
from jukejax.sampling.loop import make_loop
from jukejax.sampling.plan import codes_above
from jukejax.sampling.sample_dir import SampleDir
from jukejax.sampling.weights import hold


class Board:
    """Codes of all levels and items of a job as far as they are made, in memory and on disk."""

    def __init__(self, sample: SampleDir, job: Job, hops: tuple[int, ...], samples: int) -> None:
        self.sample, self.job = sample, job
        shape = [(len(job.items), samples // hop) for hop in hops]
        loaded = [sample.load(level, size) for level, size in enumerate(shape)]
        self.codes, self.done = ([x[i] for x in loaded] for i in (0, 1))
        self.ahead = [done.copy() for done in self.done]  # with the windows under way

    def finished(self, level: int) -> bool:
        return bool((self.done[level] == self.codes[level].shape[1]).all())

    def read(self, level: int, some: slice) -> Progress:
        """How far a batch of a level has come."""
        done = int(self.done[level][some].min())
        drawn = self.sample.load_window(level, some.start, done, len(self.codes[level][some]))
        return Progress(self.codes[level][some], done + drawn.shape[1], drawn)

    def write(self, level: int, some: slice, progress: Progress) -> None:
        """Notes and saves how far a batch has come: its window under way, or all codes."""
        made = progress.done - progress.drawn.shape[1]
        self.codes[level][some] = progress.codes
        self.ahead[level][some] = progress.done
        if not progress.drawn.shape[1]:
            self.done[level][some] = made
            self.sample.save(level, self.codes[level], self.done[level])
        self.sample.save_window(level, some.start, made, progress.drawn)


class Chain:
    """The windows of one batch of one level, to be advanced step by step."""

    def __init__(self, setup: LevelSetup, batch: int, some: slice, board: Board) -> None:
        self.setup, self.batch, self.some, self.board = setup, batch, some, board
        self.progress = board.read(setup.level, some)
        self.run: Iterator[Progress] | None = None

    @property
    def finished(self) -> bool:
        return self.progress.done == self.progress.codes.shape[1]

    @property
    def ready(self) -> bool:
        """Whether the codes above that the next window reads are there."""
        if self.setup.config.upper is None:
            return True
        done, n_ctx = self.progress.done, self.setup.config.n_ctx
        window = next(w for w in self.setup.windows if w.stop > done)
        above = self.board.codes[self.setup.level + 1].shape[1]
        wanted = codes_above(window, n_ctx, self.setup.ratio, above)
        return bool(self.board.ahead[self.setup.level + 1][self.some].min() >= wanted)

    def begin(self, prior: LoadedPrior, mesh: Mesh) -> LoadedPrior:
        """Gets ready to step; returns the prior with its parameters as this chain's loop wants."""
        if self.run is not None:
            return prior
        job, level = self.board.job, self.setup.level
        control, items = self.setup.controls[self.batch], np.arange(len(job.items))[self.some]
        loop = make_loop(self.setup.config, mesh, prior.params, len(items), control)
        prior = dataclasses.replace(prior, params=loop.place(prior.params))
        made_by = Level(
            self.setup.config,
            loop,
            prior.params,
            self.setup.windows,
            self.setup.describes[self.batch],
            job.seed,
            items,
            control,
        )
        upper = self.board.codes[level + 1][self.some] if self.setup.config.upper else None
        self.run = sample_level(made_by, self.progress, upper)
        return prior

    def step(self) -> int:
        """A few seconds of work, saved; returns how many tokens were made."""
        assert self.run is not None
        before = self.progress.done
        self.progress = next(self.run)
        if self.finished:
            self.run = None  # it holds weights and caches
        self.board.write(self.setup.level, self.some, self.progress)
        return self.progress.done - before


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
) -> Iterator[tuple[int, dict[int, LoadedPrior]]]:
    """Makes all levels; yields each when it is finished, with the priors in memory.

    From the top down, with one prior in memory at a time; with `stream`, the lowest level that can
    go on goes on, and every prior stays.
    """
    chains = [
        Chain(setup, batch, some, board)
        for setup in setups
        for batch, some in enumerate(board.job.batches())
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
        waiting = [chain for chain in chains if not chain.finished]
        if not waiting:
            continue
        order = reversed(waiting) if stream else iter(waiting)
        chain = next(c for c in order if c.ready)
        level = chain.setup.level
        if level not in priors:
            if not stream:
                priors.clear()
            priors[level] = load_prior(folder, mesh, model, level, board.job.weights)
        if level not in bars:
            total = board.codes[level].size
            made = int(sum(c.progress.done * len(c.progress.codes) for c in chains
                           if c.setup.level == level))  # fmt: skip
            bars[level] = tqdm(total=total, initial=made, unit="tok", desc=f"level {level}")
        began = time.perf_counter()
        with jax.set_mesh(mesh):
            priors[level] = chain.begin(priors[level], mesh)
            steps = chain.step()
        board.sample.add_time(level, steps, time.perf_counter() - began)
        bars[level].update(steps * len(chain.progress.codes))
