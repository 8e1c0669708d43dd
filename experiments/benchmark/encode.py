"""How fast songs become codes, and whether they are the codes of whole songs.

jukejax benchmark encode --data runs/demo/songs --preset vqvae

Two ways: pieces of all songs in batches of one shape (`jukejax encode`), and every song at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipeline.songs import prepared_songs
from experiments.benchmark.timing import timed
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
    """Number of songs, each encoded to another length."""
    seconds: float = 30.0
    """The greatest length (a whole song at once needs 100 MB of memory a second)."""
    piece_seconds: float = 12.0
    """As in `jukejax encode`."""
    batch: int = 1
    """As in `jukejax encode`."""


def random_vqvae(preset: str) -> LoadedVQVAE:
    """A VQ-VAE of random weights whose codes are vectors that its encoders give."""
    experiment = presets.get(preset)
    if not isinstance(experiment, VQVAEExperiment):
        raise ConfigError(f"--preset {preset} is no VQ-VAE.")
    config = experiment.model
    params = jax.jit(lambda key: vqvae.init_params(config, key))(jax.random.key(0))
    params = jax.tree.map(lambda box: box.unbox(), params, is_leaf=lambda x: hasattr(x, "unbox"))
    noise = jax.random.uniform(jax.random.key(1), (1, config.codes * config.block, 1))
    books = []
    for level in range(config.levels):
        x = vqvae.to_vectors(config, params, noise - 0.5, level)[0]
        codes = jax.random.permutation(jax.random.key(level), x)[: config.codes]
        books.append(Codebook(codes, codes, jnp.ones(config.codes)))
    return LoadedVQVAE(config, params, tuple(books), 0, "random")


def at_once(model: LoadedVQVAE) -> Callable[[Sequence[Sound]], Any]:
    """Encodes every song whole; for each level its codes (T,) and vectors (T, E)."""
    config = model.config
    encode = jax.jit(
        lambda params, books, x: [
            (
                vqvae.encode(config, params, books, x, i)[0],
                vqvae.to_vectors(config, params, x, i)[0],
            )
            for i in range(config.levels)
        ]
    )

    def song(sound: Sound) -> Any:
        top = config.block
        x = np.zeros((1, -(-sound.n_samples // top) * top, 1), np.float32)
        x[0, : sound.n_samples, 0] = sound.read(0, sound.n_samples)
        return jax.tree.map(np.asarray, encode(model.params, model.books, x))

    return lambda sounds: [song(sound) for sound in sounds]


def beyond_ties(model: LoadedVQVAE, codes: Any, whole: Any) -> dict[str, int]:
    """Codes compared, those that differ, and those of them that are no near tie."""
    counts = {"codes": 0, "differ": 0, "beyond_ties": 0}
    books = [np.asarray(book.codes, np.float64) for book in model.books]
    for song, levels in zip(codes, whole, strict=True):
        for here, (wanted, vectors), book in zip(song, levels, books, strict=True):
            other = np.flatnonzero(here != wanted)
            x = vectors[other].astype(np.float64)  # (n, E)
            gap = ((x - book[here[other]]) ** 2).sum(1) - ((x - book[wanted[other]]) ** 2).sum(1)
            counts["codes"] += len(here)
            counts["differ"] += len(other)
            counts["beyond_ties"] += int((np.abs(gap) > TIE * (x**2).sum(1)).sum())
    return counts


def twice(
    way: Callable[[Sequence[Sound]], Any], sounds: Sequence[Sound]
) -> tuple[Any, list[float]]:
    """What a way returns, and the seconds of a first pass, which compiles, and of a second."""
    results: list[Any] = []
    seconds = [timed(lambda: results.append(way(sounds))) for _ in range(2)]
    return results[-1], seconds


def run(command: Command) -> dict[str, Any]:
    """Seconds of music and of the ways; codes that differ."""
    mesh = make_mesh(MeshConfig())
    model = load_vqvae(command.vqvae, mesh) if command.vqvae else random_vqvae(command.preset)
    rate = model.config.sample_rate
    check_rate(rate, command.data)
    songs = prepared_songs(command.data)[: command.songs]
    sounds = []
    for i, song in enumerate(songs):
        sound = sound_of(command.data, song)
        most = round(command.seconds * (i + 1) / len(songs) * rate)
        sounds.append(sound._replace(n_samples=min(most, sound.n_samples)))
    ways: dict[str, Callable[[Sequence[Sound]], Any]] = {
        "batched": make_encoder(model, command.piece_seconds, command.batch),
        "at_once": at_once(model),
    }
    codes, seconds = {}, {}
    for name, way in ways.items():
        codes[name], seconds[name] = twice(way, sounds)
    return {
        "songs": len(songs),
        "music_seconds": sum(sound.n_samples for sound in sounds) / rate,
        **seconds,
        **beyond_ties(model, codes["batched"], codes["at_once"]),
    }


def lines(figures: dict[str, Any]) -> Sequence[str]:
    """The ways and their speed."""
    music = figures["music_seconds"]
    text = [f"{figures['songs']} songs, {music:.1f} s of music; x real time, in full float32:"]
    for way, name in (("batched", "pieces in batches"), ("at_once", "each song at once")):
        first, again = figures[way]
        text.append(f"  {name:22}{music / again:8.1f}  (with compiling {music / first:.1f})")
    text.append(
        f"{figures['codes']:,} codes, {figures['differ']:,} unlike those of whole songs, "
        f"{figures['beyond_ties']:,} of them no near tie"
    )
    return text
