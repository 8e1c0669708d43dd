"""Renders the sung songs of the demo set: `python -m data_pipeline.render.songs --out DIR`.

Every score in demo_music/scores becomes DIR/audio/ID.ogg (44.1 kHz stereo) and a row of
DIR/songs.jsonl with lyrics and exact word times. Needs flite, fluidsynth and
fluidr3mono-gm-soundfont (Debian) and the extra `render`; the same versions of these tools give the
same samples. Takes about as long as the music lasts, on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.render import scores
from data_pipeline.render.band import play
from data_pipeline.render.sound import (
    MUSIC,
    RATE,
    fade,
    level,
    reverberate,
    rms,
    update_manifest,
    write_ogg,
)
from data_pipeline.render.voice import VOICE_RATE, sing
from jukejax import locks
from jukejax.errors import JukejaxError

SCORES = MUSIC / "scores"
ARTISTS = {"rms": "Flite RMS", "slt": "Flite SLT", "awb": "Flite AWB", "kal16": "Flite KAL16"}
LICENCE = "MIT-Festival AND MIT"  # flite's voices and FluidR3Mono's samples
ALBUM = "Rendered songs"
VOICE_OVER_BAND_DB = 8.0
TAIL_S = 1.5  # reverberation after the last chord
COMPRESSION = 0.68  # Vorbis, about 90 kb/s


def render_voice(score: dict[str, Any]) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """The dry voice (N,) at RATE of a score and the (start, end) seconds of its words."""
    import soxr

    words = scores.score_words(score)
    syllables = scores.score_syllables(score)
    seconds = scores.score_seconds(score) + TAIL_S
    voice, segments = sing(words, syllables, score["singer"], seconds, score.get("phones"))
    voice = soxr.resample(voice, VOICE_RATE, RATE, quality="VHQ")
    out = np.zeros(round(seconds * RATE))
    n = min(len(out), len(voice))
    out[:n] = voice[:n]
    return out, scores.word_times(segments, len(words))


def mix(voice: np.ndarray, band: np.ndarray) -> np.ndarray:
    """Voice (N,) over band (N, 2), VOICE_OVER_BAND_DB louder while it sings: (N, 2), levelled."""
    sung = reverberate(voice)
    gain = rms(band) / rms(sung) * 10 ** (VOICE_OVER_BAND_DB / 20)
    return level(fade(sung * gain + band, 0.01, TAIL_S))


def manifest_row(score: dict[str, Any], times: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """The songs.jsonl row of a rendered score."""
    words = scores.score_words(score)
    return {
        "id": score["id"],
        "audio": f"audio/{score['id']}.ogg",
        "artist": ARTISTS[score["singer"]],
        "album": ALBUM,
        "genres": score["genres"],
        "year": score["year"],
        "tags": score["tags"],
        "lyrics": scores.score_lyrics(score),
        "words": [[w, round(a, 3), round(b, 3)] for w, (a, b) in zip(words, times, strict=True)],
        "licence": LICENCE,
        "group": score["id"],
        "split": score["split"],
    }


def main() -> None:
    """Renders all scores, or those named by --only."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for audio/ and songs.jsonl")
    parser.add_argument("--only", nargs="*", help="ids of the songs to render")
    args = parser.parse_args()
    rows = []
    with locks.writing(args.out):
        for path in sorted(SCORES.glob("*.json")):
            score = scores.load_score(path)
            if args.only and score["id"] not in args.only:
                continue
            voice, times = render_voice(score)
            sound = mix(voice, play(score, len(voice) / RATE))
            rows.append(manifest_row(score, times))
            write_ogg(args.out / rows[-1]["audio"], sound, COMPRESSION)
            print(f"{score['id']}: {len(sound) / RATE:.1f} s, {len(times)} words")
        update_manifest(args.out / "songs.jsonl", rows)


if __name__ == "__main__":
    try:
        main()
    except JukejaxError as error:
        sys.exit(f"error: {error}")
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}: run `pip install 'jukejax[render]'`")
