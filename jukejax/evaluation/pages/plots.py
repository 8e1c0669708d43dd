"""Plots of reports: SVG in one plain style with searchable text, and PNG for images."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

Interval = Sequence[float] | None
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jukejax",  # the same plot has the same bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


def svg(figure: Any) -> bytes:
    """A matplotlib figure as SVG, with `STYLE` as it was drawn."""
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
    return out.getvalue()


def axes(width: float = 7.0, height: float = 3.2) -> tuple[Any, Any]:
    """A figure of a size in inches and its axes, in the reports' style; needs no display."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        return figure, figure.add_subplot()


def subplots(rows: int, columns: int, width: float = 9.0, height: float = 3.6) -> tuple[Any, Any]:
    """A figure and its array of axes (rows, columns), for `png`; inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def png(figure: Any) -> bytes:
    """The figure as a PNG file."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def curves(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str) -> bytes:
    """SVG of named lines (x, y); the first is thicker."""
    figure, ax = axes()
    for index, (name, (xs, ys)) in enumerate(lines.items()):
        ax.plot(xs, ys, label=name, linewidth=1 if index else 2.2)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return svg(figure)


def bars(rows: Sequence[tuple[str, float, Interval]], x: str) -> bytes:
    """SVG of a horizontal bar per row (name, value, interval), the first at the top."""
    figure, ax = axes(height=0.6 + 0.28 * len(rows))
    places = range(len(rows))
    ax.barh(places, [value for _, value, _ in rows], color="#4878a8", height=0.6)
    for place, (_, _, interval) in zip(places, rows, strict=True):
        if interval is not None:
            ax.plot(interval, [place, place], color="black", linewidth=1.2)
    ax.set_yticks(places, [name for name, _, _ in rows])
    ax.invert_yaxis()
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlabel(x)
    return svg(figure)
