"""Twenty lines sung by a model, on a page to listen to.

jukejax evaluate lines --model small-songs --out runs/lines
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import cli
from jukejax.errors import ConfigError


@dataclass(frozen=True)
class Lines:
    """Sing the bundled lines with a model that is conditioned on phones and notes, on a page.

    Its renderer makes the sound, where it has one.

    Example: jukejax evaluate lines --model small-songs --out runs/lines
    """

    model: Path
    """A model directory, or the name of a shipped model."""
    out: Path
    """Gets a sample directory a line, and the page: site/index.html."""
    artist: str = ""
    """In place of the lines' own artists and genres, which are those of the rendered songs."""
    count: int = 20
    """Only the first lines."""
    seconds: float = 8.0
    """Of each sample; the longest line has 7.3."""
    seed: int = 0
    temperature: float = 0.8
    guidance: float = 1.5
    """Follow phones and notes more closely: weight of their logits' difference from those without.
    """


def sing(asked: Lines) -> None:
    """A sample directory for each line; those that are finished stay as they are.

    Raises:
      ConfigError, DataError, CheckpointError: as of `jukejax.Model.samples`.
    """
    from tqdm import tqdm

    import jukejax
    from data_pipeline.sung_lines import bundled_lines
    from jukejax.tunes import read_midi, sung

    lines = bundled_lines()
    if not 1 <= asked.count <= len(lines):
        raise ConfigError(f"--count is {asked.count}; there are {len(lines)} lines.")
    model = jukejax.load(asked.model)
    for number, line in enumerate(tqdm(lines[: asked.count], "lines", unit="line", disable=None)):
        own = {"artist": line.artist, "genre": line.genre}
        labels: Any = {"artist": asked.artist} if asked.artist else own
        model.sample(
            folder=asked.out / f"line_{number:02d}",
            lyrics=line.words,
            tracks=sung(line.words, read_midi(line.tune)),
            seconds=asked.seconds,
            seed=asked.seed,
            temperature=asked.temperature,
            guidance=asked.guidance,
            render=model.loaded.directory.renderer is not None,
            **labels,
        )


@cli.command
def main(arguments: list[str]) -> None:
    asked: Lines = cli.parse(Lines, arguments, "jukejax evaluate lines")
    sing(asked)

    from jukejax.evaluation.pages.explorer import make_site

    page, items, _ = make_site((asked.out,), asked.out / "site")
    print(f"{items} songs; open {page}")
