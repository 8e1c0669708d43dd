"""Questions asked of a trained model on held-out songs, a suite of figures each.

python -m experiments.evaluate all --model runs/demo/model --songs runs/demo/songs \
    --codes runs/demo/codes --out runs/demo/evaluation

A suite's result lies in OUT/SUITE.json with what it was computed from; while that holds, the suite
is not computed again. `SUITES` is the list; a new suite is one more entry.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from jax.sharding import Mesh
from tqdm import tqdm

from data_pipeline import records
from data_pipeline.code_loader import code_token_counts, code_windows
from data_pipeline.codes import codes_info, codes_length, read_song_codes
from data_pipeline.errors import DataError
from data_pipeline.labels import Vocabulary
from data_pipeline.records import read_audio
from data_pipeline.songs import PreparedSong, prepared_songs
from experiments import cli
from experiments.data import code_arguments, prior_inputs
from jukejax.checkpoint import CheckpointError, directory, open_existing
from jukejax.config import ConfigError, MeshConfig
from jukejax.evaluation import likelihood, reconstruction, report
from jukejax.model_dir import LoadedVQVAE, ModelDir, load_vqvae, read_model_dir
from jukejax.parallel.mesh import BATCH, make_mesh


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Evaluate a trained model on the held-out songs.

    Example: python -m experiments.evaluate all --model runs/demo/model --songs runs/demo/songs
    --codes runs/demo/codes --out runs/demo/evaluation
    """

    suite: Annotated[str, tyro.conf.Positional]
    """reconstruction, likelihood or all."""
    model: Path
    """A model directory: names the VQ-VAE and the priors."""
    songs: Path
    """Songs (`experiments.prepare`) with a test split."""
    codes: Path
    """The codes of the same songs (`experiments.encode`) under the model's VQ-VAE."""
    out: Path
    """Gets SUITE.json of each suite."""
    json: bool = False
    """Print the results as one JSON object on the last line."""
    batch: int = 8
    """Windows that a prior reads at once; rounded up to what the mesh divides."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is evaluated, loaded as far as every suite needs it."""

    directory: ModelDir
    vqvae: LoadedVQVAE
    mesh: Mesh
    songs: Path
    codes: Path
    batch: int

    @property
    def levels(self) -> range:
        return range(self.vqvae.config.levels)


@dataclasses.dataclass(frozen=True)
class Suite:
    """One question. `source` is what the answer depends on beside the VQ-VAE and the codes."""

    source: Callable[[Subject], dict[str, Any]]
    measure: Callable[[Subject], dict[str, Any]]
    table: Callable[[dict[str, Any]], str]
    definition: int = 1  # raised when the same source would give other figures


# --- reconstruction -------------------------------------------------------------------------------


def held_out_songs(subject: Subject) -> Sequence[PreparedSong]:
    """The test split of the songs, checked against the codes.

    Raises:
      DataError: no test split, or the codes are of other songs.
    """
    songs = records.split_songs(subject.songs, "test")
    encoded = prepared_songs(subject.codes).of_split("test")
    encoded_lengths = {song.id: song.n_samples for song in encoded}
    for song in songs:
        if encoded_lengths.get(song.id) != song.n_samples:
            raise DataError(
                f"{subject.codes} does not hold held-out song {song.id!r} as {subject.songs} has "
                "it; encode the songs again with `python -m experiments.encode`"
            )
    return songs


def mean_downmix(data: Path, song: PreparedSong, start: int, stop: int) -> reconstruction.Sound:
    """Samples start..stop of a song: (stop - start,) float32 in [-1, 1)."""
    pcm = read_audio(data, song, start, stop)
    return pcm.mean(axis=1, dtype=np.float32) / np.float32(32768.0)


def _readable(subject: Subject, songs: Iterable[PreparedSong]) -> Iterator[reconstruction.Song]:
    for song in songs:
        read = functools.partial(mean_downmix, subject.songs, song)
        codes = read_song_codes(subject.codes, song.id)
        yield reconstruction.Song(song.id, song.n_samples, read, codes)


def measure_reconstruction(subject: Subject) -> dict[str, Any]:
    """`reconstruction.evaluate` on the test split, and codebook use over the whole set."""
    vqvae = subject.vqvae
    songs = held_out_songs(subject)
    with jax.set_mesh(subject.mesh):
        decoders = reconstruction.make_decoders(vqvae.config, vqvae.params, vqvae.books)
        progress = tqdm(songs, "reconstruction", unit="song", disable=None)
        result = reconstruction.evaluate(decoders, _readable(subject, progress))
    present = {x for x in records.SPLITS if len(prepared_songs(subject.codes).of_split(x))}
    for level in subject.levels:
        counts = [
            code_token_counts(subject.codes, split, level, vqvae.config.codes)
            for split in sorted(present)
        ]
        result["levels"][level] |= reconstruction.codebook_use(np.sum(counts, axis=0))
    result["seconds"] = result["samples"] / vqvae.config.sample_rate
    return result


def reconstruction_table(result: dict[str, Any]) -> str:
    lines = [
        f"Reconstruction of {result['songs']} held-out songs ({result['seconds']:.0f} s"
        + (f"; {result['silent']} silent ones left out" if result["silent"] else "")
        + "). Spectral convergence (SC): lower is better; silence scores 0 dB by definition.",
    ]
    header = ("level", "SC dB", "SI-SDR dB", "codes used", "entropy bits", "perplexity")
    rows = [
        (
            str(row["level"]),
            f"{row['spectral_convergence_db']:.2f}",
            f"{row['si_sdr_db']:.2f}",
            f"{100 * row['used']:.1f} %",
            f"{row['entropy_bits']:.2f}",
            f"{row['perplexity']:.0f}",
        )
        for row in result["levels"]
    ]
    return "\n".join((*lines, report.table(header, rows)))


def reconstruction_source(subject: Subject) -> dict[str, Any]:
    return {"songs": data_digest(subject.songs)}


# --- likelihood -----------------------------------------------------------------------------------


def training_counts(subject: Subject, levels: Iterable[int]) -> dict[int, likelihood.Counts]:
    """Counts of tokens and pairs of the training split by level, in one pass over the songs."""
    codes = subject.vqvae.config.codes
    counts = {level: likelihood.empty_counts(codes) for level in levels}
    songs = records.split_songs(subject.codes, "train")
    for song in tqdm(songs, "counting training codes", unit="song", disable=None):
        found = read_song_codes(subject.codes, song.id)
        for level in counts:
            likelihood.count(counts[level], found[level])
    return counts


def measure_likelihood(subject: Subject) -> dict[str, Any]:
    """`likelihood.evaluate` of every prior that the model directory names, top level first.

    "covered" is the part of the held-out tokens that lies in whole windows and is scored.
    """
    levels = sorted(subject.directory.priors, reverse=True)
    songs = records.split_songs(subject.codes, "test")  # said before minutes of counting
    counts = training_counts(subject, levels)
    split = int(np.prod([subject.mesh.shape[axis] for axis in BATCH]))
    batch = -(-subject.batch // split) * split
    rows, top = [], subject.vqvae.config.hops[-1]
    for level in levels:  # one in memory at a time
        prior = subject.directory.load_prior(subject.mesh, subject.vqvae, level)
        config = prior.config
        vocabulary = Vocabulary.load(subject.directory.labels(level)) if config.labels else None
        lengths = [codes_length(song.n_samples, config.hop, top) for song in songs]
        windows = code_windows(
            subject.codes,
            split="test",
            batch_size=batch,
            expect_fingerprint=prior.fingerprint,
            **code_arguments(config, vocabulary),
        )
        total = -(-sum(n // config.n_ctx for n in lengths) // batch)
        progress = tqdm(windows, f"likelihood of level {level}", total, unit="batch", disable=None)
        inputs = (
            prior_inputs(config, found) | {k: found[k] for k in ("valid", "song")}
            for found in progress
        )
        scorer = likelihood.make_scorer(config, prior.params, subject.mesh)
        row = likelihood.evaluate(config, scorer, likelihood.fit(counts[level]), inputs)
        rows.append(row | {"covered": row["tokens"] / sum(lengths), "step": prior.step})
    return {"levels": rows}


def likelihood_table(result: dict[str, Any]) -> str:
    title = (
        "Bits per held-out token, lower is better; unigram and bigram count the training codes "
        "and score the same tokens: whole windows, without what is left at a song's end."
    )
    header = ("level", "prior", "bigram", "unigram", "uniform", "bits/s", "tokens", "of test")
    rows = [
        (
            str(row["level"]),
            f"{row['bits_per_token']:.3f}",
            f"{row['bigram_bits_per_token']:.3f}",
            f"{row['unigram_bits_per_token']:.3f}",
            f"{row['uniform_bits_per_token']:.3f}",
            f"{row['bits_per_second']:.0f}",
            str(row["tokens"]),
            f"{100 * row['covered']:.0f} %",
        )
        for row in result["levels"]
    ]
    return "\n".join((title, report.table(header, rows)))


def likelihood_source(subject: Subject) -> dict[str, Any]:
    """The checkpoints of the priors and the label names.

    Raises:
      CheckpointError: the model has no priors, or one has no checkpoint.
    """
    model = subject.directory
    if not model.priors:
        raise CheckpointError(
            f"{model.path} names no priors, so there is no likelihood to measure; train one and "
            "name it in model.json."
        )
    priors = {str(level): checkpoint_mark(path) for level, path in sorted(model.priors.items())}
    labels = {str(level): _digest([path]) for level, path in sorted(model.label_files.items())}
    return {"priors": priors, "labels": labels}


# --- suites ---------------------------------------------------------------------------------------

SUITES: dict[str, Suite] = {
    "reconstruction": Suite(reconstruction_source, measure_reconstruction, reconstruction_table),
    "likelihood": Suite(likelihood_source, measure_likelihood, likelihood_table),
}


def checkpoint_mark(workdir: Path) -> dict[str, Any]:
    """Which checkpoint of a run is the latest: its step, and when it was written."""
    with open_existing(workdir) as checkpoints:
        step = checkpoints.latest
    if step is None:
        raise CheckpointError(f"{workdir} holds no whole checkpoint; train there first.")
    written = (directory(workdir) / str(step)).stat().st_mtime
    return {"step": step, "written": datetime.fromtimestamp(written, UTC).isoformat()}


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} ".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def data_digest(folder: Path) -> str:
    """16 hexadecimal digits for a data set's songs and records (whose digests its notes keep)."""
    prepared_songs(folder)  # a folder that holds none is refused in a sentence
    return _digest([folder / "songs.jsonl", *sorted((folder / "shards").glob("*.json"))])


def load(arguments: Evaluation) -> Subject:
    """The model's VQ-VAE, checked against the codes.

    Raises:
      CheckpointError: the codes are of another VQ-VAE.
    """
    mesh = make_mesh(arguments.mesh)
    model = read_model_dir(arguments.model)
    vqvae = load_vqvae(model.vqvae, mesh)
    info = codes_info(arguments.codes)
    if info.fingerprint != vqvae.fingerprint:
        raise CheckpointError(
            f"{arguments.codes} holds codes of VQ-VAE {info.fingerprint}, but {arguments.model} "
            f"names VQ-VAE {vqvae.fingerprint}; encode the songs with this one, or name the other."
        )
    return Subject(model, vqvae, mesh, arguments.songs, arguments.codes, arguments.batch)


def run_suite(name: str, subject: Subject, out: Path) -> dict[str, Any]:
    """A suite's result, computed or found in `out`, after printing its table."""
    suite = SUITES[name]
    source = {
        "vqvae": {"fingerprint": subject.vqvae.fingerprint, "step": subject.vqvae.step},
        "codes": data_digest(subject.codes),
        "definition": suite.definition,
        **suite.source(subject),
    }
    result = report.read_result(out, name, source)
    if result is None:
        result = suite.measure(subject) | {"model": str(subject.directory.path)}
        path = report.write_result(out, name, source, result)
        print(f"{suite.table(result)}\nwritten to {path}")
    else:
        path = report.result_path(out, name)
        print(f"{suite.table(result)}\nnot computed again: {path} is of this model and data")
    return result


def run(arguments: Evaluation) -> dict[str, Any]:
    """The results by suite; what the command does after parsing.

    Raises:
      ConfigError: there is no such suite.
      CheckpointError, DataError: the model or the data lack something or do not fit.
    """
    names = list(SUITES) if arguments.suite == "all" else [arguments.suite]
    if names[0] not in SUITES:
        raise ConfigError(
            f"There is no suite {arguments.suite!r}; choose one of {', '.join(SUITES)}, all."
        )
    subject = load(arguments)
    if arguments.suite == "all" and not subject.directory.priors:
        print(f"{arguments.model} names no priors: likelihood is left out.")
        names.remove("likelihood")
    return {name: run_suite(name, subject, arguments.out) for name in names}


@cli.command
def main(arguments: list[str]) -> None:
    parsed = tyro.cli(Evaluation, args=arguments, prog="python -m experiments.evaluate")
    results = run(parsed)
    if parsed.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1:])
