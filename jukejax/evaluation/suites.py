"""All suites by name: runs those that are asked for and keeps the report page up to date."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from jukejax.config import ConfigError
from jukejax.errors import CheckpointError, DataError
from jukejax.evaluation import (
    alignment,
    cascade,
    features,
    generation,
    labels,
    likelihood,
    memorisation,
    reconstruction,
    results,
    singing,
)
from jukejax.evaluation.pages.report_page import Section, facts, write_report
from jukejax.evaluation.subject import Lacking, Subject, Suite
from jukejax.formatting import format_seconds, table
from jukejax.host_memory import peak_bytes, reset_peak
from jukejax.parallel import distributed

SUITES: dict[str, Suite] = {
    "reconstruction": reconstruction.SUITE,
    "likelihood": likelihood.SUITE,
    "generation": generation.SUITE,
    "singing": singing.SUITE,
    "cascade": cascade.SUITE,
    "alignment": alignment.SUITE,
    "labels": labels.SUITE,
    "memorisation": memorisation.SUITE,
    "features": features.SUITE,
}


def check_names(names: Iterable[str]) -> None:
    """Raises ConfigError where a name is no suite's."""
    for name in names:
        if name not in SUITES:
            raise ConfigError(
                f"There is no suite {name!r}; choose some of {', '.join([*SUITES, 'all'])}."
            )


def run_suite(name: str, subject: Subject) -> dict[str, Any]:
    """A suite's result, computed or read from `subject.out`, after printing its tables.

    Process 0 alone writes and prints.
    """
    suite, out, first = SUITES[name], subject.out, jax.process_index() == 0
    source = suite.sources(subject)
    result = results.read_result(out, name, source)
    path = results.result_path(out, name)
    end = f"not computed again: {path} is of this model and data"
    if result is None:
        journal = results.Journal(out, name, source, write=first)
        distributed.together(f"{name} begins")  # all have read the journal before it grows
        subject.once = journal.once
        began, reset = time.monotonic(), reset_peak()
        result = suite.measure(subject) | {"model": str(subject.directory.path)}
        seconds, peak = time.monotonic() - began, peak_bytes() / 2**20
        end = f"written to {path}"
        if first:
            cost = {"seconds": seconds, "peak_mib": peak, "alone": reset}
            results.write_result(out, name, source, result, cost)
            journal.close()
    if first:
        print("\n\n".join(map(str, suite.tables(result))) + f"\n{end}\n")
        write_page(out)
    return result


def run(names: Iterable[str], subject: Subject) -> dict[str, Any]:
    """The results of suites ("all": of all) by name; one that cannot run does not stop the others.

    Raises:
      ConfigError: there is no such suite.
      FolderInUse: another process writes results to `subject.out`.
      CheckpointError, DataError: the model or the data lack something or do not fit; with several
        suites, after the others have run. Lacking: no suite could run.
    """
    names = list(SUITES) if tuple(names) == ("all",) else list(names)
    check_names(names)
    computed: dict[str, Any] = {}
    failures: dict[str, Exception] = {}
    lacking: dict[str, Exception] = {}
    first = jax.process_index() == 0
    with distributed.writing(subject.out):
        for name in names:
            try:
                computed[name] = run_suite(name, subject)
            except (CheckpointError, ConfigError, DataError) as error:
                if names == [name]:
                    raise
                (lacking if isinstance(error, Lacking) else failures)[name] = error
                if first:
                    print(f"{name} is left out: {error}\n")
    if computed and first:
        print(f"{costs(computed, subject.out)}\n\nReport: {subject.out / 'index.html'}")
    if failures:
        raise CheckpointError(f"{', '.join(failures)} could not run: {_reasons(failures)}")
    if lacking and not computed:
        raise Lacking(f"Nothing was evaluated: {_reasons(lacking)}")
    return computed


def _reasons(errors: Mapping[str, Exception]) -> str:
    """The errors' sentences, each once."""
    return " ".join(dict.fromkeys(f"{str(error).rstrip('.')}." for error in errors.values()))


def costs(names: Iterable[str], out: Path) -> str:
    """A table of the seconds and the memory that each suite took when it was computed."""
    records = {name: results.read_record(out, name) or {} for name in names}
    costs = {name: record["cost"] for name, record in records.items() if record.get("cost")}
    rows = [
        (name, format_seconds(cost["seconds"]), f"{cost['peak_mib']:.0f}")
        for name, cost in costs.items()
    ]
    return table(("suite", "time", "peak MiB"), rows)


def write_page(out: Path) -> Path:
    """Writes `out`/index.html with a section for each suite that has a result."""
    sections, models = [], []
    for name, suite in SUITES.items():
        record = results.read_record(out, name)
        # an older definition has other keys
        if record is None or record["source"].get("definition") != suite.definition:
            continue
        result = record["result"]
        models.append(result["model"])
        shown = suite.tables(result), suite.figures(result)
        about = [("model", result["model"]), *facts(record)]
        sections.append(Section(name, suite.title, suite.about, about, *shown))
    return write_report(out, f"Evaluation of {models[0]}" if models else "", sections)
