"""Measure what the documentation says, on the machine at hand.

jukejax benchmark train --rounds 5

A subject is a module here: `Command` has its options, `run(command)` returns the figures as a
dictionary for JSON, `lines(figures)` what is printed of them.
"""

from __future__ import annotations

import importlib
import json

from experiments import cli

SUBJECTS = {
    "alignment": "word onsets of rendered songs as aligned, with music from none to +3 dB",
    "checkpoint": "parameters of a published size saved and restored, sharded",
    "convert": "files of a published size through import and export",
    "encode": "songs to codes: speed, and whether they are those of whole songs",
    "limits": "lower bounds on sampling time on a chip, by arithmetic",
    "loader": "speed of the audio and code loaders",
    "prepare": "songs to records, compared with decoding and resampling alone",
    "sample": "tokens a second and sound to codes and back, compared with the PyTorch port",
    "seams": "songs whose upsampling is cut into chains: bits and spectra at seams, and speed",
    "train": "train steps of a prior and of the VQ-VAE, compared with the PyTorch port",
    "weights": "bfloat16 and int8 weights: bits per held-out token, and bytes",
}


@cli.command
def main(arguments: list[str]) -> None:
    usage = "jukejax benchmark SUBJECT [--json] [--help] ...\n\nExample: jukejax benchmark limits"
    about = "--json prints the figures as one JSON object too. Subjects:"
    name, rest = cli.choose(SUBJECTS, arguments, usage, about)
    as_json, rest = "--json" in rest, [word for word in rest if word != "--json"]
    subject = importlib.import_module(f"experiments.benchmark.{name}")
    command = cli.parse(subject.Command, rest, f"jukejax benchmark {name}")
    figures = subject.run(command)
    print("\n".join(subject.lines(figures)))
    if as_json:
        print(json.dumps(figures))
