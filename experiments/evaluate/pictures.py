"""Pictures for the report, drawn without a display."""

from __future__ import annotations

import io
from typing import Any


def subplots(rows: int, columns: int, width: float = 9.0, height: float = 3.6) -> tuple[Any, Any]:
    """A figure and its axes (rows, columns), an array also of one."""
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
