"""The notebook of the documentation runs, on a tiny model, and shows what it says."""

from __future__ import annotations

import ast
import json
from typing import Any

import matplotlib
import numpy as np
import tiny_model
from pages import ROOT

CELLS = [
    "".join(cell["source"])
    for cell in json.loads((ROOT / "docs/quickstart.ipynb").read_text())["cells"]
    if cell["cell_type"] == "code"
]


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Runs a cell as Jupyter does: the value of a last expression is what is shown."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


def test_every_cell_runs(tmp_path, monkeypatch):
    model = tiny_model.write(tmp_path, n_ctx=256, blocks=16)
    monkeypatch.setenv("JUKEJAX_MODEL", str(model))
    monkeypatch.chdir(ROOT / "docs")
    monkeypatch.setattr(matplotlib.rcParams, "backend", "agg", raising=False)
    matplotlib.use("agg")
    names: dict[str, Any] = {}
    shown = [run_cell(source, names) for source in CELLS]
    song, rate = names["song"], tiny_model.RATE
    tokens = [2 * rate // hop for hop in tiny_model.HOPS]
    assert shown[1] == [
        (3 * rate // tiny_model.HOPS[-1] * tiny_model.HOPS[-1] // hop,) for hop in tiny_model.HOPS
    ]
    assert all(sound.std() > 0 for sound in names["sounds"])
    assert [len(level) for level in song.codes] == tokens
    assert song.audio.shape == (2 * rate,) and np.isfinite(song.audio).all()
    assert "<audio controls" in shown[3]._repr_html_()
