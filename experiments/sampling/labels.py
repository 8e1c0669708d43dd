"""Make songs: sample all levels top to bottom, decode each, and write a page to listen to.

python -m experiments.sample --model runs/demo/model --out runs/demo/sample \\
    --artist "Flite RMS" --genre hymn --lyrics words.txt --seconds 6 --seed 0

Codes are saved after every window; the same command goes on where a killed one was.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from tqdm import tqdm

from data_pipeline import lyrics as text
from data_pipeline.errors import DataError
from data_pipeline.labels import Vocabulary
from data_pipeline.manifest import read_lyrics
from experiments import cli
from experiments.data import labels_digest
from jukejax.config import ConfigError, MeshConfig, PriorConfig, VQVAEConfig
from jukejax.evaluation.page import write_page
from jukejax.model_dir import (
    LoadedPrior,
    LoadedVQVAE,
    ModelDir,
    load_vqvae,
    read_model_dir,
    weights_name,
)
from jukejax.models import vqvae
from jukejax.parallel.mesh import make_mesh
from jukejax.sampling.cascade import Describe, sample_level
from jukejax.sampling.job import Item, Job
from jukejax.sampling.plan import plan_windows
from jukejax.sampling.sample_dir import SampleDir, read_job


@dataclass(frozen=True)
class Command:
    """Sample songs from a model directory."""

    out: Path
    """Gets codes, sounds, pictures, job.json and index.html."""
    model: Path | None = None
    """A model directory (model.json)."""
    job: Path | None = None
    """A job.json to make again, with --model where the model has moved; takes no other options."""
    artist: str = "unknown"
    """A name of the model's label vocabulary."""
    genre: tuple[str, ...] = ("unknown",)
    """One or more names of the vocabulary."""
    lyrics: Path | None = None
    """A text file."""
    seconds: float = 20.0
    """Length to make."""
    total_seconds: float = 0.0
    """Length of the song that the sample begins; 0: as long as the sample."""
    count: int = 1
    """Songs to make with these labels."""
    seed: int = 0
    """Of all random numbers; the same seed makes the same song."""
    temperature: tuple[float, ...] = Job.temperature
    """A level each, bottom first."""
    hop_fraction: tuple[float, ...] = Job.hop_fraction
    """How far windows move, a level each, bottom first."""


def make_job(command: Command) -> Job:
    """The job that a command line asks for."""
    if command.job is not None:
        plain = Command(command.out, command.model, command.job)
        if command != plain:
            raise ConfigError("--job takes no options but --out and --model: the job has its own.")
        job = read_job(command.job)[1]
        moved = command.model and str(command.model.resolve())
        return dataclasses.replace(job, model=moved or job.model)
    if command.model is None:
        raise ConfigError("Give --model MODEL_DIR, or --job job.json to make a sample again.")
    if command.count < 1:
        raise ConfigError(f"count is {command.count}; ask for at least one song.")
    words = read_lyrics(command.lyrics) if command.lyrics else ""
    item = Item(command.artist, command.genre, words)
    return Job(
        model=str(command.model.resolve()),
        items=(item,) * command.count,
        seconds=command.seconds,
        total_seconds=command.total_seconds,
        seed=command.seed,
        temperature=command.temperature,
        hop_fraction=command.hop_fraction,
    )


def label_ids(
    config: PriorConfig, vocabulary: Vocabulary, items: Sequence[Item]
) -> dict[str, np.ndarray]:
    """The arrays "artist" (N,) and "genres" (N, max_genres) of a prior with labels.

    A name must be known to the top level. The levels below may have other vocabularies; there a
    name that is not known is "unknown", as in the published code, and said to be.

    Raises:
      DataError: an artist or genre that the top level does not know, or too many genres.
    """
    assert config.labels is not None
    most = config.labels.max_genres
    for item in items:
        try:
            vocabulary.require_artist(item.artist)
            vocabulary.require_genres(item.genres, most)
        except DataError as error:
            if config.upper is None:
                raise
            print(f"level {config.level} goes on with what it knows of the labels: {error}")
    return {
        "artist": np.array([vocabulary.artist_id(item.artist) for item in items], np.int32),
        "genres": np.stack([vocabulary.genre_ids(item.genres, most) for item in items]),
    }


def describer(config: PriorConfig, vocabulary: Vocabulary, job: Job, samples: int) -> Describe:
    """A function from a window's offset in samples to the label arrays of its batch.

    Raises:
      DataError: an artist or genre that the model does not know.
    """
    total = max(samples, round(job.total_seconds * config.sample_rate))
    fixed: dict[str, np.ndarray] = {}
    if config.labels:
        fixed = label_ids(config, vocabulary, job.items)
        fixed["total_length"] = np.full(len(job.items), total, np.int32)
    wanted = config.lyrics
    tokens = [text.encode(i.lyrics, wanted.alphabet) for i in job.items] if wanted else []

    def describe(offset: int) -> dict[str, np.ndarray]:
        batch = dict(fixed)
        if config.labels:
            batch["offset"] = np.full(len(job.items), offset, np.int32)
        if wanted:
            window = (wanted.tokens, total, offset, config.window_samples, np.float32)
            batch["lyrics"] = np.stack([text.window(t, *window) for t in tokens])
        return batch

    return describe


def decode_audio(model: LoadedVQVAE, codes: np.ndarray, level: int) -> np.ndarray:
    """Codes (N, T) of a level -> audio (N, T*hop) float32, clipped; in pieces, exactly."""
    hop = model.config.hops[level]
    reach = vqvae.decoder_reach(model.config, level)

    @jax.jit
    def decode(params: Any, books: Any, z: jax.Array) -> jax.Array:
        return vqvae.decode(model.config, params, books, z, level)[..., 0]

    def window(start: int, stop: int) -> np.ndarray:
        return np.asarray(decode(model.params, model.books, codes[:, start:stop]))

    parts = vqvae.piecewise(window, codes.shape[1], 4 * model.config.sample_rate // hop, reach)
    audio = [a[:, first * hop : last * hop] for first, last, a in parts]
    return np.clip(np.concatenate(audio, axis=1), -1.0, 1.0)


def sample_one_level(
    sample: SampleDir, prior: LoadedPrior, job: Job, samples: int, upper: np.ndarray | None,
    describe: Describe,
) -> np.ndarray:  # fmt: skip
    """The codes of one level, going on from what is there; saved after every window."""
    config = prior.config
    level, ratio = config.level, config.upper.ratio if config.upper else 1
    total = samples // config.hop
    windows = plan_windows(total, config.n_ctx, job.hop_fraction[level], ratio)
    codes, done = sample.load(level, (len(job.items), total))
    if done == total:
        return codes
    with tqdm(total=total, initial=done, unit="tok", desc=f"level {level}") as progress:
        began = time.perf_counter()

        def on_window(codes: np.ndarray, done: int) -> None:
            nonlocal began
            sample.save(level, codes, done)
            sample.add_time(level, time.perf_counter() - began)
            began = time.perf_counter()
            progress.update(done - progress.n)

        return sample_level(
            config, prior.params, windows, codes, done, upper, describe,
            job.seed, np.arange(len(job.items)), job.temperature[level], on_window,
        )  # fmt: skip


def level_name(level: int, levels: int) -> str:
    """The paper's name of a level."""
    return "bottom" if level == 0 else "top" if level == levels - 1 else "middle"


def describe_level(job: Job, config: VQVAEConfig, level: int, samples: int) -> dict[str, Any]:
    """What job.json says of a level."""
    return {
        "level": level,
        "name": level_name(level, config.levels),
        "hop": config.hops[level],
        "tokens": samples // config.hops[level],
        "temperature": job.temperature[level],
        "hop_fraction": job.hop_fraction[level],
        "seconds_to_sample": None,
    }


def check_labels(
    config: PriorConfig, note: dict[str, Any], vocabulary: Vocabulary, folder: ModelDir
) -> None:
    """Raises ConfigError unless the label names fit a prior, and are those it was trained with."""
    if not config.labels:
        return
    path = folder.labels(config.level)
    for kind in ("artists", "genres"):
        named, rows = len(getattr(vocabulary, kind)), getattr(config.labels, kind)
        if named > rows:
            raise ConfigError(
                f"{path} names {named} {kind}, but the prior of level {config.level} has {rows}; "
                "name the labels that belong to it in model.json."
            )
    if note.get("labels", digest := labels_digest(vocabulary)) != digest:
        raise ConfigError(
            f"{path} does not hold the label names that the prior of level {config.level} was "
            "trained with; name the labels.json of its codes in model.json."
        )


def check_levels(job: Job, count: int) -> None:
    """Raises ConfigError unless every level has a temperature and a hop fraction."""
    for name in ("temperature", "hop_fraction"):
        if len(getattr(job, name)) != count:
            raise ConfigError(
                f"{name} has {len(getattr(job, name))} values, but the model has {count} levels; "
                "give one a level, bottom first."
            )


def run(job: Job, out: Path) -> Path:
    """Samples a job into `out`; returns the page."""
    folder, mesh = read_model_dir(job.model), make_mesh(MeshConfig())
    model = load_vqvae(folder.vqvae, mesh)
    config = model.config
    top_down: list[int] = list(reversed(range(config.levels)))
    check_levels(job, config.levels)
    samples = job.samples(config.sample_rate, config.hops[-1])
    levels, describes = [], {}
    for i in top_down:  # all that can be wrong is found before anything is sampled
        prior_config, note = folder.prior_config(i)
        labelled = prior_config.labels is not None
        vocabulary = Vocabulary.load(folder.labels(i)) if labelled else Vocabulary.build([], [])
        check_labels(prior_config, note, vocabulary, folder)
        describes[i] = describer(prior_config, vocabulary, job, samples)
        weights = {"weights": weights_name(model, note)}
        levels.append(describe_level(job, config, i, samples) | weights)
    sample = SampleDir(out, job, config.sample_rate, levels)
    page, upper = out / "index.html", None
    for i in top_down:  # one prior in memory at a time
        prior = folder.load_prior(mesh, model, i)
        upper = sample_one_level(sample, prior, job, samples, upper, describes[i])
        sample.write_sound(i, decode_audio(model, upper, i))
        page = write_page(out)
    return page


@cli.command
def main(arguments: list[str]) -> None:
    command = tyro.cli(Command, args=arguments, prog="python -m experiments.sample")
    page = run(make_job(command), command.out)
    print(f"Listen: {page}")


if __name__ == "__main__":
    main(sys.argv[1:])
