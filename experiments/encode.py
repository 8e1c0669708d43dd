"""Songs to codes: every level of a trained VQ-VAE, of the mean of left and right.

python -m experiments.encode --vqvae runs/demo/vqvae --data runs/demo/songs --out runs/demo/codes

The codes are those of the whole song at once, in memory that does not grow with the song, and all
songs go through one compiled program. An interrupted run continues with the next shard. Started on
many hosts, as training is, each encodes its part of the shards.
"""

from __future__ import annotations

import sys

from experiments import cli
from experiments.codes import Encoding, encode

COMMON = ("vqvae", "data", "out", "batch", "passes")


@cli.command
def main(arguments: list[str]) -> None:
    encoding: Encoding = cli.parse(Encoding, arguments, "jukejax encode", COMMON)
    from jukejax.parallel import distributed

    distributed.start()
    encode(encoding)


if __name__ == "__main__":
    main(sys.argv[1:])
