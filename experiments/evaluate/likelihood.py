"""The suite `likelihood`: how many bits the priors need for held-out tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from tqdm import tqdm

from data_pipeline import records
from data_pipeline.code_loader import code_windows
from data_pipeline.codes import codes_length, read_song_codes
from data_pipeline.labels import Vocabulary
from experiments.data import code_arguments, prior_inputs
from experiments.evaluate.subject import Subject, Suite
from jukejax.evaluation import likelihood, report
from jukejax.parallel.mesh import BATCH


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


def measure(subject: Subject) -> dict[str, Any]:
    """`likelihood.evaluate` of every prior that the model directory names, top level first.

    "covered" is the part of the held-out tokens that lies in whole windows and is scored.
    """
    levels = subject.prior_levels
    songs = records.split_songs(subject.codes, "test")  # said before minutes of counting
    counts = training_counts(subject, levels)
    split = int(np.prod([subject.mesh.shape[axis] for axis in BATCH]))
    batch = -(-subject.batch // split) * split
    rows, top = [], subject.vqvae.config.hops[-1]
    for level in levels:  # one in memory at a time
        prior = subject.load_prior(level)
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


def tables(result: dict[str, Any]) -> list[report.Table]:
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
    return [report.Table(title, header, rows)]


SUITE = Suite(
    title="Likelihood",
    about="How many bits the priors need for held-out tokens, beside models that count.",
    measure=measure,
    tables=tables,
    needs=("vqvae", "codes", "priors", "labels"),
)
