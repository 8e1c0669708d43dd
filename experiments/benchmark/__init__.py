"""Measure what the documentation says, on the machine at hand.

python -m experiments.benchmark convert --preset prior_5b_lyrics --folder /tmp/convert

A subject is a module here: `Command` holds its options (with `json: bool`), `run(command)` gives
the figures as a dictionary that JSON can hold, `lines(figures)` what is printed of them.
"""

from __future__ import annotations

import importlib
import json
import sys

import tyro

from experiments import cli

SUBJECTS = {
    "alignment": "word onsets found in rendered songs, with music from none to +3 dB",
    "checkpoint": "parameters of a published size saved and restored, sharded",
    "convert": "files of a published size through import and export",
    "encode": "songs to codes: speed, and whether they are those of whole songs",
    "loader": "digests and speed of the audio and code loaders",
    "weights": "bfloat16 and int8 weights: bits per held-out token, and bytes",
    "limits": "the least time that sampling can take on a chip, by arithmetic",
    "manifest": "a generated manifest of a million songs: memory and time to the first batch",
    "prepare": "songs to records, beside the bare cost of decoding and resampling",
    "seams": "songs whose upsampling is cut into chains: bits and spectra at seams, and speed",
    "sample": "tokens a second and sound to codes and back, beside the PyTorch port",
    "train": "train steps of a prior and of the VQ-VAE, beside the PyTorch port",
    "fuzz": "damaged sound files through prepare: decoded rightly, or skipped with a reason",
}


@cli.command
def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] not in SUBJECTS:
        told = "\n".join(f"  {name:12}{what}" for name, what in SUBJECTS.items())
        print(f"usage: python -m experiments.benchmark SUBJECT [--help] ...\n\nSubjects:\n{told}")
        sys.exit(0 if arguments[:1] in (["-h"], ["--help"]) else 2)
    name = arguments[0]
    subject = importlib.import_module(f"experiments.benchmark.{name}")
    prog = f"python -m experiments.benchmark {name}"
    command = tyro.cli(subject.Command, args=arguments[1:], prog=prog)
    found = subject.run(command)
    print("\n".join(subject.lines(found)))
    if command.json:
        print(json.dumps(found))
