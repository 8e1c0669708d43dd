"""Two or more evaluation directories side by side.

jukejax evaluate compare runs/a/evaluation runs/b/evaluation --out runs/a_and_b
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments import cli


@dataclass(frozen=True)
class Compare:
    """Compare evaluations: the first directory with each of the others.

    Example: jukejax evaluate compare runs/a/evaluation runs/b/evaluation --out runs/a_and_b
    """

    directories: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders that `jukejax evaluate` wrote."""
    out: Path | None = None
    """Gets comparison.json and index.html."""
    json: bool = False
    """Print the comparison as one JSON object on the last line."""


@cli.command
def main(arguments: list[str]) -> None:
    asked: Compare = cli.parse(Compare, arguments, "jukejax evaluate compare")

    from jukejax.evaluation.comparison import compare_directories

    rows = compare_directories(asked.directories, asked.out)
    if asked.json:
        print(json.dumps(rows))
