"""The command: parse, run the suites asked for, keep the report page up to date."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from experiments import cli
from experiments.evaluate import (
    alignment,
    cascade,
    features,
    generation,
    labels,
    likelihood,
    memorisation,
    reconstruction,
)
from experiments.evaluate.page import write_page
from experiments.evaluate.subject import Lacking, Subject, Suite
from jukejax.config import ConfigError, MeshConfig
from jukejax.errors import CheckpointError, DataError
from jukejax.evaluation import report
from jukejax.formatting import format_seconds, table
from jukejax.host_memory import peak_bytes, reset_peak
from jukejax.model_dir import read_model_dir
from jukejax.parallel import distributed
from jukejax.parallel.mesh import make_mesh

SUITES: dict[str, Suite] = {
    "reconstruction": reconstruction.SUITE,
    "likelihood": likelihood.SUITE,
    "generation": generation.SUITE,
    "cascade": cascade.SUITE,
    "alignment": alignment.SUITE,
    "labels": labels.SUITE,
    "memorisation": memorisation.SUITE,
    "features": features.SUITE,
}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Evaluate a trained model on the held-out songs.

    Example: python -m experiments.evaluate all --model runs/demo/model --songs runs/demo/songs
    --codes runs/demo/codes --out runs/demo/evaluation
    """

    suites: Annotated[tuple[str, ...], tyro.conf.Positional]
    """all, or some of the suites."""
    model: Path
    """A model directory: names the VQ-VAE and the priors."""
    out: Path
    """Gets SUITE.json of each suite, and the report: index.html."""
    songs: Path | None = None
    """Songs (`experiments.prepare`) with a test split."""
    codes: Path | None = None
    """The codes of the same songs (`experiments.encode`) under the model's VQ-VAE."""
    samples: tuple[Path, ...] = ()
    """Folders that `experiments.sample` made, for suites that look at samples."""
    generate: int = 16
    """Songs that the suite generation samples, top level alone, where no --samples are given."""
    generate_seconds: float = 12.0
    """Their length."""
    embedder: str = "musicnn-mtt"
    """What the suite generation hears with: musicnn-mtt or musicnn-msd."""
    json: bool = False
    """Print the results as one JSON object on the last line."""
    batch: int = 8
    """Windows that a prior reads at once; rounded up to what the mesh divides."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)


def load(arguments: Evaluation) -> Subject:
    """What is evaluated; its parts are loaded when a suite asks for them."""
    a = arguments
    model, mesh = read_model_dir(a.model), make_mesh(a.mesh)
    subject = Subject(model, mesh, a.songs, a.codes, a.out, a.batch, a.samples)
    subject.generate, subject.generate_seconds = a.generate, a.generate_seconds
    subject.embedder = a.embedder
    return subject


def run_suite(name: str, subject: Subject) -> dict[str, Any]:
    """A suite's result, computed or found in `subject.out`, after printing its tables.

    Of several processes the first one writes and prints.
    """
    suite, out, first = SUITES[name], subject.out, jax.process_index() == 0
    source = suite.sources(subject)
    result = report.read_result(out, name, source)
    path = report.result_path(out, name)
    end = f"not computed again: {path} is of this model and data"
    if result is None:
        journal = report.Journal(out, name, source, write=first)
        distributed.together(f"{name} begins")  # all know the same parts before any is added
        subject.once = journal.once
        began, whole = time.monotonic(), reset_peak()
        result = suite.measure(subject) | {"model": str(subject.directory.path)}
        cost = {
            "seconds": time.monotonic() - began,
            "peak_mib": peak_bytes() / 2**20,
            "alone": whole,
        }
        end = f"written to {path}"
        if first:
            report.write_result(out, name, source, result, cost)
            journal.close()
    if first:
        print("\n\n".join(str(table) for table in suite.tables(result)) + f"\n{end}\n")
        write_page(SUITES, out)
    return result


def known(names: Iterable[str]) -> None:
    """Raises ConfigError where there is no suite of a name."""
    for name in names:
        if name not in SUITES:
            raise ConfigError(
                f"There is no suite {name!r}; choose some of {', '.join([*SUITES, 'all'])}."
            )


def run(arguments: Evaluation) -> dict[str, Any]:
    """The results by suite; what the command does after parsing.

    A suite that cannot run does not keep the others from running.

    Raises:
      ConfigError: there is no such suite.
      CheckpointError, DataError: the model or the data lack something or do not fit; where others
        could run, after them.
    """
    names = list(SUITES) if arguments.suites == ("all",) else list(arguments.suites)
    known(names)
    subject = load(arguments)
    results: dict[str, Any] = {}
    failures: dict[str, Exception] = {}
    first = jax.process_index() == 0
    for name in names:
        try:
            results[name] = run_suite(name, subject)
        except (CheckpointError, ConfigError, DataError) as error:
            if names == [name]:
                raise
            if not isinstance(error, Lacking):
                failures[name] = error
            if first:
                print(f"{name} is left out: {error}\n")
    if results and first:
        print(f"{costs(results, subject.out)}\n\nReport: {subject.out / 'index.html'}")
    if failures:
        reasons = dict.fromkeys(f"{str(error).rstrip('.')}." for error in failures.values())
        raise CheckpointError(f"{', '.join(failures)} could not run: {' '.join(reasons)}")
    return results


def costs(names: Any, out: Path) -> str:
    """A table of the seconds and the memory that each suite took when it was computed."""
    found = {name: (report.read_record(out, name) or {}).get("cost") for name in names}
    rows = [
        (name, format_seconds(cost["seconds"]), f"{cost['peak_mib']:.0f}")
        for name, cost in found.items()
        if cost
    ]
    return table(("suite", "time", "peak MiB"), rows)


@cli.command
def main(arguments: list[str]) -> None:
    parsed = tyro.cli(Evaluation, args=arguments, prog="python -m experiments.evaluate")
    distributed.start()
    results = run(parsed)
    if parsed.json and jax.process_index() == 0:
        print(json.dumps(results))
