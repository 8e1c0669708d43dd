"""How fast songs become codes, and whether they are the codes of whole songs.

python -m experiments.benchmark encode --data runs/demo/songs --preset vqvae

Three ways: pieces of all songs in batches of one shape (`experiments.encode`); windows of one song
after the other, for each length of a short song a program of its own; every song at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipeline.songs import prepared_songs
from experiments.codes import make_encoder, sound_of
from experiments.data import check_rate
from jukejax import presets
from jukejax.codec import Sound
from jukejax.config import ConfigError, MeshConfig, VQVAEExperiment
from jukejax.model_dir import LoadedVQVAE, load_vqvae
from jukejax.models import vqvae
from jukejax.models.bottleneck import Codebook
from jukejax.parallel.mesh import make_mesh

TIE = 1e-4  # two codes whose distances differ by less are a tie, relative to the vector's square


@dataclass(frozen=True)
class Command:
    """Songs to codes: speed in x real time, and codes that differ from those of whole songs."""

    data: Path
    """Prepared songs."""
    preset: str = "vqvae"
    """A VQ-VAE's shape, with random weights."""
    vqvae: Path | None = None
    """Workdir of a trained one instead."""
    songs: int = 3
    """So many of them are encoded, each to another length,"""
    seconds: float = 30.0
    """of at most so many seconds (a whole song at once needs 100 MB of memory a second)."""
    piece_seconds: float = 12.0
    """As in `experiments.encode`."""
    batch: int = 1
    """As in `experiments.encode`."""
    json: bool = False
    """Print the result as one JSON object too."""


def random_vqvae(preset: str) -> LoadedVQVAE:
    """A VQ-VAE of random weights whose codes are such as its encoders give."""
    experiment = presets.get(preset)
    if not isinstance(experiment, VQVAEExperiment):
        raise ConfigError(f"--preset {preset} is no VQ-VAE.")
    config = experiment.model
    params = jax.jit(lambda key: vqvae.init_params(config, key))(jax.random.key(0))
    params = jax.tree.map(lambda box: box.unbox(), params, is_leaf=lambda x: hasattr(x, "unbox"))
    noise = jax.random.uniform(jax.random.key(1), (1, config.codes * config.hops[-1], 1))
    books = []
    for level in range(config.levels):
        x = vqvae.to_vectors(config, params, noise - 0.5, level)[0]
        codes = jax.random.permutation(jax.random.key(level), x)[: config.codes]
        books.append(Codebook(codes, codes, jnp.ones(config.codes)))
    return LoadedVQVAE(config, params, tuple(books), 0, "random")


def one_by_one(model: LoadedVQVAE, seconds: float) -> Callable[[Sequence[Sound]], Any]:
    """The way before batches: windows of one song after the other, sized by its length."""
    config, top = model.config, model.config.hops[-1]
    reach = max(vqvae.encoder_reach(config, level) for level in range(config.levels))
    piece = max(1, int(seconds * config.sample_rate) // top) * top
    encode = jax.jit(
        lambda params, books, x: [
            vqvae.encode(config, params, books, x, i) for i in range(config.levels)
        ]
    )

    def song(sound: Sound) -> list[np.ndarray]:
        def window(start: int, stop: int) -> list[np.ndarray]:
            x = padded(sound, top)[:, start:stop]
            return [np.asarray(z)[0] for z in encode(model.params, model.books, x)]

        length = -(-sound.n_samples // top) * top
        parts = vqvae.piecewise(window, length, piece, reach)
        return [
            np.concatenate([z[i][first // hop : last // hop] for first, last, z in parts])
            for i, hop in enumerate(config.hops)
        ]

    return lambda sounds: [song(sound) for sound in sounds]


def at_once(model: LoadedVQVAE) -> Callable[[Sequence[Sound]], Any]:
    """Every song whole: codes and squared distances' margin are functions of these vectors."""
    config = model.config
    encode = jax.jit(
        lambda params, books, x: [
            (vqvae.encode(config, params, books, x, i), vqvae.to_vectors(config, params, x, i))
            for i in range(config.levels)
        ]
    )

    def song(sound: Sound) -> list[Any]:
        found = encode(model.params, model.books, padded(sound, config.hops[-1]))
        return [(np.asarray(codes)[0], np.asarray(x)[0]) for codes, x in found]

    return lambda sounds: [song(sound) for sound in sounds]


def padded(sound: Sound, top: int) -> np.ndarray:
    """A sound (1, S, 1) with silence up to whole top codes."""
    out = np.zeros((1, -(-sound.n_samples // top) * top, 1), np.float32)
    out[0, : sound.n_samples, 0] = sound.read(0, sound.n_samples)
    return out


def timed(
    run: Callable[[Sequence[Sound]], Any], sounds: Sequence[Sound]
) -> tuple[Any, list[float]]:
    """What it gives, and the seconds of a first pass, which compiles, and of a second."""
    times = []
    for _ in range(2):
        began = time.perf_counter()
        found = run(sounds)
        times.append(time.perf_counter() - began)
    return found, times


def beyond_ties(model: LoadedVQVAE, found: Any, whole: Any) -> dict[str, int]:
    """Codes compared, those that differ, and those of them that are no near tie."""
    counts = {"codes": 0, "differ": 0, "beyond_ties": 0}
    books = [np.asarray(book.codes, np.float64) for book in model.books]
    for song, levels in zip(found, whole, strict=True):
        for codes, (wanted, vectors), book in zip(song, levels, books, strict=True):
            other = np.flatnonzero(codes != wanted)
            x = vectors[other].astype(np.float64)  # (n, E)
            gap = ((x - book[codes[other]]) ** 2).sum(1) - ((x - book[wanted[other]]) ** 2).sum(1)
            counts["codes"] += len(codes)
            counts["differ"] += len(other)
            counts["beyond_ties"] += int((np.abs(gap) > TIE * (x**2).sum(1)).sum())
    return counts


def run(command: Command) -> dict[str, Any]:
    """Seconds of music, and seconds by way; how many codes differ from whole songs'."""
    mesh = make_mesh(MeshConfig())
    model = load_vqvae(command.vqvae, mesh) if command.vqvae else random_vqvae(command.preset)
    check_rate(model.config.sample_rate, command.data)
    listed = prepared_songs(command.data)
    count = min(command.songs, len(listed))
    sounds = []
    for i in range(count):
        most = round(command.seconds * (i + 1) / count * model.config.sample_rate)
        sound = sound_of(command.data, listed[i])
        sounds.append(sound._replace(n_samples=min(most, sound.n_samples)))
    batched, batched_times = timed(
        make_encoder(model, command.piece_seconds, command.batch), sounds
    )
    _, single_times = timed(one_by_one(model, command.piece_seconds), sounds)
    whole, whole_times = timed(at_once(model), sounds)
    return {
        "songs": count,
        "music_seconds": sum(sound.n_samples for sound in sounds) / model.config.sample_rate,
        "batched": batched_times,
        "one_by_one": single_times,
        "at_once": whole_times,
        **beyond_ties(model, batched, whole),
    }


def lines(found: dict[str, Any]) -> Sequence[str]:
    """The ways and their speed."""
    names = {
        "batched": "pieces in batches",
        "one_by_one": "a song after another",
        "at_once": "each song at once",
    }
    music = found["music_seconds"]
    said = [f"{found['songs']} songs, {music:.1f} s of music; x real time, in full float32:"]
    for key, name in names.items():
        first, again = found[key]
        said.append(f"  {name:22}{music / again:8.1f}  (with compiling {music / first:.1f})")
    said.append(
        f"{found['codes']:,} codes, {found['differ']:,} unlike those of whole songs, "
        f"{found['beyond_ties']:,} of them no near tie"
    )
    return said
