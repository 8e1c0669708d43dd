"""Samples what a sample directory lacks, level by level and batch by batch, saved as it goes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from tqdm import tqdm

from jukejax import stored
from jukejax.model_dir import LoadedPrior
from jukejax.parallel.mesh import Mesh
from jukejax.sampling.cascade import Progress, Sampler, by_chain, sample_level
from jukejax.sampling.job import Job
from jukejax.sampling.loop import make_loop
from jukejax.sampling.plan import codes_above
from jukejax.sampling.resolve import Level
from jukejax.sampling.sample_dir import SampleDir


class Board:
    """Codes of all levels and songs of a job so far, in memory and on disk."""

    def __init__(
        self, sample: SampleDir, job: Job, lengths: Sequence[int], levels: list[Level]
    ) -> None:
        """Reads a sample directory; `lengths` are codes of a song per level, bottom first."""
        self.sample, self.job = sample, job
        self.plans = {level.level: level.plan for level in levels}
        self.codes: list[np.ndarray] = []
        self.saved: list[np.ndarray] = []  # (N, T) bool per level: codes of finished rounds
        for level, length in enumerate(lengths):
            codes, done = sample.load(level, (len(job.items), length))
            where = f"{sample.path}/level_{level}/codes.npz"
            stored.check_codes(codes, levels[0].config.codes, where, "remove it to continue.")
            there = np.arange(codes.shape[1]) < done[:, None]
            if level in self.plans:
                plan = self.plans[level]
                for item, count in enumerate(sample.made(level, len(codes))):
                    there[item] |= plan.made(plan.rounds_over(count))
            self.codes.append(codes)
            self.saved.append(there)
        self.sampled = [there.copy() for there in self.saved]  # and of rounds in progress

    def finished(self, level: int) -> bool:
        return bool(self.saved[level].all())

    def done(self, level: int) -> int:
        """How many codes from the first on every song has."""
        return int(_leading(self.saved[level]).min())

    def write(self, level: int, songs: slice, progress: Progress) -> None:
        """Saves the progress of a batch: its round in progress, or all codes."""
        plan = self.plans[level]
        there = plan.made(progress.rounds)
        self.codes[level][songs] = progress.codes
        self.sampled[level][songs] = plan.made(progress.rounds, progress.drawn.shape[1])
        if not progress.drawn.shape[1]:
            self.saved[level][songs] = there
            made = self.saved[level].sum(1)
            self.sample.save(level, self.codes[level], _leading(self.saved[level]), made)
        self.sample.save_window(level, songs.start, int(there.sum()), progress.drawn)


def _leading(there: np.ndarray) -> np.ndarray:
    """How many entries before the first false one (N,) rows (N, T) have."""
    return np.where(there.all(1), there.shape[1], there.argmin(1))


class Batch:
    """One batch of songs of one level, sampled chunk by chunk."""

    def __init__(self, level: Level, number: int, board: Board) -> None:
        self.level, self.number, self.songs, self.board = (
            level,
            number,
            level.batches[number],
            board,
        )
        codes = board.codes[level.level][self.songs]
        count = int(board.saved[level.level][self.songs].sum(1).min())
        rows = len(codes) * level.plan.chains
        drawn = board.sample.load_window(level.level, self.songs.start, count, rows)
        where = f"{board.sample.path}/level_{level.level}/window_{self.songs.start}.npz"
        stored.check_codes(drawn, level.config.codes, where, "remove it to continue.")
        self.progress = Progress(codes, level.plan.rounds_over(count), drawn)
        self.run: Iterator[Progress] | None = None

    @property
    def finished(self) -> bool:
        return self.progress.rounds == len(self.level.plan.rounds)

    @property
    def made(self) -> int:
        """How many codes of its songs are sampled or given."""
        return int(self.board.sampled[self.level.level][self.songs].sum())

    @property
    def ready(self) -> bool:
        """Whether the codes above that the next windows read are sampled."""
        config = self.level.config
        if config.upper is None:
            return True
        above = self.board.sampled[config.level + 1][self.songs]
        ratio, total = self.level.ratio, above.shape[1]
        return all(
            above[:, window.start // ratio : codes_above(window, config.n_ctx, ratio, total)].all()
            for window in self.level.plan.rounds[self.progress.rounds]
        )

    def begin(self, prior: LoadedPrior, mesh: Mesh, chunk: int) -> LoadedPrior:
        """Compiles its loop, once; returns the prior with its parameters in the loop's layouts."""
        if self.run is not None:
            return prior
        job, config, plan, conditions = (
            self.board.job, self.level.config, self.level.plan, self.level.conditions,
        )  # fmt: skip
        assert conditions is not None
        items = np.arange(len(job.items))[self.songs]
        control = by_chain(self.level.controls[self.number], len(items), plan.chains)
        rows = len(control.temperature)
        loop = make_loop(config, mesh, prior.params, rows, control, plan.chains)
        prior = dataclasses.replace(prior, params=loop.place(prior.params))
        describe = conditions.songs(self.songs)
        seed = job.drawing_seed
        sampler = Sampler(config, loop, prior.params, plan, describe, seed, items, control)
        upper = self.board.codes[config.level + 1][self.songs] if config.upper else None
        self.run = sample_level(sampler, self.progress, upper, chunk=chunk)
        return prior

    def step(self) -> int:
        """Samples and saves a few seconds' worth; returns how many tokens per row."""
        assert self.run is not None
        before = self.progress
        self.progress = next(self.run)
        if self.finished:
            self.run = None  # it refers to weights and caches
        self.board.write(self.level.level, self.songs, self.progress)
        return self._steps(self.progress) - self._steps(before)

    def _steps(self, progress: Progress) -> int:
        return self.level.plan.steps(progress.rounds) + progress.drawn.shape[1]


def resident(
    priors: dict[int, LoadedPrior], level: int, load: Callable[[int], LoadedPrior], stream: bool
) -> LoadedPrior:
    """The prior of a level, loaded if it is not in memory; without `stream` it is there alone."""
    if level not in priors:
        if not stream:
            priors.clear()
        priors[level] = load(level)
    return priors[level]


def make(
    board: Board, levels: list[Level], load: Callable[[int], LoadedPrior], mesh: Mesh,
    stream: bool, progress: bool, chunk: int,
) -> Iterator[tuple[int, dict[int, LoadedPrior]]]:  # fmt: skip
    """Samples all levels (ancestral sampling, paper section 4.4), from the top down.

    One prior is in memory at a time; with `stream` every prior stays, and the lowest level whose
    codes above are sampled is next.

    Yields:
      a level after each chunk of it and when it is finished, and the priors in memory.
    """
    batches = [Batch(level, i, board) for level in levels for i in range(len(level.batches))]
    unfinished = [level.level for level in levels]
    priors: dict[int, LoadedPrior] = {}
    bars: dict[int, tqdm] = {}
    while True:
        for level in [level for level in unfinished if board.finished(level)]:
            unfinished.remove(level)
            if level in bars:
                bars.pop(level).close()
            yield level, priors
        if not unfinished:
            return
        waiting = [batch for batch in batches if not batch.finished]
        batch = next(x for x in (reversed(waiting) if stream else waiting) if x.ready)
        level = batch.level.level
        resident(priors, level, load, stream)
        if level not in bars and progress:
            print(f"level {level}: compiling ...", flush=True)
        began, before = time.perf_counter(), batch.made
        with jax.set_mesh(mesh):
            priors[level] = batch.begin(priors[level], mesh, chunk)
            steps = batch.step()
        board.sample.add_time(level, steps, time.perf_counter() - began)
        if level in bars:
            bars[level].update(batch.made - before)
        else:  # from here on: its rate and the time left do not count compiling
            bars[level] = tqdm(
                total=board.codes[level].size, initial=int(board.sampled[level].sum()), unit="tok",
                desc=f"level {level}", disable=not progress,
            )  # fmt: skip
        if not board.finished(level):
            yield level, priors
