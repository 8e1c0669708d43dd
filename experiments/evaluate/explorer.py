"""The explorer of samples and reconstructions: a static site to listen to and compare them.

python -m experiments.evaluate explorer runs/demo --out runs/demo/site
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from experiments import cli
from jukejax.evaluation.explorer import make_site


@dataclasses.dataclass(frozen=True)
class Explorer:
    """Make one site of all samples and reconstructions that lie in folders.

    Example: python -m experiments.evaluate explorer runs/demo --out runs/demo/site
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders searched, however deep, for sample directories and evaluations with sounds."""
    out: Path
    """The site; open its index.html. A site that is there is renewed."""


@cli.command
def main(arguments: list[str]) -> None:
    parsed = tyro.cli(Explorer, args=arguments, prog="python -m experiments.evaluate explorer")
    page, items, problems = make_site(
        parsed.runs, parsed.out, lambda found: tqdm(found, "explorer", unit="song", disable=None)
    )
    for problem in problems:
        print(f"left out: {problem}")
    print(f"{items} songs; open {page}")
