"""A line sung by the shipped model; then all steps on bundled music, from songs to a new song.

jukejax demo --out runs/demo

Songs -> records -> VQ-VAE -> codes -> priors -> a new song. Each step is a command of its own,
printed before it runs. Steps that are done are not repeated, and an interrupted one continues where
it was. Larger runs take the same commands with other presets.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import cli
from jukejax import files
from jukejax.formatting import format_seconds, table

SHIPPED = "small-songs"
PRIORS = ("demo_prior", "demo_upsampler_level_1", "demo_upsampler_level_0")
STEPS = 7 + len(PRIORS)
LEVELS = ("bottom", "middle", "top")
SECONDS = 6
COST = (
    "About 10 minutes on two CPU cores that do nothing else, 2.1 GiB of memory, 0.4 GiB of disk; "
    "no downloads.\nCtrl-C stops it; the same command continues."
)


@dataclass(frozen=True)
class Demo:
    """A line sung by the shipped model; then from songs to a new song on bundled music.

    Example: jukejax demo --out runs/demo
    """

    out: Path = Path("runs/demo")
    """Gets everything: records, runs, codes, the sample, the evaluation."""


def steps(out: Path) -> Iterator[tuple[str, list[Any]]]:
    """What each step does, and its command; `sample` reads what earlier steps wrote."""
    import data_pipeline

    music = Path(data_pipeline.__file__).parent / "demo_music" / "songs.jsonl"
    songs, codes, vqvae, model = (out / x for x in ("songs", "codes", "demo_vqvae", "model"))
    runs = [out / preset for preset in PRIORS]

    yield (
        "Hear the shipped model sing a line to a tune that it has never seen",
        ["sample", "--model", SHIPPED, "--out", out / SHIPPED, *a_line(out)],
    )
    yield (
        "Decode the bundled songs into records",
        ["prepare", "build", "--manifest", music, "--out", songs],
    )
    yield (
        "Train the VQ-VAE: sound to codes and back, at three rates",
        ["train", "demo_vqvae", "--data", songs, "--workdir", vqvae],
    )
    yield "Encode all songs", ["encode", "--vqvae", vqvae, "--data", songs, "--out", codes]
    for level, run in zip((2, 1, 0), runs, strict=True):
        yield (
            f"Train the prior of level {level}",
            ["train", run.name, "--data", codes, "--workdir", run],
        )
    names = ["--labels", codes / "labels.json"]
    yield (
        "Put the VQ-VAE and the priors together as one model",
        ["model", "make", "--vqvae", vqvae, "--priors", *runs, *names, "--out", model],
    )
    yield (
        f"Sample {SECONDS} seconds of a new song, top to bottom",
        ["sample", "--model", model, "--out", out / "sample", *asked(songs, out)],
    )
    data = ["--songs", songs, "--codes", codes, "--out", out / "evaluation"]
    yield (
        "Measure what was learned, on songs that training never saw",
        ["evaluate", "reconstruction", "likelihood", "--model", model, *data],
    )


def a_line(out: Path) -> list[Any]:
    """Options of `sample`: words, tune and labels of the first bundled line."""
    from data_pipeline.sung_lines import bundled_lines

    line, words = bundled_lines()[0], out / "line.txt"
    out.mkdir(parents=True, exist_ok=True)
    files.write_text(words, line.words + "\n")
    return [
        "--lyrics", words, "--tune", line.tune, "--artist", line.artist, "--genre", line.genre,
        "--seconds", 8, "--temperature", 0.8, "--guidance", 1.5,
        "--render",
    ]  # fmt: skip


def asked(songs: Path, out: Path) -> list[Any]:
    """Options of `sample`: labels and lyrics of the first sung song of the test split."""
    from data_pipeline.songs import prepared_songs

    song = next(s for s in prepared_songs(songs) if s.split == "test" and s.lyrics)
    words = out / "lyrics.txt"
    files.write_text(words, song.lyrics)
    return [
        "--artist", song.artist, "--genre", *song.genres, "--lyrics", words,
        "--seconds", SECONDS, "--total-seconds", song.n_samples / song.sample_rate,
    ]  # fmt: skip


def summary(evaluation: Path) -> str:
    """A short table of what was learned, from the evaluation's results."""
    sounds, priors = (
        json.loads((evaluation / f"{suite}.json").read_text())["result"]["levels"]
        for suite in ("reconstruction", "likelihood")
    )
    sound_of = {sound["level"]: sound for sound in sounds}
    rows = [
        (
            f"{level} ({LEVELS[level]})",
            f"{sound_of[level]['spectral_convergence_db']:.1f} dB",
            f"{100 * sound_of[level]['used']:.0f} %",
            *(f"{prior[f'{kind}bits_per_token']:.2f}" for kind in ("", "unigram_", "bigram_")),
        )
        for prior in priors
        for level in (prior["level"],)
    ]
    head = ("level", "spectral convergence", "codes in use", "bits: prior", "unigram", "bigram")
    return table(head, rows)


@cli.command
def main(arguments: list[str]) -> None:
    out = cli.parse(Demo, arguments, "jukejax demo").out
    print(f"jukejax demo: from songs to a new song, in {out}.\n{COST}")
    began = time.time()
    for number, (what, command) in enumerate(steps(out), 1):
        start, words = time.time(), [str(word) for word in command]
        print(f"\n[{number}/{STEPS}] {what}\n$ jukejax {shlex.join(words)}", flush=True)
        cli.run_command(*words)
        print(f"    ({format_seconds(time.time() - start)})", flush=True)
    print(
        "\nWhat was learned, on held-out songs (spectral convergence: silence is 0 dB, lower is\n"
        "better; bits per token of the prior, and of unigrams and bigrams counted in training):\n"
    )
    print(summary(out / "evaluation"))
    page = shlex.quote(str((out / "sample" / "index.html").resolve()))
    print(f"\nListen:      {page}\nTensorBoard: tensorboard --logdir {out}")
    print(f"Everything:  {out} ({format_seconds(time.time() - began)})")


if __name__ == "__main__":
    main(sys.argv[1:])
