"""Which of two models is better? Their scores side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jukejax import files, locks
from jukejax.config import ConfigError
from jukejax.errors import CheckpointError
from jukejax.evaluation import bootstrap
from jukejax.evaluation.pages.report_page import Section, write_report
from jukejax.evaluation.results import Columns, Score, Table, read_record, spread
from jukejax.evaluation.suites import SUITES

ABOUT = (
    "The others are compared with the first directory. A difference is second minus first; its "
    "95 % interval is of the paired bootstrap over the songs that both measured, where there are "
    "figures by song. The better one is named where the interval excludes 0; few songs give "
    "intervals that are too narrow. Of several rows, one in twenty stands out by chance."
)


def compare(first: Sequence[Score], second: Sequence[Score]) -> list[dict[str, Any]]:
    """The scores that both have: name, values, second - first, its 95 % interval, the better.

    Where both have figures by song, values and difference are of the songs in both, and the
    interval is of the paired bootstrap over them. Else, where both have an interval, the two are
    assumed independent and normal. "better" is "first" or "second" where the interval excludes 0,
    "unclear" where it does not, and "" without an interval or a better direction.
    """
    others = {score.name: score for score in second}
    return [_pair(score, others[score.name]) for score in first if score.name in others]


def _pair(a: Score, b: Score) -> dict[str, Any]:
    values, songs = (a.value, b.value), 0
    interval: tuple[float, float] | None = None
    if a.by_song is not None and b.by_song is not None:
        both = [song for song in a.by_song if song in b.by_song]
        songs = len(both)
        if both:
            mine = {song: a.by_song[song] for song in both}
            weights = {song: weight for song, (_, weight) in mine.items()}
            theirs = {song: (b.by_song[song][0], weights[song]) for song in both}
            values = _mean(mine), _mean(theirs)
            _, interval = bootstrap.difference(mine, theirs)
    elif a.interval is not None and b.interval is not None:
        half = math.hypot(*((high - low) / 2 for low, high in (a.interval, b.interval)))
        interval = (b.value - a.value - half, b.value - a.value + half)
    difference = values[1] - values[0]
    return {
        "name": a.name,
        "first": values[0],
        "second": values[1],
        "difference": difference,
        "interval": interval,
        "songs": songs,
        "better": _better(a.better, difference, interval),
    }


def _mean(by_song: bootstrap.BySong) -> float:
    return sum(v * w for v, w in by_song.values()) / sum(w for _, w in by_song.values())


def _better(wanted: str, difference: float, interval: tuple[float, float] | None) -> str:
    if not wanted or interval is None:
        return ""
    if interval[0] <= 0 <= interval[1]:
        return "unclear"
    return "second" if (difference < 0) == (wanted == "lower") else "first"


# --- evaluation directories -----------------------------------------------------------------------


def compared(suite: str, first: Path, second: Path) -> dict[str, Any] | None:
    """The scores of a suite in two directories; None where one lacks its result.

    Instead of "scores" it has a "reason" where the two cannot be compared.
    """
    a, b = (read_record(folder, suite) for folder in (first, second))
    if a is None or b is None:
        return None
    for folder, record in ((first, a), (second, b)):
        if record["source"].get("definition") != SUITES[suite].definition:
            return {"reason": f"{folder} was measured by another version; evaluate it again."}
    for part in SUITES[suite].alike:
        if a["source"].get(part) != b["source"].get(part):
            return {"reason": f"The two are of another {part}, so their figures mean other things."}
    scores = SUITES[suite].scores
    return {"scores": compare(scores(a["result"]), scores(b["result"]))}


def table(row: dict[str, Any]) -> Table:
    """A row of `compare_directories`."""
    title = f"{SUITES[row['suite']].title}: {row['first']} (first), {row['second']} (second)."
    columns: Columns = {
        "figure": "{name}",
        "first": "{first:.4g}",
        "second": "{second:.4g}",
        "difference": "{difference:+.4g}",
        "95 %": lambda score: spread(score["interval"], 4),
        "songs": lambda score: str(score["songs"] or "–"),
        "better": lambda score: score["better"] or "–",
    }
    return Table.of(f"{title} {row.get('reason', '')}".strip(), columns, row.get("scores", []))


def compare_directories(directories: Sequence[Path], out: Path | None) -> list[dict[str, Any]]:
    """Prints and returns a row for each suite and each directory compared with the first.

    Args:
      out: gets comparison.json and index.html, where given.

    Raises:
      ConfigError: fewer than two directories.
      CheckpointError: no suite has a result in two of them.
      FolderInUse: another process writes to `out`.
    """
    if len(directories) < 2:
        raise ConfigError("Give two or more evaluation directories to compare.")
    first, *others = directories
    rows, sections = [], []
    for name, suite in SUITES.items():
        by_other = [(second, compared(name, first, second)) for second in others]
        of_suite = [
            {"suite": name, "first": str(first), "second": str(second)} | scores
            for second, scores in by_other
            if scores is not None
        ]
        if of_suite:
            rows += of_suite
            tables = [table(row) for row in of_suite]
            print("\n\n".join(map(str, tables)) + "\n")
            sections.append(Section(name, suite.title, f"{suite.about} {ABOUT}", [], tables, []))
    if not rows:
        raise CheckpointError(
            f"No suite has a result in {first} and in one of {', '.join(map(str, others))}; "
            "evaluate the models with the same suites first."
        )
    if out is not None:
        with locks.writing(out):
            files.write_json(out / "comparison.json", rows)
            print(f"Report: {write_report(out, 'Comparison of evaluations', sections)}")
    return rows
