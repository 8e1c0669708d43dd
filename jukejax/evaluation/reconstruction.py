"""The suite `reconstruction`: how well does the VQ-VAE rebuild held-out songs?

Spectral convergence and SI-SDR of whole songs (`fidelity`), codebook use, excerpts compared
with Opus and MP3 (`excerpts`), and the words, notes and kind of sound that survive (`round_trip`),
each by level; of excerpts also by the model's renderer.
"""

from __future__ import annotations

import functools

import jax
from tqdm import tqdm

from jukejax.evaluation import excerpts, fidelity, round_trip
from jukejax.evaluation.pages import plots
from jukejax.evaluation.results import Columns, Figure, Score, Table
from jukejax.evaluation.subject import (
    Lacking,
    Result,
    Subject,
    Suite,
    checkpoint_mark,
    held_out_songs,
)


def measure(subject: Subject) -> Result:
    """`fidelity.evaluate` on the test split, and codebook use over all that is encoded."""
    vqvae = subject.vqvae
    songs = held_out_songs(subject)
    decoders = [functools.partial(fidelity.decode_pieces, vqvae, level) for level in subject.levels]
    readable = (
        fidelity.Song(
            song.id,
            song.n_samples,
            functools.partial(subject.songs.audio, song),
            subject.codes.read(song),
        )
        for song in tqdm(songs, "reconstruction", unit="song", disable=None)
    )
    with jax.set_mesh(subject.mesh):
        result = fidelity.evaluate(decoders, readable)
    for level in subject.levels:
        result["counted"], counts = subject.codes.token_counts(level, vqvae.config.codes)
        result["levels"][level] |= fidelity.codebook_use(counts)
    result["seconds"] = result["samples"] / vqvae.config.sample_rate
    result["round_trip"] = round_trip.measure(subject, songs)
    try:
        return result | {"beside": excerpts.measure(subject, list(songs))}
    except Lacking as error:
        print(f"Codecs and sounds are left out: {error}")
        return result | {"beside": {"excerpts": []}}


def tables(result: Result) -> list[Table]:
    silent = f"; {result['silent']} silent ones left out" if result["silent"] else ""
    # results of older versions do not say, and are of all songs
    alone = result.get("counted") == ["test"]
    counted = "the held-out songs alone" if alone else "all songs, training songs too"
    title = (
        f"Reconstruction of {result['songs']} held-out songs ({result['seconds']:.0f} s{silent}). "
        "Spectral convergence (SC): lower is better; silence scores 0 dB by definition. "
        f"Codes used, entropy and perplexity are of {counted}."
    )
    columns: Columns = {
        "level": "{level}",
        "SC dB": "{spectral_convergence_db:.2f}",
        "SI-SDR dB": "{si_sdr_db:.2f}",
        "codes used": "{used:.1%}",
        "entropy bits": "{entropy_bits:.2f}",
        "perplexity": "{perplexity:.0f}",
    }
    return [
        Table.of(title, columns, result["levels"]),
        *_codec_tables(result["beside"]),
        *round_trip.tables(result["round_trip"]),
    ]


def _codec_tables(beside: Result) -> list[Table]:
    if not beside["excerpts"]:
        return []
    title = (
        f"The same {beside['count']} excerpts ({beside['seconds']:.0f} s) by the VQ-VAE and by "
        "codecs at the nearest bitrate that they allow. kb/s: of codes log2(codebook) bits each; "
        "of codecs the size of the files. Mel and STFT distance as descript-audio-codec defines "
        "them, and log-spectral distance (LSD): lower is better."
    )
    columns: Columns = {
        "": "{system}",
        "kb/s": "{kbps:.1f}",
        "SC dB": "{spectral_convergence_db:.2f}",
        "SI-SDR dB": "{si_sdr_db:.2f}",
        "mel": "{mel:.2f}",
        "STFT": "{stft:.2f}",
        "LSD dB": "{log_spectral_db:.2f}",
    }
    return [Table.of(title, columns, beside["excerpts"])]


def figures(result: Result) -> list[Figure]:
    """Bars of every system's mel distance and spectral convergence."""
    rows = result["beside"]["excerpts"]
    named = [(f"{row['system']}: {row['kbps']:.1f} kb/s", row) for row in rows]
    kinds = (
        ("mel", "Mel distance", "mel distance"),
        ("spectral_convergence_db", "Spectral convergence", "dB"),
    )
    return [
        Figure(
            f"{title} beside codecs",
            "Of the same excerpts, by level and by codecs near its bitrate. Lower is better.",
            plots.bars([(name, row[key], None) for name, row in named], unit),
        )
        for key, title, unit in kinds
        if rows
    ]


def scores(result: Result) -> list[Score]:
    """Figures of every level, by song where they are of songs."""
    kinds = (("spectral_convergence_db", "SC dB", "lower"), ("si_sdr_db", "SI-SDR dB", "higher"))
    by_level = [
        Score(
            f"level {row['level']}: {name}",
            row[key],
            better,
            {song["id"]: (song[key][index], 1.0) for song in result["by_song"]},
        )
        for index, row in enumerate(result["levels"])
        for key, name, better in kinds
    ]
    return by_level + round_trip.scores(result["round_trip"])


def _source(subject: Subject) -> Result:
    """What the result depends on beside the VQ-VAE, songs and codes."""
    renderer = subject.directory.renderer
    mark = {"renderer": checkpoint_mark(renderer)} if renderer else {}
    return {"round_trip": round_trip.measures(subject), **mark}


SUITE = Suite(
    title="Reconstruction",
    about=(
        "How well the VQ-VAE rebuilds held-out songs from the codes of each level: their sound, "
        "and the words and notes that can still be heard."
    ),
    measure=measure,
    tables=tables,
    figures=figures,
    scores=scores,
    needs=("vqvae", "codes", "songs"),
    source=_source,
    definition=3,
)
