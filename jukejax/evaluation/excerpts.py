"""How do excerpts rebuilt by the VQ-VAE and a renderer compare with Opus and MP3 of its bitrate?

Also writes the originals and their reconstructions to OUT/sounds, to listen to. Part of the suite
`reconstruction`. S samples, mono.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import soundfile

from jukejax import files
from jukejax.codec import Piece
from jukejax.evaluation import codecs, fidelity
from jukejax.evaluation.data import Song
from jukejax.evaluation.distances import distances
from jukejax.evaluation.fidelity import Sound
from jukejax.evaluation.subject import Lacking, Result, Subject
from jukejax.sampling import sound as sounds

SONGS, SECONDS = 8, 10.0  # at most, evenly over the test split; of each
CODECS = ("Opus", "MP3")
SHORTEST = 2048  # samples that the distances need more of


def excerpt(subject: Subject, song: Song) -> tuple[int, Sound]:
    """Where an excerpt begins (a whole block), and its mean downmix (S,).

    The middle of the song, or from the first sung word where words have times.
    """
    block, rate = subject.vqvae.config.block, subject.vqvae.config.sample_rate
    length = min(song.n_samples, round(SECONDS * rate))
    start = song.words[0][1] * rate if song.words else (song.n_samples - length) / 2
    start = int(min(start, song.n_samples - length)) // block * block
    return start, subject.songs.audio(song, start, start + length)


def rebuild(subject: Subject, song: Song, start: int, length: int) -> dict[str, Sound]:
    """The same excerpt decoded from codes by each of `Subject.systems`."""
    config, rebuilt = subject.vqvae.config, {}
    codes = subject.codes.read(song)
    for name, (level, renderer) in subject.systems.items():
        decoder = sounds.decoder(subject.vqvae, level, length / config.sample_rate, renderer)
        last = -(-(start + length) // config.block) * config.block
        begin, end = start // decoder.hop, last // decoder.hop
        first = max(0, begin - decoder.reach)
        last = min(len(codes[level]), end + decoder.reach)
        with jax.set_mesh(subject.mesh):
            window = Piece(first, last, begin - first, end - first)
            sound = decoder.decode(codes[level][None], window)[0]
        rebuilt[name] = sound[:length]
    return rebuilt


def figures(sound: Sound, rebuilt: Sound, rate: int) -> dict[str, float]:
    """All measures of one excerpt."""
    sums = fidelity.song_sums([np.stack([sound, rebuilt])])
    return {
        "spectral_convergence_db": fidelity.convergence_db(sums),
        "si_sdr_db": fidelity.si_sdr_db(sums),
        **distances(sound, rebuilt, rate),
    }


def measure(subject: Subject, songs: Sequence[Song]) -> Result:
    """Means over excerpts, of each level and of the codecs near its bitrate; writes OUT/sounds.

    Raises:
      Lacking: soxr is not installed.
    """
    try:
        import soxr  # noqa: F401
    except ImportError as error:
        raise Lacking(f"{error}; this needs the extra: pip install 'jukejax[evaluate]'.") from error
    config = subject.vqvae.config
    rate, folder = config.sample_rate, subject.out / "sounds"
    kbps = {
        name: rate / config.hops[level] * math.log2(config.codes) / 1000
        for name, (level, _) in subject.systems.items()
    }
    systems = [
        (name, codec, f"{codec} near {name}" if codec else name)
        for name, (_, renderer) in subject.systems.items()
        for codec in ("", *(() if renderer else CODECS))
    ]
    rows: dict[str, list[dict[str, float]]] = {system: [] for *_, system in systems}
    settings: dict[str, codecs.Setting] = {}
    bits = dict.fromkeys(rows, 0)
    items, seconds = [], 0.0
    for song in songs[:: -(-len(songs) // SONGS)]:
        start, sound = excerpt(subject, song)
        if len(sound) <= SHORTEST or not sound.any():
            continue
        seconds += len(sound) / rate
        rebuilt = rebuild(subject, song, start, len(sound))
        for name, codec, system in systems:
            decoded = rebuilt[name]
            if codec:
                if system not in settings:
                    settings[system] = codecs.nearest(codec, kbps[name], sound, rate)
                decoded, size = codecs.round_trip(settings[system], sound, rate)
                bits[system] += 8 * size
            rows[system].append(figures(sound, decoded, rate))
        items.append(_write(folder, song, start, sound, rebuilt, rate))
    if not items:
        return {"excerpts": [], "count": 0, "seconds": 0.0}
    value = {"model": str(subject.directory.path), "step": subject.vqvae.step, "items": items}
    files.write_json(folder / "sounds.json", value)
    kbps |= {system: bits[system] / seconds / 1000 for _, codec, system in systems if codec}
    means = [
        {"system": system, "kbps": kbps[system]}
        | {key: float(np.mean([row[key] for row in of])) for key in of[0]}
        for system, of in rows.items()
    ]
    return {"excerpts": means, "count": len(items), "seconds": seconds}


def _write(
    folder: Path, song: Song, start: int, sound: Sound, rebuilt: dict[str, Sound], rate: int
) -> dict[str, Any]:
    """Writes the sounds of an excerpt; returns its entry of sounds.json."""
    made = {"original": sound} | {name.replace(" ", "_"): y for name, y in rebuilt.items()}
    paths = {name: f"song_{song.index}/{name}.wav" for name in made}
    for name, samples in made.items():
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
        "levels": {name[6:]: path for name, path in paths.items() if name.startswith("level_")},
    }  # fmt: skip
