"""The command `jukejax`: `jukejax train ...` is `python -m experiments.train ...`."""

from __future__ import annotations

import sys

from experiments import cli

COMMANDS = {
    "demo": "all steps on bundled music: from songs to a new song",
    "prepare": "songs to records: scan a folder, build a data set, report on it",
    "align": "find the time of every sung word",
    "train": "train a VQ-VAE on songs, or a prior on codes",
    "encode": "songs to codes, with a trained VQ-VAE",
    "model": "put a VQ-VAE and its priors together as one model",
    "sample": "make songs with a model",
    "finetune": "teach a model the songs of a folder, in one command",
    "compose": "continue, vary and upsample a song, step by step",
    "evaluate": "measure a model on held-out songs, and write a report",
    "convert": "import and export models of other projects",
    "labels": "list label names, and add those of new songs",
    "compile": "plan memory and speed on TPUs and GPUs without having them",
    "scaling": "train priors of growing size, fit a scaling law, forecast the largest",
    "launch": "train on many processes or hosts, and restart what fails",
    "benchmark": "measure what the documentation says",
}
ABOUT = "Jukebox in JAX: raw-audio music with artist, genre and lyrics."


@cli.command
def main() -> None:
    name, rest = cli.choose(COMMANDS, sys.argv[1:], "jukejax COMMAND [--help] ...", ABOUT)
    cli.run_command(name, *rest)


if __name__ == "__main__":
    main()
