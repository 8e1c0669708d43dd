"""Train a VQ-VAE on songs, or a prior on codes.

jukejax train demo_vqvae --data runs/demo/songs --workdir runs/demo/vqvae
jukejax train demo_prior --data runs/demo/codes --workdir runs/demo/prior

A workdir in place of the preset gives the settings of its run; with --start-from its weights too.
"""

from __future__ import annotations

import sys

from experiments import cli, training

USAGE = """jukejax train PRESET --data DIR --workdir DIR [--section.field value ...]

Example: jukejax train demo_vqvae --data runs/demo/songs --workdir runs/demo/vqvae"""


@cli.command
def main(arguments: list[str]) -> None:
    preset, rest = cli.take_preset(arguments, USAGE)
    if not {*cli.HELP, cli.HELP_ALL} & set(rest):
        from jukejax.parallel import distributed

        distributed.start()  # before a run's settings are read, which begins to use devices
    training.train(training.parse(preset, rest))


if __name__ == "__main__":
    main(sys.argv[1:])
