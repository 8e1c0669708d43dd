"""Samples a request into a sample directory: codes, sounds and alignments, level by level."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jukejax.config import ConfigError
from jukejax.model_dir import LoadedModel
from jukejax.sampling import sound
from jukejax.sampling.making import Board, load_prior, make
from jukejax.sampling.planning import check_memory, memory_text, plan_text
from jukejax.sampling.request import Request
from jukejax.sampling.resolve import describe_level, set_up
from jukejax.sampling.sample_dir import SampleDir
from jukejax.sampling.words import align_sample, is_aligned, with_words


class Step(NamedTuple):
    """What was added to a sample directory."""

    level: int
    sound: np.ndarray  # (N, n) float32: the next samples of the level's sounds; n may be 0
    finished: bool  # the level has all its codes, sounds and alignments


def plan(model: LoadedModel, request: Request, out: Path, stream: bool = False) -> str:
    """Windows, memory and a time estimate of a request; nothing is sampled or written."""
    setups = set_up(request.job, model.directory, model.vqvae)
    return plan_text(request.job, model.vqvae.config, setups, model.mesh, out, stream)


def sample_into(
    out: Path, model: LoadedModel, request: Request, stream: bool = False, progress: bool = False
) -> Iterator[Step]:
    """Samples a request into a sample directory, or continues the same request there.

    Work is saved every few seconds: a run may be killed, or this iterator dropped, at any moment.

    Args:
      stream: begin lower levels as soon as the codes above them are sampled; keeps all priors in
        memory.
      progress: print the memory needed and show a progress bar per level.

    Raises:
      ConfigError, CheckpointError, DataError: the model cannot sample the request, or `out`
        belongs to another one.
    """
    job, config, mesh = request.job, model.vqvae.config, model.mesh
    setups = set_up(job, model.directory, model.vqvae)
    check_memory(job, setups, mesh, stream)
    if progress:
        print(memory_text(job, setups, mesh, stream))
    samples = job.samples(config.sample_rate, config.hops[-1])
    levels = [describe_level(job, config, setup, samples) for setup in setups]
    given = request.given or [np.zeros((len(job.items), 0), np.int32)] * config.levels
    sample = SampleDir(out, job, config.sample_rate, levels, given, request.notes)
    board = Board(sample, job, config.hops, samples, setups)
    by_level = {setup.level: setup for setup in setups}
    for level, setup in by_level.items():
        above = level + 1
        if setup.config.upper and above not in by_level and not board.finished(above):
            raise ConfigError(
                f"Level {level} is made from the codes of level {above}, which {out} lacks; "
                f"name both in --levels, or --upsample a directory that has them."
            )
    seconds = round(job.seconds * config.sample_rate)
    sounds = {
        level: sound.GrowingSounds(model.vqvae, sample, level, board.codes[level], seconds)
        for level in by_level
        if not (board.finished(level) and sample.has_sound(level))
    }
    nothing = np.zeros((len(job.items), 0), np.float32)
    making = make(board, setups, model.directory, model.vqvae, mesh, stream, progress)
    for level, priors in making:
        piece = sounds[level].grow(board.done(level)) if level in sounds else nothing
        if board.finished(level):
            sung = with_words(by_level[level].config, job)
            if sung and not is_aligned(sample, level, sung):
                if level not in priors:
                    priors[level] = load_prior(
                        model.directory, mesh, model.vqvae, level, job.weights
                    )
                align_sample(sample, job, samples, model.directory, priors[level], mesh)
        yield Step(level, piece, board.finished(level))
