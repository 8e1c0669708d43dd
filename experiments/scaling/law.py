"""The law L(N) = E + A N^-a of held-out bits over parameters (Hoffmann et al. 2022), fitted.

Every rung sees the same number of tokens a parameter, so one variable is enough. n rungs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.scaling.ladder import RUNGS, Ladder, stamp
from jukejax import costs, files
from jukejax.errors import ConfigError
from jukejax.evaluation.bootstrap import PERCENT, ROUNDS
from jukejax.evaluation.results import spread

Floats = NDArray[np.float64]
EXPONENTS = np.linspace(0.01, 2.0, 1991)
LEAST = 3  # rungs: the law has three numbers
MILLION = 1e6


class Law(NamedTuple):
    """L(N) = floor + scale (N / 1e6)^-exponent, bits a token of N parameters."""

    floor: float
    scale: float
    exponent: float

    def __call__(self, parameters: Any) -> Any:
        return self.floor + self.scale * (np.asarray(parameters) / MILLION) ** -self.exponent


def fit(parameters: Floats, bits: Floats) -> Law:
    """Least squares of bits (n,) over parameters (n,): a grid of exponents, the rest exactly.

    Floor and scale are not negative.
    """
    x = (parameters / MILLION) ** -EXPONENTS[:, None]  # (exponents, n)
    apart, mean = x - x.mean(1, keepdims=True), bits.mean()
    scale = np.maximum((apart @ (bits - mean)) / (apart**2).sum(1), 0.0)
    floor = mean - scale * x.mean(1)
    through = (x @ bits) / (x**2).sum(1)  # the best scale where the floor is 0
    scale, floor = np.where(floor < 0, through, scale), np.maximum(floor, 0.0)
    errors = ((floor[:, None] + scale[:, None] * x - bits) ** 2).sum(1)
    best = int(errors.argmin())
    return Law(float(floor[best]), float(scale[best]), float(EXPONENTS[best]))


def drawn_laws(parameters: Floats, bits: Floats, tokens: Floats) -> list[Law]:
    """Laws of bootstrap draws of held-out songs, the same of all rungs.

    The spread is that of the held-out songs alone; each rung is trained once.

    Args:
      parameters: (n,).
      bits: (n, songs), sums.
      tokens: (songs,).
    """
    rng, songs = np.random.default_rng(0), len(tokens)
    draws = rng.integers(0, songs, (ROUNDS, songs))
    return [fit(parameters, bits[:, d].sum(1) / tokens[d].sum()) for d in draws]


def forecast(asked: Ladder) -> dict[str, Any]:
    """Fits the law to the measured rungs but the largest, writes forecast.json, prints it.

    Raises:
      ConfigError: fewer than three rungs are measured, or the largest is already.
    """
    measured = asked.results()
    if RUNGS[-1] in measured:
        raise ConfigError(
            f"{RUNGS[-1].name} is measured already; a forecast of it would be none. "
            f"{asked.record}/forecast.json has the one from before."
        )
    if len(measured) < LEAST:
        raise ConfigError(
            f"The law has three numbers, but {len(measured)} rungs are measured in {asked.record}; "
            "run more: `jukejax scaling run`."
        )
    law, laws = of_rows([*measured.values()])
    sizes = {r: costs.parameters(asked.experiment(r)) for r in RUNGS if r not in measured}
    value = {
        **stamp(),
        "fitted_to": [rung.name for rung in measured],
        "law": law._asdict(),
        "law_intervals": {name: interval([getattr(x, name) for x in laws]) for name in Law._fields},
        "forecast": {
            rung.name: {
                "parameters": size,
                "bits_per_token": float(law(size)),
                "interval": interval([x(size) for x in laws]),
            }
            for rung, size in sizes.items()
        },
    }
    files.write_json(asked.record / "forecast.json", value)
    print(f"L(N) = {law.floor:.3f} + {law.scale:.3f} (N / 1e6)^-{law.exponent:.3f}")
    for name, row in value["forecast"].items():
        print(f"{name}: {row['bits_per_token']:.4f} bits a token {spread(row['interval'])}")
    return value


def of_rows(rows: list[dict[str, Any]]) -> tuple[Law, list[Law]]:
    """The law of results, and those of draws of their held-out songs."""
    songs = list(rows[0]["by_song"])
    sums = np.array([[row["by_song"][song] for song in songs] for row in rows], np.float64)
    parameters = np.array([row["parameters"] for row in rows], np.float64)
    bits, tokens = sums[..., 0], sums[0, :, 1]
    law = fit(parameters, bits.sum(1) / tokens.sum())
    return law, drawn_laws(parameters, bits, tokens)


def interval(values: list[float]) -> tuple[float, float]:
    """The 95 % percentile interval of draws."""
    low, high = np.percentile(values, PERCENT)
    return float(low), float(high)
