"""Songs to codes: every level of a trained VQ-VAE, of the mean of left and right.

jukejax encode --vqvae runs/demo/vqvae --data runs/demo/songs --out runs/demo/codes

The codes are those of the whole song at once, in memory that does not grow with the song, and all
songs go through one compiled program. An interrupted run continues with the next shard. Started on
many hosts, as training is, each encodes its part of the shards.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from experiments import cli
from experiments.codes import Encoding, write_codes
from jukejax.config import MeshConfig

COMMON = ("vqvae", "data", "out", "batch", "passes")


@dataclass(frozen=True, kw_only=True)
class Command(Encoding):
    """Encode a prepared data set with a trained VQ-VAE. The same command continues a run.

    Example: jukejax encode --vqvae runs/vqvae --data data/songs --out data/codes
    """

    vqvae: Path
    """Workdir of the VQ-VAE's run."""


def run(command: Command) -> None:
    """Encodes all songs that are not encoded yet."""
    from jukejax.model_dir import load_vqvae
    from jukejax.parallel import distributed
    from jukejax.parallel.mesh import make_mesh

    distributed.start()
    distributed.check_shared(command.out)
    write_codes(load_vqvae(command.vqvae, make_mesh(MeshConfig())), command)


@cli.command
def main(arguments: list[str]) -> None:
    run(cli.parse(Command, arguments, "jukejax encode", COMMON))


if __name__ == "__main__":
    main(sys.argv[1:])
