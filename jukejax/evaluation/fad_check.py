"""Does Fréchet audio distance rise as real music is spoilt more?

Half of the songs are spoilt, by noise, low-pass filters and shuffled pieces, each in growing
amounts, and compared with the other half. S samples, mono.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jukejax.evaluation import frechet
from jukejax.evaluation.embedding import Embedder
from jukejax.evaluation.results import Table

SPOILT: dict[str, tuple[str, tuple[float, ...]]] = {  # kind -> unit, amounts
    "noise": ("dB signal to noise", (40, 30, 20, 10, 0)),
    "low-pass": ("Hz cut-off", (8000, 4000, 2000, 1000, 500)),
    "shuffle": ("s a piece", (2.0, 0.5, 0.2, 0.05)),
}
Sound = NDArray[np.float32]


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


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows of `rows`."""
    units = {kind: unit for kind, (unit, _) in SPOILT.items()}
    cells = [
        (
            row["kind"],
            f"{row['amount']:g} {units[row['kind']]}" if row["kind"] in units else "",
            str(row["n"]),
            f"{row['fad']:.1f}",
        )
        for row in rows
    ]
    title = "Fréchet audio distance of spoilt songs from other songs."
    return Table(title, ("", "", "windows", "FAD"), cells)
