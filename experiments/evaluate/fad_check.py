"""Does Fréchet audio distance rise as real music is spoilt more? On the bundled music.

python -m experiments.evaluate fad-check

A half of the songs is spoilt, by noise, low-pass filters and shuffled pieces, each ever more, and
set beside the other half.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import tyro
from numpy.typing import NDArray
from tqdm import tqdm

from data_pipeline import prepare
from experiments import cli
from experiments.evaluate.generation import EMBEDDERS
from jukejax.config import ConfigError
from jukejax.evaluation import frechet
from jukejax.evaluation.embedding import Embedder
from jukejax.evaluation.report import Table

MUSIC = Path(prepare.__file__).parent / "demo_music" / "audio"
SPOILT: dict[str, tuple[str, tuple[float, ...]]] = {
    "noise": ("dB signal to noise", (40, 30, 20, 10, 0)),
    "low-pass": ("Hz cut-off", (8000, 4000, 2000, 1000, 500)),
    "shuffle": ("s a piece", (2.0, 0.5, 0.2, 0.05)),
}
Sound = NDArray[np.float32]


@dataclass(frozen=True)
class Check:
    """Spoil real music more and more, and watch the Fréchet audio distance."""

    embedder: str = "musicnn-mtt"
    """musicnn-mtt or musicnn-msd."""
    seconds: float = 30.0
    """Of each of the 25 bundled songs."""
    json: bool = False
    """Print the result as one JSON object on the last line."""


def spoil(kind: str, amount: float, sound: Sound, rate: int) -> Sound:
    """A sound with noise, without high frequencies, or with its pieces in another order."""
    rng = np.random.default_rng(0)
    if kind == "noise":
        power = np.mean(np.square(sound, dtype=np.float64)) * 10 ** (-amount / 10)
        return (sound + rng.normal(scale=np.sqrt(power), size=len(sound))).astype(np.float32)
    if kind == "low-pass":
        spectrum = np.fft.rfft(sound)
        spectrum[round(amount * len(sound) / rate) :] = 0
        return np.fft.irfft(spectrum, len(sound)).astype(np.float32)
    pieces = [
        sound[i : i + round(amount * rate)] for i in range(0, len(sound), round(amount * rate))
    ]
    return np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])


def rows(
    embedder: Embedder, songs: Sequence[tuple[Sound, int]], spoilt: dict[str, Any] = SPOILT
) -> list[dict[str, Any]]:
    """FAD of every other song, spoilt in every way, from the songs between them."""

    def embed(some: Sequence[tuple[Sound, int]]) -> NDArray[Any]:
        return np.concatenate([embedder(sound, rate).vectors for sound, rate in some])

    real = frechet.fit(embed(songs[::2]))
    plan: list[tuple[str, float]] = [("clean", 0.0)]
    plan += [(kind, amount) for kind, (_, amounts) in spoilt.items() for amount in amounts]
    out = []
    for kind, amount in tqdm(plan, "spoiling", disable=None):
        some = songs[1::2]
        if kind != "clean":
            some = [(spoil(kind, amount, sound, rate), rate) for sound, rate in some]
        vectors = embed(some)
        out.append({"kind": kind, "amount": amount, "n": len(vectors),
                    "fad": frechet.distance(real, vectors)})  # fmt: skip
    return out


def monotone(found: list[dict[str, Any]]) -> dict[str, bool]:
    """Whether the distance rises from clean on, with every step, of each kind."""
    clean = found[0]["fad"]
    kinds = dict.fromkeys(row["kind"] for row in found[1:])
    paths = {k: [clean, *(row["fad"] for row in found if row["kind"] == k)] for k in kinds}
    return {kind: bool(np.all(np.diff(path) > 0)) for kind, path in paths.items()}


def read_music(seconds: float) -> list[tuple[Sound, int]]:
    """So much of each bundled song from 5 s on, mean downmix."""
    out = []
    for path in sorted(MUSIC.glob("*.ogg")):
        rate = soundfile.info(path).samplerate
        start = 5 * rate
        sound, _ = soundfile.read(
            path, start=start, stop=start + round(seconds * rate), dtype="float32", always_2d=True
        )
        out.append((sound.mean(axis=1), rate))
    return out


@cli.command
def main(arguments: list[str]) -> None:
    check = tyro.cli(Check, args=arguments, prog="python -m experiments.evaluate fad-check")
    if check.embedder not in EMBEDDERS:
        raise ConfigError(
            f"There is no embedder {check.embedder!r}; choose one of {', '.join(EMBEDDERS)}."
        )
    found = rows(EMBEDDERS[check.embedder](), read_music(check.seconds))
    units = {kind: unit for kind, (unit, _) in SPOILT.items()}
    cells = [
        (row["kind"], f"{row['amount']:g} {units[row['kind']]}" if row["kind"] in units else "",
         str(row["n"]), f"{row['fad']:.1f}")
        for row in found
    ]  # fmt: skip
    title = "Fréchet audio distance of spoilt songs from other songs."
    print(Table(title, ("", "", "windows", "FAD"), cells))
    for kind, rises in monotone(found).items():
        print(f"{kind}: {'rises with every step' if rises else 'does NOT rise with every step'}")
    if check.json:
        print(json.dumps({"rows": found, "monotone": monotone(found)}))
