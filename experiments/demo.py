"""The whole road on bundled music: songs -> records -> VQ-VAE -> codes -> priors -> a new song.

python -m experiments.demo --out runs/demo

Each step is a command of its own, printed before it runs; steps that are done are not done again,
and an interrupted one goes on where it was. Larger runs take the same commands with other presets.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from data_pipeline import prepare, songs
from experiments import cli, sample
from experiments.codes import Encoding, encode
from experiments.evaluate.command import Evaluation
from experiments.evaluate.command import run as run_evaluation
from experiments.training import Training, train
from jukejax import files, presets
from jukejax.formatting import format_seconds, table
from jukejax.model_dir import write_model_dir
from jukejax.sampling.request import Command, make_request
from jukejax.sampling.resolve import level_name

MUSIC = Path(prepare.__file__).parent / "demo_music" / "songs.jsonl"
PRIORS = {2: "demo_prior", 1: "demo_upsampler_level_1", 0: "demo_upsampler_level_0"}
SECONDS = 6.0
COST = (
    "About 10 minutes on two CPU cores that do nothing else, 2.1 GiB of memory, 0.4 GiB of disk. "
    "Ctrl-C stops it; the same command goes on."
)


@dataclass(frozen=True)
class Demo:
    """From songs to a new song on bundled music."""

    out: Path = Path("runs/demo")
    """Gets everything: records, runs, codes, the sample, the evaluation."""


def steps(out: Path) -> list[tuple[str, str, Callable[[], Any]]]:
    """(what, equivalent command, function) of each step, in order."""
    data, codes, model = out / "songs", out / "codes", out / "model"
    words = out / "lyrics.txt"

    def trained(preset: str, where: Path) -> Callable[[], Any]:
        return lambda: train(Training(where, out / preset, presets.get(preset)))

    def sampled() -> Path | None:
        song = held_out_song(data)
        files.write_text(words, song.lyrics)
        write_model_dir(
            model,
            out / "demo_vqvae",
            {k: out / p for k, p in PRIORS.items()},
            codes / "labels.json",
        )
        command = Command(
            out=out / "sample", model=model, artist=song.artist, genre=song.genres, lyrics=words,
            seconds=SECONDS, total_seconds=song.n_samples / song.sample_rate,
        )  # fmt: skip
        return sample.run(make_request(command), command.out)

    def evaluated() -> Any:
        return run_evaluation(
            Evaluation(
                ("reconstruction", "likelihood"),
                model,
                songs=data,
                codes=codes,
                out=out / "evaluation",
            )
        )

    return [
        (
            "Decode the bundled songs into records",
            f"prepare build --manifest {MUSIC} --out {data}",
            lambda: print("\n".join(prepare.build(MUSIC, data).lines())),
        ),
        (
            "Train the VQ-VAE: sound to codes and back, at three rates",
            f"train demo_vqvae --data {data} --workdir {out / 'demo_vqvae'}",
            trained("demo_vqvae", data),
        ),
        (
            "Encode all songs",
            f"encode --vqvae {out / 'demo_vqvae'} --data {data} --out {codes}",
            lambda: encode(Encoding(out / "demo_vqvae", data, codes)),
        ),
        *(
            (
                f"Train the prior of level {level}",
                f"train {preset} --data {codes} --workdir {out / preset}",
                trained(preset, codes),
            )
            for level, preset in PRIORS.items()
        ),
        (
            f"Sample {SECONDS:g} seconds of a new song, top to bottom",
            f"sample --model {model} --out {out / 'sample'} --artist ... --genre ... "
            f"--lyrics {words} --seconds {SECONDS:g}",
            sampled,
        ),
        (
            "Measure what was learned, on songs that training never saw",
            f"evaluate reconstruction likelihood --model {model} --songs {data} --codes {codes} "
            f"--out {out / 'evaluation'}",
            evaluated,
        ),
    ]


def held_out_song(data: Path) -> songs.PreparedSong:
    """The first sung song of the test split: its labels and words are asked for."""
    return next(s for s in songs.prepared_songs(data) if s.split == "test" and s.lyrics)


def summary(found: dict[str, Any]) -> str:
    """A short table of what was learned, from the evaluation's results."""
    sounds = {row["level"]: row for row in found["reconstruction"]["levels"]}
    rows = [
        (
            f"{prior['level']} ({level_name(prior['level'], len(sounds))})",
            f"{sounds[prior['level']]['spectral_convergence_db']:.1f} dB",
            f"{100 * sounds[prior['level']]['used']:.0f} %",
            f"{prior['bits_per_token']:.2f}",
            f"{prior['unigram_bits_per_token']:.2f}",
            f"{prior['bigram_bits_per_token']:.2f}",
        )
        for prior in found["likelihood"]["levels"]
    ]
    head = ("level", "spectral convergence", "codes in use", "bits: prior", "unigram", "bigram")
    return table(head, rows)


@cli.command
def main(arguments: list[str]) -> None:
    out = tyro.cli(Demo, args=arguments, prog="python -m experiments.demo").out
    print(f"jukejax demo: from songs to a new song, in {out}.\n{COST}")
    began, result = time.time(), {}
    plan = steps(out)
    for number, (what, command, do) in enumerate(plan, 1):
        start = time.time()
        print(f"\n[{number}/{len(plan)}] {what}\n$ python -m experiments.{command}", flush=True)
        result = do()
        print(f"    ({format_seconds(time.time() - start)})", flush=True)
    print(
        "\nWhat was learned, on held-out songs (spectral convergence: silence is 0 dB, lower is\n"
        "better; bits per token of the prior, and of unigrams and bigrams counted in training):\n"
    )
    print(summary(result))
    page = shlex.quote(str((out / "sample" / "index.html").resolve()))
    print(f"\nListen:      {page}\nTensorBoard: tensorboard --logdir {out}")
    print(f"Everything:  {out} ({format_seconds(time.time() - began)})")


if __name__ == "__main__":
    main(sys.argv[1:])
