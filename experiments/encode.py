"""Songs to codes: every level of a trained VQ-VAE, of the mean of left and right.

python -m experiments.encode --vqvae runs/demo/vqvae --data runs/demo/songs --out runs/demo/codes

Windows overlap by what a code can see, so the codes are those of the whole song at once, in memory
that does not grow with the song. A run that dies goes on with the next shard.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from tqdm import tqdm

from data_pipeline.codes import CodesWriter
from data_pipeline.records import read_audio
from data_pipeline.songs import PreparedSong
from experiments import cli
from experiments.data import check_rate
from experiments.sampling.sound import encoder
from jukejax.config import ConfigError, MeshConfig
from jukejax.model_dir import LoadedVQVAE, load_vqvae
from jukejax.parallel.mesh import make_mesh


@dataclass(frozen=True)
class Command:
    """Encode a prepared data set with a trained VQ-VAE; run it again to go on."""

    vqvae: Path
    """Workdir of the VQ-VAE's run."""
    data: Path
    """Songs, as `experiments.prepare build` wrote them."""
    out: Path
    """Gets the codes."""
    piece_seconds: float = 6.0
    """Audio encoded at once, beside the overlap."""


def song_encoder(
    model: LoadedVQVAE, piece_seconds: float
) -> Callable[[Path, PreparedSong], list[np.ndarray]]:
    """A function from a prepared song to its codes, (n,) uint16 a level, bottom first."""
    encode = encoder(model, piece_seconds)

    def run(data: Path, song: PreparedSong) -> list[np.ndarray]:
        def read(start: int, stop: int) -> np.ndarray:
            return read_audio(data, song, start, stop).mean(1, dtype=np.float32) / 32768.0

        return encode(read, song.n_samples)

    return run


def run(command: Command) -> None:
    """Encodes what is still to be encoded."""
    if not 0 < command.piece_seconds < math.inf:
        raise ConfigError(f"piece_seconds is {command.piece_seconds}; it must be over 0.")
    model = load_vqvae(command.vqvae, make_mesh(MeshConfig()))
    check_rate(model.config.sample_rate, command.data)
    writer = CodesWriter(
        command.data, command.out, model.config.hops, model.fingerprint, codes=model.config.codes
    )
    pending = writer.pending_shards()
    if not pending:
        print(f"{command.out}: all codes are there already.")
    encode = song_encoder(model, command.piece_seconds)
    seconds = sum(s.n_samples for shard in pending for s in shard.songs) / model.config.sample_rate
    with tqdm(total=round(seconds), unit="s", desc="encode", mininterval=1.0) as progress:
        for shard in pending:
            encoded = []
            for song in shard.songs:
                encoded.append((song, encode(command.data, song)))
                progress.update(round(song.n_samples / model.config.sample_rate))
            writer.write_shard(shard, encoded)
    writer.finish()


@cli.command
def main(arguments: list[str]) -> None:
    run(tyro.cli(Command, args=arguments, prog="python -m experiments.encode"))


if __name__ == "__main__":
    main(sys.argv[1:])
