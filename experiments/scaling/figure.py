"""The figure and the table of docs/scaling.md, from the record alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from experiments.scaling.ladder import RUNGS, Ladder
from experiments.scaling.law import Law
from experiments.scaling.training import NGRAM
from jukejax import files
from jukejax.errors import ConfigError
from jukejax.evaluation.pages import plots
from jukejax.evaluation.results import spread
from jukejax.formatting import format_seconds

PICTURE, PAGE = Path("docs/pictures/scaling.png"), Path("docs/scaling.md")
BETWEEN = re.compile(r"(<!-- results -->\n).*?(<!-- end of results -->)", re.DOTALL)


def write(asked: Ladder) -> None:
    """Writes the picture, and the table between the marks of the page.

    Raises:
      ConfigError: nothing is measured, or the page has no marks.
    """
    measured = {rung.name: row for rung, row in asked.results().items()}
    if not measured:
        raise ConfigError(f"{asked.record} has no results; run `jukejax scaling run` first.")
    known = files.read_json(asked.record / "forecast.json")
    page = PAGE.read_text(encoding="utf-8")
    if not BETWEEN.search(page):
        raise ConfigError(f"{PAGE} has no place for the table: <!-- results --> and its end.")
    baseline = asked.result(NGRAM)
    text = "\n".join(lines(measured, known, baseline))
    files.write_text(PAGE, BETWEEN.sub(lambda m: f"{m[1]}{text}\n{m[2]}", page))
    files.write_bytes(PICTURE, picture(measured, known, baseline))
    print(f"{text}\n\nwritten to {PAGE}, {PICTURE}")


def lines(
    measured: dict[str, Any], known: dict[str, Any] | None, baseline: dict[str, Any] | None
) -> list[str]:
    """A Markdown table of the rungs, and sentences on the forecast."""
    foretold = known["forecast"] if known else {}
    out = [
        "| rung | parameters | tokens | FLOPs | training | learning rate | held-out bits a token | "
        "forecast | commit |",
        "| --- " * 9 + "|",
    ]
    for name in (rung.name for rung in RUNGS):
        row, other = measured.get(name), foretold.get(name)
        cast = f"{other['bits_per_token']:.4f} {spread(other['interval'])}" if other else "–"
        if row is None:
            out.append(f"| {name} |" + " |" * 4 + f" | not run | {cast} | |")
            continue
        out.append(
            f"| {name} | {row['parameters']:,} | {row['tokens']:,} | {row['flops']:.2g} | "
            f"{format_seconds(row['seconds'])} | {row['learning_rate']:.2g} | "
            f"{row['bits_per_token']:.4f} {spread(row['interval'])} | {cast} | "
            f"{row['commit'][:9]} |"
        )
    if baseline:
        bits = f"{baseline['bits_per_token']:.4f} {spread(baseline['interval'])}"
        out.append(f"| {NGRAM} | | {baseline['tokens']:,} | | | | {bits} | | |")
        best, row = list(measured.items())[-1]
        less = 1 - row["bits_per_token"] / baseline["bits_per_token"]
        out += ["", f"{best} needs {less:.1%} fewer bits than the {NGRAM}.".replace("%", " %")]
    if known:
        law = Law(**known["law"])
        out += [
            "",
            f"L(N) = {law.floor:.3f} + {law.scale:.3f} (N / 1e6)^-{law.exponent:.3f}, fitted to "
            f"{', '.join(known['fitted_to'])} on {known['date']}, code of commit "
            f"{known['commit'][:9]}.",
        ]
    return out


def picture(
    measured: dict[str, Any], known: dict[str, Any] | None, baseline: dict[str, Any] | None
) -> bytes:
    """PNG of bits over parameters: measured, the law, the forecast with its interval."""
    figure, grid = plots.subplots(1, 1, width=7.0, height=4.0)
    ax = grid[0, 0]
    sizes = [row["parameters"] for row in measured.values()]
    ax.plot(sizes, [row["bits_per_token"] for row in measured.values()], "o", label="measured")
    if known:
        rows = known["forecast"].values()
        ends = [*sizes, *(row["parameters"] for row in rows)]
        line = np.geomspace(min(ends), max(ends), 100)
        ax.plot(line, Law(**known["law"])(line), "-", label=f"fit to {len(known['fitted_to'])}")
        values = np.array([row["bits_per_token"] for row in rows])
        spans = np.abs(np.array([row["interval"] for row in rows]).T - values)
        at = [row["parameters"] for row in rows]
        ax.errorbar(
            at, values, spans, fmt="x", capsize=4, label=f"forecast of {known['date'][:10]}"
        )
    if baseline:
        ax.axhline(baseline["bits_per_token"], color="grey", linestyle=":", label=NGRAM)
    ax.set_xscale("log")
    ax.set_xlabel("parameters")
    ax.set_ylabel("held-out bits a token")
    ax.legend()
    return plots.png(figure)
