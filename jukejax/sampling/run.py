"""Samples a request into a sample directory: codes, sounds and alignments, level by level."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jukejax import locks
from jukejax.config import ConfigError, VQVAEConfig
from jukejax.model_dir import LoadedModel, LoadedPrior, LoadedRenderer
from jukejax.sampling import sound
from jukejax.sampling.job import Job
from jukejax.sampling.making import Board, make, resident
from jukejax.sampling.planning import check_memory, plan_text
from jukejax.sampling.request import Request
from jukejax.sampling.resolve import Level, level_name, resolve
from jukejax.sampling.sample_dir import SampleDir
from jukejax.sampling.weights import convert
from jukejax.sampling.words import align_sample, is_aligned, with_words


class Step(NamedTuple):
    """What was added to a sample directory."""

    level: int
    sound: np.ndarray  # (N, n) float32: the next samples of the level's sounds; n may be 0
    finished: bool  # the level has all its codes, sounds and alignments


def plan(model: LoadedModel, request: Request, out: Path, stream: bool = False) -> str:
    """Windows, memory and a time estimate of a request; nothing is sampled or written."""
    levels = resolve(request, model)
    return plan_text(request.job, model.vqvae.config, levels, model.mesh, out, stream)


def sample_into(
    out: Path, model: LoadedModel, request: Request, stream: bool = False, progress: bool = False,
    chunk: int = 0, piece_seconds: float = sound.PIECE_SECONDS,
) -> Iterator[Step]:  # fmt: skip
    """Samples a request into a sample directory, or continues the same request there.

    Work is saved every few seconds: a run may be killed, or this iterator dropped, at any moment.

    Args:
      stream: begin lower levels as soon as the codes above them are sampled; keeps all priors in
        memory.
      progress: print the memory needed and show a progress bar per level.
      chunk: tokens per row between two saves; 0: as many as take about two seconds.
      piece_seconds: seconds of sound decoded at once.

    Raises:
      ConfigError, CheckpointError, DataError: the model cannot sample the request, or `out`
        belongs to another one.
      FolderInUse: another process samples into `out`.
    """
    with locks.writing(out):
        yield from _sample(out, model, request, stream, progress, chunk, piece_seconds)


def _sample(
    out: Path, model: LoadedModel, request: Request, stream: bool, progress: bool,
    chunk: int, piece_seconds: float,
) -> Iterator[Step]:  # fmt: skip
    """Samples as `sample_into` says, in a folder that is locked."""
    job, config, mesh = request.job, model.vqvae.config, model.mesh
    levels = {level.level: level for level in resolve(request, model)}
    memory = check_memory(list(levels.values()), mesh, stream)
    if progress:
        print(memory)
    samples = job.samples(config.sample_rate, config.block)
    renderer = model.renderer if job.render else None
    records = [_record(level, job, config, renderer) for level in levels.values()]
    given = request.given or [np.zeros((len(job.items), 0), np.int32)] * config.levels
    sample = SampleDir(out, job, config.sample_rate, records, given, request.notes)
    board = Board(sample, job, [samples // hop for hop in config.hops], list(levels.values()))
    for number, level in levels.items():
        above = number + 1
        if level.config.upper and above not in levels and not board.finished(above):
            raise ConfigError(
                f"Level {number} is sampled from the codes of level {above}, which {out} lacks; "
                f"name both in --levels, or --upsample a directory that has them."
            )
    n_samples = round(job.seconds * config.sample_rate)
    sounds = {
        number: sound.GrowingSounds(
            sound.decoder(model.vqvae, number, piece_seconds, renderer),
            sample,
            number,
            board.codes[number],
            n_samples,
        )
        for number in levels
        if not (board.finished(number) and sample.has_sound(number))
    }
    nothing = np.zeros((len(job.items), 0), np.float32)

    def load(number: int) -> LoadedPrior:
        prior = model.directory.load_prior(mesh, model.vqvae, number)
        if job.weights == "float32":
            return prior
        return dataclasses.replace(prior, params=convert(prior.params, job.weights))

    for number, priors in make(board, list(levels.values()), load, mesh, stream, progress, chunk):
        piece = sounds[number].grow(board.done(number)) if number in sounds else nothing
        finished = board.finished(number)
        sung = with_words(levels[number]) if finished else []
        if sung and not is_aligned(sample, number, sung):
            prior = resident(priors, number, load, stream)
            align_sample(sample, job, levels[number], prior, mesh)
            del prior  # the next level's may take its place
        yield Step(number, piece, finished)


def _record(
    level: Level, job: Job, config: VQVAEConfig, renderer: LoadedRenderer | None
) -> dict[str, Any]:
    """What job.json says of a level."""
    number = level.level
    rendered = renderer is not None and renderer.config.level == number
    return {
        "level": number,
        "name": level_name(number, config.levels) + (", rendered" if rendered else ""),
        "hop": config.hops[number],
        "tokens": level.plan.total,
        "temperature": job.temperature[number],
        "hop_fraction": job.hop_fraction[number],
        "seconds_to_sample": None,
        "weights": level.weights,
        **({"renderer": renderer.weights} if renderer and rendered else {}),
    }
