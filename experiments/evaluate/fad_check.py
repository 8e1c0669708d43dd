"""Does Fréchet audio distance rise as real music is spoilt more? On the bundled music.

python -m experiments.evaluate fad-check
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import cli

MUSIC = Path(__file__).parents[2] / "data_pipeline" / "demo_music" / "audio"


@dataclass(frozen=True)
class Check:
    """Spoil real music more and more, and watch the Fréchet audio distance.

    Example: jukejax evaluate fad-check
    """

    embedder: str = "musicnn-mtt"
    """musicnn-mtt or musicnn-msd."""
    seconds: float = 30.0
    """Of each of the 25 bundled songs."""
    json: bool = False
    """Print the result as one JSON object on the last line."""


def read_music(seconds: float) -> list[tuple[Any, int]]:
    """`seconds` of each bundled song from 5 s on: mean downmix (S,) float32, sample rate."""
    import soundfile

    songs = []
    for path in sorted(MUSIC.glob("*.ogg")):
        rate = soundfile.info(path).samplerate
        start, stop = 5 * rate, 5 * rate + round(seconds * rate)
        sound, _ = soundfile.read(path, start=start, stop=stop, dtype="float32", always_2d=True)
        songs.append((sound.mean(axis=1), rate))
    return songs


@cli.command
def main(arguments: list[str]) -> None:
    check: Check = cli.parse(Check, arguments, "jukejax evaluate fad-check")

    from jukejax.evaluation import fad_check
    from jukejax.evaluation.generation import make_embedder

    rows = fad_check.rows(make_embedder(check.embedder), read_music(check.seconds))
    print(fad_check.table(rows))
    rises = fad_check.monotone(rows)
    for kind, rise in rises.items():
        print(f"{kind}: {'rises with every step' if rise else 'does NOT rise with every step'}")
    if check.json:
        print(json.dumps({"rows": rows, "monotone": rises}))
