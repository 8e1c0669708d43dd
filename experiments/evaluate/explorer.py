"""The explorer of samples and reconstructions: a static site to listen to and compare them.

jukejax evaluate explorer runs/demo --out runs/demo/site
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments import cli


@dataclass(frozen=True)
class Explorer:
    """Make one site of all samples and reconstructions in folders.

    Example: jukejax evaluate explorer runs/demo --out runs/demo/site
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders searched, at any depth, for sample directories and evaluations with sounds."""
    out: Path
    """The site; open its index.html. An existing site is updated."""


@cli.command
def main(arguments: list[str]) -> None:
    asked: Explorer = cli.parse(Explorer, arguments, "jukejax evaluate explorer")

    from tqdm import tqdm

    from jukejax.evaluation.pages.explorer import make_site

    page, items, problems = make_site(
        asked.runs, asked.out, lambda found: tqdm(found, "explorer", unit="song", disable=None)
    )
    for problem in problems:
        print(f"left out: {problem}")
    print(f"{items} songs; open {page}")
