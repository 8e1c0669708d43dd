"""The report as one self-contained HTML page."""

from __future__ import annotations

import io
from typing import Any

import jinja2
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_INK, _BAR = "#3c3346", "#8b4a9c"


def render(report: dict[str, Any]) -> str:
    """The page of the figures of `summary.summarise`, with "data" and "made"."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("data_pipeline", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["histogram"] = histogram
    return environment.get_template("report.html.j2").render(report=report)


def histogram(spread: dict[str, Any], unit: str) -> str:
    """An SVG histogram of songs; the page's text describes it."""
    edges, counts = spread["histogram"]["edges"], spread["histogram"]["counts"]
    figure = Figure(figsize=(5.4, 2.1), layout="constrained")
    axes = figure.add_subplot()
    axes.bar(range(len(counts)), counts, 0.9, align="edge", color=_BAR)
    step = max(1, len(edges) // 10)
    axes.set_xticks(range(0, len(edges), step), [f"{x:.3g}" for x in edges[::step]])
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlabel(unit)
    axes.set_ylabel("songs")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK)
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
