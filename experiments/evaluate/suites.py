"""Ask a trained model questions on held-out songs: reconstruction, likelihood, generation, ...

jukejax evaluate all --model runs/demo/model --songs runs/demo/songs \\
    --codes runs/demo/codes --out runs/demo/evaluation

A suite's result is OUT/SUITE.json, with what it was computed from; a suite is not computed again
while that holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments import cli
from jukejax.config import MeshConfig

COMMON = ("suites", "model", "out", "songs", "codes", "samples", "json")


@dataclass(frozen=True)
class Evaluation:
    """Evaluate a trained model on the held-out songs.

    Suites: reconstruction, likelihood, generation, singing, cascade, alignment, labels,
    memorisation, features. Beside them: jukejax evaluate compare, explorer, lines.

    Example: jukejax evaluate all --model runs/demo/model --songs runs/demo/songs
    --codes runs/demo/codes --out runs/demo/evaluation
    """

    suites: Annotated[tuple[str, ...], tyro.conf.Positional]
    """all, or names of suites."""
    model: Path
    """A model directory: names the VQ-VAE and the priors."""
    out: Path
    """Gets SUITE.json of each suite, and the report: index.html."""
    songs: Path | None = None
    """Songs (`jukejax prepare`) with a test split."""
    codes: Path | None = None
    """The codes of the same songs (`jukejax encode`) by the model's VQ-VAE."""
    samples: tuple[Path, ...] = ()
    """Folders that `jukejax sample` made, for suites that look at samples."""
    generate: int = 16
    """Songs that are sampled, top level alone, where no --samples are given."""
    generate_seconds: float = 12.0
    """Their length."""
    embedder: str = "musicnn-mtt"
    """Network whose embeddings the suite generation compares: musicnn-mtt or musicnn-msd."""
    lines: int = 104
    """Lines of held-out songs that are sampled for the suite singing."""
    line_seconds: float = 6.0
    """Their length."""
    temperature: float = 0.98
    """Temperature that they are sampled with."""
    guidance: float = 0.0
    """Guidance that they are sampled with, as of `jukejax sample`."""
    json: bool = False
    """Print the results as one JSON object on the last line."""
    batch: int = 8
    """Windows that a prior reads at once; rounded up to what the mesh divides."""
    mesh: MeshConfig = field(default_factory=MeshConfig)


def run(asked: Evaluation) -> dict[str, Any]:
    """The results by suite; errors as of `jukejax.evaluation.suites.run`."""
    from experiments.evaluation_data import PreparedAudio, PreparedCodes
    from experiments.word_aligner import WordAligner
    from jukejax.evaluation.subject import Generate, Subject
    from jukejax.evaluation.suites import run as run_suites
    from jukejax.model_dir import read_model_dir
    from jukejax.parallel.mesh import make_mesh

    subject = Subject(
        read_model_dir(asked.model),
        make_mesh(asked.mesh),
        asked.out,
        PreparedAudio(asked.songs) if asked.songs else None,
        PreparedCodes(asked.codes) if asked.codes else None,
        asked.batch,
        asked.samples,
        Generate(
            asked.generate, asked.generate_seconds, asked.embedder, asked.lines,
            asked.line_seconds, asked.temperature, asked.guidance,
        ),
        WordAligner,
    )  # fmt: skip
    return run_suites(asked.suites, subject)


@cli.command
def main(arguments: list[str]) -> None:
    asked: Evaluation = cli.parse(Evaluation, arguments, "jukejax evaluate", COMMON)

    import jax

    from jukejax.parallel import distributed

    distributed.start()
    results = run(asked)
    if asked.json and jax.process_index() == 0:
        print(json.dumps(results))
