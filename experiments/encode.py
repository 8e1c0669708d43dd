"""Songs to codes: every level of a trained VQ-VAE, of the mean of left and right.

python -m experiments.encode --vqvae runs/demo/vqvae --data runs/demo/songs --out runs/demo/codes

The codes are those of the whole song at once, in memory that does not grow with the song, and all
songs go through one compiled program. A run that dies goes on with the next shard. Started on many
hosts, as training is, each takes its part of the shards.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro
from jax.experimental import multihost_utils
from tqdm import tqdm

from data_pipeline import records
from data_pipeline.codes import CodesShard, CodesWriter
from data_pipeline.records import read_audio
from data_pipeline.songs import PreparedSong
from experiments import cli
from experiments.data import check_rate
from jukejax.codec import Encoder, Sound
from jukejax.config import ConfigError, MeshConfig
from jukejax.model_dir import LoadedVQVAE, load_vqvae
from jukejax.parallel import distributed
from jukejax.parallel.mesh import make_mesh


@dataclass(frozen=True)
class Command:
    """Encode a prepared data set with a trained VQ-VAE; run it again to go on."""

    vqvae: Path
    """Workdir of the VQ-VAE's run."""
    data: Path
    """Songs, as `experiments.prepare build` wrote them."""
    out: Path
    """Gets the codes; shared by all hosts."""
    piece_seconds: float = 12.0
    """Audio encoded at once, beside the overlap."""
    batch: int = 1
    """Pieces that a device encodes at once: 1 for a CPU, more for an accelerator."""
    passes: int = 1
    """Times that a training song is encoded: first its mean downmix, then random ones."""
    seed: int = 0
    """Of the random downmixes."""


def make_encoder(model: LoadedVQVAE, piece_seconds: float, batch: int) -> Encoder:
    """An encoder on all devices of this process.

    Raises:
      ConfigError: a number is out of range.
    """
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
    parts = np.array([left, 1.0 - left], np.float32) / np.float32(32768.0)

    def read(start: int, stop: int) -> np.ndarray:
        pcm = read_audio(data, song, start, stop).astype(np.float32)
        mixed: np.ndarray = pcm[:, 0] * parts[0] + pcm[:, 1] * parts[1]
        return mixed

    return Sound(read, song.n_samples)


def share(writer: CodesWriter) -> list[CodesShard]:
    """The shards that this process is to write: all processes agree on what is missing."""
    names = {shard.name for shard in writer.pending_shards()}
    missing = np.array([shard.name in names for shard in writer.shards])
    if jax.process_count() > 1:
        missing = multihost_utils.broadcast_one_to_all(missing)
    pending = [shard for shard, gone in zip(writer.shards, missing, strict=True) if gone]
    return pending[jax.process_index() :: jax.process_count()]


def finish(writer: CodesWriter) -> None:
    """Waits until all shards are there, and has the first process write what lies beside them."""
    # by looking at the folder: a collective would time out where one process has much more to do
    while jax.process_count() > 1 and writer.pending_shards():
        time.sleep(2.0)
    if jax.process_index() == 0:
        writer.finish()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("finished")


def run(command: Command) -> None:
    """Encodes what is still to be encoded."""
    distributed.check_shared(command.out)
    write_codes(load_vqvae(command.vqvae, make_mesh(MeshConfig())), command)


def write_codes(
    model: LoadedVQVAE, command: Command, splits: Sequence[str] = records.SPLITS
) -> None:
    """As `run`, by a model that is loaded, and of some splits alone."""
    check_rate(model.config.sample_rate, command.data)
    encode = make_encoder(model, command.piece_seconds, command.batch)
    writer = CodesWriter(
        command.data, command.out, model.config.hops, model.fingerprint, codes=model.config.codes,
        passes=command.passes, seed=command.seed, splits=splits,
    )  # fmt: skip
    pending = share(writer)
    if not pending:
        print(f"{command.out}: all codes are there already.")
    rate = model.config.sample_rate
    total = sum(song.n_samples for shard in pending for song, _ in writer.mixes(shard)) / rate
    began = time.monotonic()
    with tqdm(total=math.ceil(total), unit="s of music", desc="encode", mininterval=1.0) as bar:
        for shard in pending:
            mixes = list(writer.mixes(shard))
            sounds = [sound_of(command.data, song, left) for song, left in mixes]
            codes = encode(sounds, lambda samples: bar.update(samples / rate))
            writer.write_shard(shard, list(zip((song for song, _ in mixes), codes, strict=True)))
    finish(writer)
    if pending:
        seconds = time.monotonic() - began
        speed = f"{total / seconds:.1f} x real time"
        print(f"{total / 60:.1f} minutes of music in {seconds:.0f} s: {speed}")


@cli.command
def main(arguments: list[str]) -> None:
    command = tyro.cli(Command, args=arguments, prog="python -m experiments.encode")
    distributed.start()
    run(command)


if __name__ == "__main__":
    main(sys.argv[1:])
