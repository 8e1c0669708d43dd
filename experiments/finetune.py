"""Teach a model the songs of a folder: from sound files to a model that samples their artist.

jukejax finetune --model small-songs --songs ~/Music/ella --out runs/ella
jukejax sample --model runs/ella/model --out song --artist ella

Each step is a command of its own, printed before it runs. Steps that are done are not repeated, and
an interrupted one continues where it was. All priors keep their old label names.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import cli
from jukejax import files, locks
from jukejax.config import MeshConfig, PriorConfig
from jukejax.errors import ConfigError, DataError
from jukejax.formatting import table

if TYPE_CHECKING:
    from jukejax.model_dir import ModelDir

COMMON = ("model", "songs", "out", "artist", "levels", "steps", "lora", "keep_songs")
MANIFEST = "songs.jsonl"
BEFORE, AFTER = "before.json", "after.json"
PASSES = 4  # over the new songs
MOST = 256  # held-out windows that are measured, evenly spread


@dataclass(frozen=True)
class Finetune:
    """Fine-tune a model on a folder of songs. The same command continues an interrupted run.

    Example: jukejax finetune --model small-songs --songs ~/Music/ella --out runs/ella
    """

    model: Path
    """A model directory, or the name of a model that comes with jukejax."""
    songs: Path
    """A folder of sound files, with lyrics beside them; or a manifest, songs.jsonl, which may name
    tracks too."""
    out: Path
    """Gets everything: manifest, records, codes, runs, and the new model in OUT/model."""
    artist: str = ""
    """The artist of songs that name none."""
    levels: tuple[int, ...] = ()
    """Levels whose priors are trained; none: all that the model has."""
    steps: int | None = None
    """Training steps of each prior. None: four passes over the songs; with more, a prior overfits
    where songs are few."""
    learning_rate: float | None = None
    """At its highest; falls to 0. None: 2e-4, with --lora 2e-3. Higher ones learn faster, and
    forget old songs faster."""
    lora: int = 0
    """Rank of adapters to train in place of all weights; 0: all weights. They are a small file,
    OUT/prior_LEVEL/adapter.safetensors, that is read together with the model's weights."""
    batch: int = 8
    """Windows in a training step."""
    keep_songs: Path | None = None
    """Codes (`jukejax encode`) of songs that the model should not forget: a quarter of each batch
    is of them, and their held-out ones are measured before and after."""
    workers: int = 1
    """Processes that decode sound files."""
    mesh: MeshConfig = field(default_factory=MeshConfig)


def finetune(command: Finetune) -> None:
    """Runs all steps.

    Raises:
      ConfigError, CheckpointError, DataError: a step is not possible.
    """
    from jukejax.model_dir import read_model_dir

    base = read_model_dir(command.model)
    priors = checked_priors(command, base)
    with locks.writing(command.out):
        manifest = song_list(command)
        if any(config.labels for config in priors):
            check_artists(manifest)
        for step in data_steps(command, base, priors, manifest):
            run(step)
        measured(command, base, priors, command.out / BEFORE)
        for config in priors:
            run(training_step(command, base, config))
        run(model_step(command, base, priors))
        new = read_model_dir(command.out / "model")
        measured(command, new, priors, command.out / AFTER, again=True)
    print(summary(command.out))


def run(step: list[Any]) -> None:
    """Prints a command and runs it in this process."""
    words = [str(word) for word in step]
    print(f"\n$ jukejax {shlex.join(words)}", flush=True)
    cli.run_command(*words)


def checked_priors(command: Finetune, base: ModelDir) -> list[PriorConfig]:
    """The configs of the priors to train, top first; finds mistakes before anything is written.

    Raises:
      ConfigError: a number is out of range, or the model lacks a level.
      CheckpointError: a prior or its labels are missing.
      DataError: there are no songs, or codes of other songs are of another VQ-VAE.
    """
    from jukejax.model_dir import load_vqvae
    from jukejax.parallel.mesh import make_mesh

    if not command.songs.exists():
        raise DataError(f"--songs {command.songs}: there is no such folder; correct the path.")
    for name in ("steps", "batch", "learning_rate"):
        if (value := getattr(command, name)) is not None and not value > 0:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option} is {value}; give a number over 0.")
    if command.lora < 0:
        raise ConfigError(f"--lora is {command.lora}; give a rank of 1 or more, or 0 for none.")
    if not base.priors:
        raise ConfigError(f"{base.path} has no priors; fine-tuning trains those of a model.")
    levels = sorted(command.levels or base.priors, reverse=True)
    priors = [base.prior_config(level)[0] for level in levels]
    for config in priors:
        if config.labels and not base.labels(config.level).is_file():
            path = base.labels(config.level)
            raise ConfigError(f"{base.path} names {path} for labels, which is not there.")
    if command.keep_songs:
        from data_pipeline.codes import codes_info

        mesh = make_mesh(command.mesh)
        codes_info(command.keep_songs, load_vqvae(base.vqvae, mesh).fingerprint)
    return priors


def song_list(command: Finetune) -> Path:
    """The manifest of the songs; that of a folder is written to OUT once, to be edited there.

    Raises:
      DataError: there are no songs.
    """
    from data_pipeline.manifest import write_manifest
    from data_pipeline.scan import Counts, scan_folder

    own = command.songs / MANIFEST if command.songs.is_dir() else command.songs
    if own.is_file():
        print(f"{own} is the manifest of the songs.")
        return own
    path = command.out / MANIFEST
    if path.exists():
        print(f"{path} is there already: its songs are used.")
        return path
    counts = Counts()
    songs = scan_folder(command.songs, counts)
    named = (dataclasses.replace(song, artist=song.artist or command.artist) for song in songs)
    write_manifest(named, path)
    print("\n".join(counts.lines()))
    return path


def check_artists(manifest: Path) -> None:
    """Raises DataError where songs have no artist, by which the model would sample them."""
    from data_pipeline.manifest import read_manifest

    nameless = [song.id for song in read_manifest(manifest).songs if not song.artist]
    if nameless:
        raise DataError(
            f"{len(nameless)} songs of {manifest} have no artist, such as {nameless[0]!r}: the "
            "model would have no name to sample them by. Write it into that file; or, for songs of "
            "a folder, give --artist and another --out."
        )


def data_steps(
    command: Finetune, base: ModelDir, priors: list[PriorConfig], manifest: Path
) -> Iterator[list[Any]]:
    """From a manifest to codes and grown label names."""
    songs, codes = command.out / "songs", command.out / "codes"
    window = max(c.window_samples / c.sample_rate for c in priors)
    rate = priors[0].sample_rate
    yield [
        "prepare", "build", "--manifest", manifest, "--out", songs, "--sample-rate", rate,
        "--min-seconds", f"{window:.3f}", "--workers", command.workers,
    ]  # fmt: skip
    yield ["encode", "--vqvae", base.vqvae.resolve(), "--data", songs, "--out", codes]
    for config in priors:
        grown = labels_file(command, config.level)
        if config.labels and not grown.exists():
            old = base.labels(config.level).resolve()
            yield ["labels", "grow", "--labels", old, "--data", codes, "--out", grown]


def labels_file(command: Finetune, level: int) -> Path:
    """The label names of the new prior of a level."""
    return command.out / f"labels_{level}.json"


def training_step(command: Finetune, base: ModelDir, config: PriorConfig) -> list[Any]:
    """Trains the prior of a level from the base model's weights."""
    start = base.prior(config.level).resolve()
    kept = command.batch // 4 if command.keep_songs else 0  # rows of the batch
    steps = command.steps or steps_of_passes(command, config, command.batch - kept)
    options: dict[str, Any] = {
        "lora": command.lora,
        "train.steps": steps,
        "train.batch": command.batch,
        "train.ema_decay": max(0.0, 1 - 10 / steps),  # an average over the last tenth
        "train.log_every": max(1, steps // 20),
        "train.evaluate_every": max(1, steps // 4),
        "train.evaluate_batches": 4,
        "train.checkpoint_every": max(1, steps // 10),
        "train.keep": 1,
        "train.keep_best": 0,
        "optimizer.learning_rate": command.learning_rate or (2e-3 if command.lora else 2e-4),
        "optimizer.warmup_steps": steps // 10,
        "optimizer.decay": "cosine",
        "optimizer.decay_start": 0,
        "optimizer.decay_steps": steps,
        **{f"mesh.{name}": size for name, size in vars(command.mesh).items()},
    }
    named: list[Any] = []
    if config.labels:
        named = ["--labels", labels_file(command, config.level)]
        options |= {
            f"model.labels.{kind.table}": -1 if kind.optional else 0 for kind in config.labels.kinds
        }
    return [
        "train", start, "--start-from", start, "--data", command.out / "codes",
        "--workdir", command.out / f"prior_{config.level}", *named,
        *(["--mix", f"{kept}:{command.keep_songs}"] if kept else []),
        *(f"--{name.replace('_', '-')}={value}" for name, value in options.items()),
    ]  # fmt: skip


def steps_of_passes(command: Finetune, config: PriorConfig, rows: int) -> int:
    """Steps in which `rows` windows a step read the training songs `PASSES` times."""
    from data_pipeline.songs import prepared_songs

    lengths = prepared_songs(command.out / "codes").of_split("train").column("n_samples")
    windows = sum(max(1, round(length / config.window_samples)) for length in lengths.tolist())
    return math.ceil(PASSES * windows / rows)


def model_step(command: Finetune, base: ModelDir, priors: list[PriorConfig]) -> list[Any]:
    """Puts the VQ-VAE, the new priors and those that were not trained together."""
    runs = {level: path.resolve() for level, path in base.priors.items()}
    labels = {level: path.resolve() for level, path in base.label_files.items()}
    for config in priors:
        runs[config.level] = command.out / f"prior_{config.level}"
        if command.lora:
            runs[config.level] /= "adapter.safetensors"
        if config.labels:
            labels[config.level] = labels_file(command, config.level)
    named = [f"{level}={path}" for level, path in sorted(labels.items())]
    return [
        "model", "make", "--vqvae", base.vqvae.resolve(), "--priors", *runs.values(),
        *(["--labels", *named] if named else []),
        *(["--renderer", base.renderer.resolve()] if base.renderer else []),
        "--out", command.out / "model",
    ]  # fmt: skip


def measured(
    command: Finetune,
    model: ModelDir,
    priors: list[PriorConfig],
    file: Path,
    again: bool = False,
) -> None:
    """Writes the bits a token of held-out codes, new and kept, by level.

    What the file has already is not measured unless `again`.
    """
    from data_pipeline.songs import prepared_songs

    sets = {"new": command.out / "codes"}
    if command.keep_songs:
        sets["kept"] = command.keep_songs
    value = {} if again else files.read_json(file) or {}
    for name, codes in sets.items():
        if not len(prepared_songs(codes).of_split("test")):
            print(f"{codes} has no held-out songs: nothing is measured.")
        elif name not in value:
            print(f"\nBits a token of held-out songs of {codes}, by {model.path} ...", flush=True)
            levels = [config.level for config in priors]
            value[name] = {str(level): bits(command, model, codes, level) for level in levels}
            files.write_json(file, value)


def bits(command: Finetune, model: ModelDir, codes: Path, level: int) -> float:
    """Bits a token of held-out codes under a level's prior, given their labels and lyrics."""
    from experiments.evaluation_data import PreparedCodes
    from jukejax.evaluation import scoring
    from jukejax.evaluation.subject import Subject
    from jukejax.parallel.mesh import make_mesh

    mesh = make_mesh(command.mesh)
    subject = Subject(model, mesh, command.out, codes=PreparedCodes(codes), batch=command.batch)
    prior = subject.load_prior(level)
    names = subject.label_names(prior.config)
    windows = subject.codes.windows(prior.config, names, "test", subject.batch, MOST)
    scorer = scoring.make_scorer(prior.config, prior.params, mesh)
    sums = scoring.sums(scorer, lambda codes: {}, windows)
    return scoring.mean(sums["models"]["prior"]["songs"])


def summary(out: Path) -> str:
    """What was learned and what was kept, as a table."""
    before, after = (files.read_json(out / name) or {} for name in (BEFORE, AFTER))
    rows = [
        (f"{name} songs, level {level}", f"{old:.3f}", f"{new:.3f}", f"{new - old:+.3f}")
        for name in after
        for level, new in after[name].items()
        if (old := before.get(name, {}).get(level)) is not None
    ]
    head = ("bits a token, held out", "before", "after", "change")
    lines = [table(head, rows)] if rows else []
    old, new = (measured.get("new", {}) for measured in (before, after))
    if any(bits > old.get(level, bits) for level, bits in new.items()):
        lines.append(
            "Held-out new songs got worse: the others were learned by heart. Give half of the "
            "--steps, and another --out."
        )
    model = shlex.quote(str(out / "model"))
    return "\n".join(
        ["", *lines, f"Model: {out / 'model'}", f"$ jukejax sample --model {model} ..."]
    )


@cli.command
def main(arguments: list[str]) -> None:
    finetune(cli.parse(Finetune, arguments, "jukejax finetune", COMMON))


if __name__ == "__main__":
    main(sys.argv[1:])
