"""Two or more evaluation directories side by side.

python -m experiments.evaluate compare runs/a/evaluation runs/b/evaluation --out runs/a_and_b
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments import cli
from experiments.evaluate.command import SUITES
from experiments.evaluate.likelihood_report import spread
from jukejax import files
from jukejax.config import ConfigError
from jukejax.errors import CheckpointError
from jukejax.evaluation import comparison, report
from jukejax.evaluation.report import Table
from jukejax.evaluation.report_page import Section, write_report

MARKS = {"first": "first", "second": "second", "unclear": "unclear", "": "–"}
ABOUT = (
    "The first directory is what the others are compared with. A difference is second minus first; "
    "its 95 % interval is of the paired bootstrap over the songs that both measured, where there "
    "are figures by song. The better one is named where the interval leaves out 0; few songs give "
    "intervals that are too narrow. Where several rows are looked at, one in twenty stands out by "
    "chance."
)


@dataclass(frozen=True)
class Compare:
    """Compare evaluations: the first directory with each of the others."""

    directories: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """What `experiments.evaluate` wrote."""
    out: Path | None = None
    """Gets comparison.json and index.html."""
    json: bool = False
    """Print the comparison as one JSON object on the last line."""


def compared(suite: str, first: Path, second: Path) -> dict[str, Any] | None:
    """The scores of a suite in two directories; None where they lack it.

    Instead of "scores" it has a "reason" where the two cannot be compared.
    """
    records = [report.read_record(folder, suite) for folder in (first, second)]
    one, other = records
    if one is None or other is None:
        return None
    definition = SUITES[suite].definition
    for folder, record in zip((first, second), (one, other), strict=True):
        if record["source"].get("definition") != definition:
            return {"reason": f"{folder} was measured by another version; evaluate it again."}
    for part in SUITES[suite].alike:
        if one["source"].get(part) != other["source"].get(part):
            return {"reason": f"The two are of another {part}, so their figures mean other things."}
    scores = SUITES[suite].scores
    return {"scores": comparison.compare(scores(one["result"]), scores(other["result"]))}


def table(suite: str, first: Path, second: Path, found: dict[str, Any]) -> Table:
    title = f"{SUITES[suite].title}: {first} (first), {second} (second). {found.get('reason', '')}"
    rows = [
        (
            one["name"],
            f"{one['first']:.4g}",
            f"{one['second']:.4g}",
            f"{one['difference']:+.4g}",
            spread(one["interval"], 4),
            str(one["songs"] or "–"),
            MARKS[one["better"]],
        )
        for one in found.get("scores", [])
    ]
    header = ("figure", "first", "second", "difference", "95 %", "songs", "better")
    return Table(title.strip(), header, rows)


def run(arguments: Compare) -> list[dict[str, Any]]:
    """A row for each suite and each directory beside the first.

    Raises:
      ConfigError: fewer than two directories.
      CheckpointError: no suite has a result in two of them.
    """
    first, *others = arguments.directories or (Path(),)
    if not others:
        raise ConfigError("Give two or more evaluation directories to compare.")
    rows, sections = [], []
    for name, suite in SUITES.items():
        tables = []
        for second in others:
            found = compared(name, first, second)
            if found is not None:
                named = {"suite": name, "first": str(first), "second": str(second)}
                rows.append(named | found)
                tables.append(table(name, first, second, found))
        if tables:
            print("\n\n".join(map(str, tables)) + "\n")
            sections.append(Section(name, suite.title, f"{suite.about} {ABOUT}", [], tables, []))
    if not rows:
        raise CheckpointError(
            f"No suite has a result in {first} and in one of {', '.join(map(str, others))}; "
            "evaluate the models with the same suites first."
        )
    if arguments.out is not None:
        files.write_json(arguments.out / "comparison.json", rows)
        print(f"Report: {write_report(arguments.out, 'Comparison of evaluations', sections)}")
    return rows


@cli.command
def main(arguments: list[str]) -> None:
    parsed = tyro.cli(Compare, args=arguments, prog="python -m experiments.evaluate compare")
    rows = run(parsed)
    if parsed.json:
        print(json.dumps(rows))
