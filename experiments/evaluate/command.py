"""The command: parse, load what is evaluated, run the suites asked for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import tyro

from data_pipeline.codes import codes_info
from data_pipeline.errors import DataError
from experiments import cli
from experiments.evaluate import likelihood, reconstruction
from experiments.evaluate.subject import Lacking, Subject, Suite, data_digest
from jukejax.checkpoint import CheckpointError
from jukejax.config import ConfigError, MeshConfig
from jukejax.evaluation import report
from jukejax.model_dir import load_vqvae, read_model_dir
from jukejax.parallel.mesh import make_mesh

SUITES: dict[str, Suite] = {
    "reconstruction": reconstruction.SUITE,
    "likelihood": likelihood.SUITE,
}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Evaluate a trained model on the held-out songs.

    Example: python -m experiments.evaluate all --model runs/demo/model --songs runs/demo/songs
    --codes runs/demo/codes --out runs/demo/evaluation
    """

    suites: Annotated[tuple[str, ...], tyro.conf.Positional]
    """all, or some of: reconstruction, likelihood."""
    model: Path
    """A model directory: names the VQ-VAE and the priors."""
    songs: Path
    """Songs (`experiments.prepare`) with a test split."""
    codes: Path
    """The codes of the same songs (`experiments.encode`) under the model's VQ-VAE."""
    out: Path
    """Gets SUITE.json of each suite."""
    json: bool = False
    """Print the results as one JSON object on the last line."""
    batch: int = 8
    """Windows that a prior reads at once; rounded up to what the mesh divides."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)


def load(arguments: Evaluation) -> Subject:
    """The model's VQ-VAE, checked against the codes.

    Raises:
      CheckpointError: the codes are of another VQ-VAE.
    """
    mesh = make_mesh(arguments.mesh)
    model = read_model_dir(arguments.model)
    vqvae = load_vqvae(model.vqvae, mesh)
    info = codes_info(arguments.codes)
    if info.fingerprint != vqvae.fingerprint:
        raise CheckpointError(
            f"{arguments.codes} holds codes of VQ-VAE {info.fingerprint}, but {arguments.model} "
            f"names VQ-VAE {vqvae.fingerprint}; encode the songs with this one, or name the other."
        )
    return Subject(
        model, vqvae, mesh, arguments.songs, arguments.codes, arguments.out, arguments.batch
    )


def run_suite(name: str, subject: Subject) -> dict[str, Any]:
    """A suite's result, computed or found in `subject.out`, after printing its table."""
    suite, out = SUITES[name], subject.out
    source = {
        "vqvae": {"fingerprint": subject.vqvae.fingerprint, "step": subject.vqvae.step},
        "codes": data_digest(subject.codes),
        "definition": suite.definition,
        **suite.source(subject),
    }
    result = report.read_result(out, name, source)
    if result is None:
        result = suite.measure(subject) | {"model": str(subject.directory.path)}
        path = report.write_result(out, name, source, result)
        print(f"{suite.table(result)}\nwritten to {path}")
    else:
        path = report.result_path(out, name)
        print(f"{suite.table(result)}\nnot computed again: {path} is of this model and data")
    return result


def run(arguments: Evaluation) -> dict[str, Any]:
    """The results by suite; what the command does after parsing.

    A suite that cannot run does not keep the others from running.

    Raises:
      ConfigError: there is no such suite.
      CheckpointError, DataError: the model or the data lack something or do not fit; where others
        could run, after them.
    """
    names = list(SUITES) if arguments.suites == ("all",) else list(arguments.suites)
    for name in names:
        if name not in SUITES:
            raise ConfigError(
                f"There is no suite {name!r}; choose some of {', '.join(SUITES)}, or all."
            )
    subject = load(arguments)
    results: dict[str, Any] = {}
    failed = []
    for name in names:
        try:
            results[name] = run_suite(name, subject)
        except (CheckpointError, ConfigError, DataError) as error:
            if names == [name]:
                raise
            if not isinstance(error, Lacking):
                failed.append(name)
            print(f"{name} is left out: {error}")
    if failed:
        raise CheckpointError(f"{', '.join(failed)} could not run; the reasons are above.")
    return results


@cli.command
def main(arguments: list[str]) -> None:
    parsed = tyro.cli(Evaluation, args=arguments, prog="python -m experiments.evaluate")
    results = run(parsed)
    if parsed.json:
        print(json.dumps(results))
