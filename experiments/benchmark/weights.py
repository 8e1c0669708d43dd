"""What bfloat16 and int8 weights cost in bits per held-out token, by the forward pass of sampling.

jukejax benchmark weights --model runs/demo/model --codes runs/demo/codes

The same windows, evenly over the test split, are scored with the priors' matrices in every
format; the interval is a paired bootstrap over songs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.evaluation_data import PreparedCodes
from jukejax.config import MeshConfig
from jukejax.evaluation import bootstrap, scoring
from jukejax.evaluation.likelihood import chosen_windows
from jukejax.evaluation.subject import Subject
from jukejax.formatting import table
from jukejax.model_dir import read_model_dir
from jukejax.parallel.mesh import make_mesh
from jukejax.sampling.job import WEIGHTS
from jukejax.sampling.weights import convert


@dataclass(frozen=True)
class Command:
    """What weight formats cost in bits per held-out token, and save in bytes."""

    model: Path
    """A model directory."""
    codes: Path
    """Codes of songs with a test split (`jukejax encode`), under the model's VQ-VAE."""
    batch: int = 8
    """Windows that a prior reads at once."""


def of_level(subject: Subject, level: int) -> list[dict[str, Any]]:
    """A row for each format of one prior; `difference` is to float32."""
    prior = subject.load_prior(level)
    windows = chosen_windows(subject, prior.config, "test")
    rows: list[dict[str, Any]] = []
    truth: dict[str, Any] = {}
    for weights in WEIGHTS:
        params = convert(prior.params, weights)
        scorer = scoring.make_scorer(prior.config, params, subject.mesh)
        bits = scoring.score_all(scorer, windows, subject.batch)
        songs = {
            name: (total / count, count)
            for name, (total, count) in scoring.by_song(bits, windows["song"]).items()
        }
        truth = truth or songs
        difference, interval = bootstrap.difference(truth, songs)
        rows.append(
            {
                "level": level,
                "weights": weights,
                "bytes": sum(x.nbytes for x in jax.tree.leaves(params)),
                "tokens": int(np.size(bits)),
                "songs": len(songs),
                "bits_per_token": float(bits.mean()),
                "difference": difference,
                "interval": interval,
            }
        )
    return rows


def run(command: Command) -> dict[str, Any]:
    """The rows of all levels, top first."""
    subject = Subject(
        read_model_dir(command.model),
        make_mesh(MeshConfig()),
        Path(),
        codes=PreparedCodes(command.codes),
        batch=command.batch,
    )
    return {"rows": [row for level in subject.prior_levels for row in of_level(subject, level)]}


def lines(figures: dict[str, Any]) -> list[str]:
    """The figures as a table."""
    rows = []
    for row in figures["rows"]:
        interval = row["interval"]
        between = f"{interval[0]:+.5f} to {interval[1]:+.5f}" if interval else "one song"
        difference = (
            ["", ""] if row["weights"] == WEIGHTS[0] else [f"{row['difference']:+.5f}", between]
        )
        size, bits = f"{row['bytes'] / 2**20:,.1f} MiB", f"{row['bits_per_token']:.5f}"
        tokens = f"{row['tokens']:,} of {row['songs']} songs"
        rows.append([str(row["level"]), row["weights"], size, bits, *difference, tokens])
    head = ("level", "weights", "size", "bits/token", "difference", "95 %", "tokens")
    return [table(head, rows)]
