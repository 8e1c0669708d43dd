"""Excerpts of held-out songs: the VQ-VAE beside Opus and MP3, and sounds to listen to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import soundfile

from jukejax import files
from jukejax.evaluation import codecs, fidelity
from jukejax.evaluation.data import Song
from jukejax.evaluation.distances import distances
from jukejax.evaluation.subject import Lacking, Subject
from jukejax.models import vqvae as model

SONGS, SECONDS = 8, 10.0
CODECS = ("Opus", "MP3")
Sound = fidelity.Sound


def excerpt(subject: Subject, song: Song) -> tuple[int, Sound]:
    """Where an excerpt begins (a multiple of the top hop), and its mean downmix.

    The middle of the song, or from the first word sung where words have times.
    """
    top, rate = subject.vqvae.config.hops[-1], subject.vqvae.config.sample_rate
    length = min(song.n_samples, round(SECONDS * rate))
    start = song.words[0][1] * rate if song.words else (song.n_samples - length) / 2
    start = int(min(start, song.n_samples - length)) // top * top
    return start, subject.songs.audio(song, start, start + length)


def rebuild(subject: Subject, song: Song, start: int, length: int) -> Iterator[Sound]:
    """The same stretch decoded from the codes of each level, bottom first, cut from the song."""
    vqvae = subject.vqvae
    codes = subject.codes.read(song)
    for level, hop in enumerate(vqvae.config.hops):
        reach = model.decoder_reach(vqvae.config, level)
        first = max(0, start // hop - reach)
        last = min(len(codes[level]), -(-(start + length) // hop) + reach)
        z = codes[level][None, first:last].astype(np.int32)
        with jax.set_mesh(subject.mesh):
            sound = fidelity.decode(vqvae.config, vqvae.params, vqvae.books, z, level)
        yield np.asarray(sound)[0, start - first * hop :, 0][:length]


def figures(sound: Sound, rebuilt: Sound, rate: int) -> dict[str, float]:
    """All measures of one excerpt."""
    sums = fidelity.song_sums([np.stack([sound, rebuilt])])
    return {
        "spectral_convergence_db": fidelity.convergence_db(sums),
        "si_sdr_db": fidelity.si_sdr_db(sums),
        **distances(sound, rebuilt, rate),
    }


def measure(subject: Subject, songs: Sequence[Song]) -> dict[str, Any]:
    """Means over excerpts of every level and of codecs near its bitrate; writes OUT/sounds.

    Raises:
      Lacking: soxr is not installed.
    """
    try:
        import soxr  # noqa: F401
    except ImportError as error:
        raise Lacking(f"{error}; this needs the extra: pip install 'jukejax[evaluate]'.") from error
    config = subject.vqvae.config
    rate = config.sample_rate
    kbps = [rate / hop * math.log2(config.codes) / 1000 for hop in config.hops]
    found: dict[str, list[dict[str, float]]] = {}
    settings: dict[tuple[str, int], codecs.Setting] = {}
    items, bits, seconds = (
        [],
        dict.fromkeys(((c, i) for c in CODECS for i in subject.levels), 0),
        0.0,
    )
    for song in songs[:: -(-len(songs) // SONGS)]:
        start, sound = excerpt(subject, song)
        if len(sound) <= 2048 or not sound.any():
            continue
        seconds += len(sound) / rate
        rebuilt = list(rebuild(subject, song, start, len(sound)))
        for level, y in enumerate(rebuilt):
            found.setdefault(f"level {level}", []).append(figures(sound, y, rate))
        for codec, level in bits:
            key = (codec, level)
            if key not in settings:
                settings[key] = codecs.nearest(codec, kbps[level], sound, rate)
            y, size = codecs.round_trip(settings[key], sound, rate)
            bits[key] += 8 * size
            found.setdefault(f"{codec} near level {level}", []).append(figures(sound, y, rate))
        items.append(_write(subject.out / "sounds", song, start, sound, rebuilt, rate))
    if not items:
        return {"excerpts": [], "count": 0, "seconds": 0.0}
    value = {"model": str(subject.directory.path), "step": subject.vqvae.step, "items": items}
    files.write_json(subject.out / "sounds" / "sounds.json", value)
    real = {f"level {level}": kbps[level] for level in subject.levels}
    real |= {f"{c} near level {i}": n / seconds / 1000 for (c, i), n in bits.items()}
    order = [f"{prefix}{i}" for i in subject.levels
             for prefix in ("level ", *(f"{c} near level " for c in CODECS))]  # fmt: skip
    rows = [
        {"system": name, "kbps": real[name]}
        | {key: float(np.mean([row[key] for row in found[name]])) for key in found[name][0]}
        for name in order
    ]
    return {"excerpts": rows, "count": len(items), "seconds": seconds}


def _write(
    folder: Path, song: Song, start: int, sound: Sound, rebuilt: list[Sound], rate: int
) -> dict[str, Any]:
    """The sounds of an excerpt, and its entry of sounds.json."""
    sounds = {"original": sound} | {f"level_{i}": y for i, y in enumerate(rebuilt)}
    paths = {name: f"song_{song.index}/{name}.wav" for name in sounds}
    for name, samples in sounds.items():
        with files.atomic_path(folder / paths[name]) as path:
            soundfile.write(path, np.clip(samples, -1.0, 1.0), rate, subtype="PCM_16")
    begin, end = start / rate, (start + len(sound)) / rate
    return {
        "id": song.id,
        "artist": song.artist,
        "genres": list(song.genres),
        "lyrics": song.lyrics,
        "words": [[text, round(max(a, begin) - begin, 3), round(min(b, end) - begin, 3)]
                  for text, a, b in song.words if a < end and b > begin],
        "seconds": end - begin,
        "original": paths["original"],
        "levels": {str(i): paths[f"level_{i}"] for i in range(len(rebuilt))},
    }  # fmt: skip
