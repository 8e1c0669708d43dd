"""The suite `reconstruction`: how well the VQ-VAE rebuilds held-out songs."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from data_pipeline import records
from data_pipeline.code_loader import code_token_counts
from data_pipeline.codes import read_song_codes
from data_pipeline.records import read_audio
from data_pipeline.songs import PreparedSong, prepared_songs
from experiments.evaluate import reconstruction_excerpts
from experiments.evaluate.subject import Lacking, Subject, Suite, held_out_songs
from jukejax.evaluation import plots, reconstruction, report


def mean_downmix(data: Path, song: PreparedSong, start: int, stop: int) -> reconstruction.Sound:
    """Samples start..stop of a song: (stop - start,) float32 in [-1, 1)."""
    pcm = read_audio(data, song, start, stop)
    return pcm.mean(axis=1, dtype=np.float32) / np.float32(32768.0)


def _readable(subject: Subject, songs: Iterable[PreparedSong]) -> Iterator[reconstruction.Song]:
    for song in songs:
        read = functools.partial(mean_downmix, subject.songs, song)
        codes = read_song_codes(subject.codes, song.id)
        yield reconstruction.Song(song.id, song.n_samples, read, codes)


def measure(subject: Subject) -> dict[str, Any]:
    """`reconstruction.evaluate` on the test split, and codebook use over all that is encoded."""
    vqvae = subject.vqvae
    songs = held_out_songs(subject)
    with jax.set_mesh(subject.mesh):
        decoders = reconstruction.make_decoders(vqvae.config, vqvae.params, vqvae.books)
        progress = tqdm(songs, "reconstruction", unit="song", disable=None)
        result = reconstruction.evaluate(decoders, _readable(subject, progress))
    encoded = prepared_songs(subject.codes)
    present = [split for split in records.SPLITS if len(encoded.of_split(split))]
    for level in subject.levels:
        counts = [
            code_token_counts(subject.codes, split, level, vqvae.config.codes) for split in present
        ]
        result["levels"][level] |= reconstruction.codebook_use(np.sum(counts, axis=0))
    result["counted"] = present
    result["seconds"] = result["samples"] / vqvae.config.sample_rate
    try:
        return result | {"beside": reconstruction_excerpts.measure(subject, list(songs))}
    except Lacking as error:
        print(f"Codecs and sounds are left out: {error}")
        return result | {"beside": {"excerpts": []}}


def tables(result: dict[str, Any]) -> list[report.Table]:
    silent = f"; {result['silent']} silent ones left out" if result["silent"] else ""
    # results from before it was noted are of whole sets
    alone = result.get("counted") == ["test"]
    counted = "the held-out songs alone" if alone else "all songs, training songs too"
    title = (
        f"Reconstruction of {result['songs']} held-out songs ({result['seconds']:.0f} s{silent}). "
        "Spectral convergence (SC): lower is better; silence scores 0 dB by definition. "
        f"Codes used, entropy and perplexity are of {counted}."
    )
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
    return [report.Table(title, header, rows), *_codec_tables(result)]


def _codec_tables(result: dict[str, Any]) -> list[report.Table]:
    beside = result["beside"]
    if not beside["excerpts"]:
        return []
    title = (
        f"The same {beside['count']} excerpts ({beside['seconds']:.0f} s) by the VQ-VAE and by "
        "codecs at the nearest bitrate that they allow. kb/s: of codes log2(codebook) bits each; "
        "of codecs the size of the files. Mel and STFT distance as descript-audio-codec defines "
        "them: lower is better."
    )
    header = ("", "kb/s", "SC dB", "SI-SDR dB", "mel", "STFT")
    rows = [
        (
            row["system"],
            f"{row['kbps']:.1f}",
            f"{row['spectral_convergence_db']:.2f}",
            f"{row['si_sdr_db']:.2f}",
            f"{row['mel']:.2f}",
            f"{row['stft']:.2f}",
        )
        for row in beside["excerpts"]
    ]
    return [report.Table(title, header, rows)]


def figures(result: dict[str, Any]) -> list[report.Figure]:
    """Bars of every system's mel distance and spectral convergence."""
    rows = result["beside"]["excerpts"]
    named = [(f"{row['system']}: {row['kbps']:.1f} kb/s", row) for row in rows]
    kinds = (
        ("mel", "Mel distance", "mel distance"),
        ("spectral_convergence_db", "Spectral convergence", "dB"),
    )
    return [
        report.Figure(
            f"{title} beside codecs",
            "Of the same excerpts, by level and by codecs near its bitrate. Lower is better.",
            plots.bars([(name, row[key], None) for name, row in named], unit),
        )
        for key, title, unit in kinds
        if rows
    ]


def scores(result: dict[str, Any]) -> list[report.Score]:
    """Both figures of every level, by song; each song counts the same."""
    kinds = (("spectral_convergence_db", "SC dB", "lower"), ("si_sdr_db", "SI-SDR dB", "higher"))
    return [
        report.Score(
            f"level {row['level']}: {name}",
            row[key],
            better,
            {song["id"]: (song[key][index], 1.0) for song in result["by_song"]},
        )
        for index, row in enumerate(result["levels"])
        for key, name, better in kinds
    ]


SUITE = Suite(
    title="Reconstruction",
    about="How well the VQ-VAE rebuilds held-out songs from the codes of each level.",
    measure=measure,
    tables=tables,
    figures=figures,
    scores=scores,
    needs=("vqvae", "codes", "songs"),
    definition=2,
)
