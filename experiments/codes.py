"""Encodes a data set: the songs of the data pipeline through a VQ-VAE of the library."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline import records
from data_pipeline.codes import CodesShard, CodesWriter
from data_pipeline.songs import PreparedSong
from experiments.data import check_rate
from jukejax.config import MeshConfig
from jukejax.errors import ConfigError

if TYPE_CHECKING:
    from jukejax.codec import Encoder, Sound
    from jukejax.model_dir import LoadedVQVAE


@dataclass(frozen=True)
class Encoding:
    """What is encoded, where the codes are written, and how."""

    data: Path
    """Songs, as `jukejax prepare build` wrote them."""
    out: Path
    """Gets the codes; shared by all hosts."""
    piece_seconds: float = 12.0
    """Seconds of audio encoded at once, without the overlap."""
    batch: int = 1
    """Pieces that a device encodes at once: 1 for a CPU, more for an accelerator."""
    passes: int = 1
    """Times that a training song is encoded: first its mean downmix, then random ones."""
    seed: int = 0
    """Seed of the random downmixes."""


def write_codes(
    model: LoadedVQVAE, encoding: Encoding, splits: Sequence[str] = records.SPLITS
) -> None:
    """Encodes the songs of some splits that are not encoded yet.

    Raises:
      ConfigError: the sample rates differ, or a number is out of range.
      DataError: the folder has codes of other songs, passes or VQ-VAE.
      FolderInUse: another run writes codes there.
    """
    from jukejax.parallel import distributed

    check_rate(model.config.sample_rate, encoding.data)
    encoder = make_encoder(model, encoding.piece_seconds, encoding.batch)
    with distributed.writing(encoding.out):
        writer = CodesWriter(
            encoding.data, encoding.out, model.config.hops, model.fingerprint,
            codes=model.config.codes, passes=encoding.passes, seed=encoding.seed,
            groups=model.config.groups, splits=splits,
        )  # fmt: skip
        _write_pending(writer, encoder, model.config.sample_rate)


def _write_pending(writer: CodesWriter, encoder: Encoder, rate: int) -> None:
    """Encodes the shards of this process, with a progress bar, and finishes the data set."""
    from tqdm import tqdm

    pending = _own_shards(writer)
    if not pending:
        print(f"{writer.out_dir}: all codes are there already.")
    total = sum(song.n_samples for shard in pending for song, _ in writer.mixes(shard)) / rate
    began = time.monotonic()
    shown = "{l_bar}{bar}| {n:.0f}/{total:.0f} s of music [{elapsed}<{remaining}]"
    with tqdm(total=total, desc="encode", mininterval=1.0, bar_format=shown) as bar:
        for shard in pending:
            mixes = list(writer.mixes(shard))
            sounds = [sound_of(writer.data_dir, song, left) for song, left in mixes]
            codes = encoder(sounds, lambda samples: bar.update(samples / rate))
            writer.write_shard(shard, list(zip((song for song, _ in mixes), codes, strict=True)))
    _finish(writer)
    if pending:
        seconds = time.monotonic() - began
        speed = f"{total / seconds:.1f} x real time"
        print(f"{total / 60:.1f} minutes of music in {seconds:.0f} s: {speed}")


def make_encoder(model: LoadedVQVAE, piece_seconds: float, batch: int) -> Encoder:
    """An encoder on all devices of this process.

    Raises:
      ConfigError: a number is out of range.
    """
    import jax

    from jukejax.codec import Encoder
    from jukejax.parallel.mesh import make_mesh

    if not 0 < piece_seconds < math.inf:
        raise ConfigError(f"piece_seconds is {piece_seconds}; it must be over 0.")
    if batch < 1:
        raise ConfigError(f"batch is {batch}; it must be 1 or more.")
    return Encoder(
        model.config, model.params, model.books, make_mesh(MeshConfig(), jax.local_devices()),
        seconds=piece_seconds, per_device=batch,
    )  # fmt: skip


def sound_of(data: Path, song: PreparedSong, left: float = 0.5) -> Sound:
    """A prepared song as left * left channel + (1 - left) * right channel, in [-1, 1)."""
    from jukejax.codec import Sound

    weights = np.array([left, 1.0 - left], np.float32) / np.float32(32768.0)

    def read(start: int, stop: int) -> np.ndarray:
        pcm = records.read_audio(data, song, start, stop).astype(np.float32)
        mixed: np.ndarray = pcm[:, 0] * weights[0] + pcm[:, 1] * weights[1]
        return mixed

    return Sound(read, song.n_samples)


def _own_shards(writer: CodesWriter) -> list[CodesShard]:
    """The shards that this process writes; all processes agree on which are missing."""
    import jax
    from jax.experimental import multihost_utils

    names = {shard.path.name for shard in writer.pending_shards()}
    missing = np.array([shard.path.name in names for shard in writer.shards])
    if jax.process_count() > 1:
        missing = multihost_utils.broadcast_one_to_all(missing)
    pending = [shard for shard, gone in zip(writer.shards, missing, strict=True) if gone]
    return pending[jax.process_index() :: jax.process_count()]


def _finish(writer: CodesWriter) -> None:
    """Waits for the shards of all processes; process 0 then writes the metadata."""
    import jax
    from jax.experimental import multihost_utils

    # by looking at the folder: a collective would time out where one process has much more to do
    while jax.process_count() > 1 and writer.pending_shards():
        time.sleep(2.0)
    if jax.process_index() == 0:
        writer.finish()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("finished")
