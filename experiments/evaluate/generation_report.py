"""What the suite `generation` shows: tables, figures, scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.evaluate.subject import Result
from jukejax.evaluation import plots
from jukejax.evaluation.frechet import LEAST
from jukejax.evaluation.report import Figure, Score, Table

PITCHES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def _interval(found: dict[str, float] | None) -> str:
    if found is None:
        return "–"
    if found["low"] is None:
        return f"{found['value']:.1f}"
    return f"{found['value']:.1f} [{found['low']:.1f}, {found['high']:.1f}]"


def _pitch_gap(a: list[float], b: list[float]) -> float:
    """Total variation of two pitch-class histograms, 0 .. 1."""
    return float(np.abs(np.subtract(a, b)).sum() / 2)


def tables(result: Result) -> list[Table]:
    return [_distances(result), _sounds(result), _labels(result), _tags(result)]


def _distances(result: Result) -> Table:
    title = (
        f"Beside {result['real_n']} windows of training songs ({result['window']:.2f} s each, "
        f"{result['embedder']}): FAD with 95 % interval over songs, and its limit for infinite n "
        f"(of {LEAST} windows and more), lower is better; log-spectral distance (LSD), lower is "
        "better; precision, recall, density, coverage, higher is better. Compare FAD at the same "
        "n only."
    )
    header = ("", "n", "FAD", "FAD infinity", "LSD dB", "prec.", "recall", "dens.", "cover.")
    rows = [
        (
            name,
            str(row["n"]),
            _interval(row["fad"]),
            _interval(row["fad_infinity"]),
            f"{row['log_spectral_db']:.1f}",
            *(f"{row[k]:.2f}" for k in ("precision", "recall", "density", "coverage")),
        )
        for name, row in result["sets"].items()
    ]
    return Table(title, header, rows)


def _sounds(result: Result) -> Table:
    title = (
        "Means over sounds. Repetition: 1 is an exact loop. Joins: where changes at window borders "
        "rank among all, 0.50 where they do not stand out. Notes by basic-pitch; pitch gap: how "
        "far the use of the 12 pitch classes is from the training songs', 0 to 1."
    )
    header = (
        "", "LUFS", "silent", "clipped", "repetition", "join flux", "join jump", "notes/s",
        "polyphony", "pitch gap",
    )  # fmt: skip
    real = next(iter(result["sounds"].values()))
    rows = [
        (
            name,
            f"{row['loudness_lufs']:.1f}",
            f"{100 * row['silent']:.1f} %",
            f"{100 * row['clipped']:.2f} %",
            f"{row['repetition']:.2f}",
            *(f"{row[k]:.2f}" if k in row else "-" for k in ("flux_rank", "jump_rank")),
            f"{row['notes_per_second']:.1f}",
            f"{row['polyphony']:.1f}",
            f"{_pitch_gap(row['pitch_classes'], real['pitch_classes']):.2f}",
        )
        for name, row in result["sounds"].items()
    ]
    return Table(title, header, rows)


def _labels(result: Result) -> Table:
    title = (
        "Label consistency: how often a classifier fitted on training songs' embeddings names the "
        "label (of real songs: theirs; of samples: what was asked for). Higher is better; chance "
        "is the greatest class's share."
    )
    names = list(result["sets"])
    rows = []
    for kind, found in result["labels"].items():
        if found:
            cells = [
                "-" if found[n]["accuracy"] is None
                else f"{100 * found[n]['accuracy']:.0f} % of {found[n]['count']}" for n in names
            ]  # fmt: skip
            rows.append((kind, str(found["classes"]), f"{100 * found['chance']:.0f} %", *cells))
    return Table(title, ("", "classes", "chance", *names), rows)


def _top_tags(result: Result, count: int = 10) -> list[int]:
    """The tags most likely in any set."""
    tags = [values for name, values in result["tags"].items() if name != "names"]
    if not result["tags"]["names"]:
        return []
    return np.argsort(-np.max(tags, axis=0))[:count].tolist()


def _tags(result: Result) -> Table:
    sets = [name for name in result["tags"] if name != "names"]
    rows = [
        (result["tags"]["names"][i], *(f"{result['tags'][name][i]:.2f}" for name in sets))
        for i in _top_tags(result)
    ]
    return Table(f"Mean probability of tags by {result['embedder']}.", ("tag", *sets), rows)


def figures(result: Result) -> list[Figure]:
    lines: dict[str, Any] = {}
    for name, row in result["sets"].items():
        line = row["line"]
        if line is None:
            continue
        inverse = [1 / n for n in line["sizes"]]
        lines[name] = ([*inverse[::-1]], line["distances"][::-1])
        lines[f"{name}: line"] = (
            [0.0, inverse[0]],
            [line["value"], line["value"] + line["slope"] * inverse[0]],
        )
    out = [
        Figure(
            "FAD at infinite sample size",
            "FAD of random subsets over 1/n; where the line meets 1/n = 0 is the value at infinite "
            "n. Lower is better.",
            plots.curves(lines, "1 / windows", "FAD"),
        ),
        Figure(
            "Pitch classes",
            "Which notes sound how often, octaves folded together.",
            plots.curves(
                {
                    name: (list(range(12)), row["pitch_classes"])
                    for name, row in result["sounds"].items()
                },
                "pitch class (0 is C)",
                "part of all notes",
            ),
        ),
    ]
    chosen = _top_tags(result)
    if chosen:
        names = result["tags"]["names"]
        rows = [
            (f"{names[i]}: {kind}", values[i], None)
            for i in chosen
            for kind, values in result["tags"].items()
            if kind in ("training songs", "samples")
        ]
        caption = "Mean probability of a tag in training songs and in samples."
        out.append(Figure("Tags", caption, plots.bars(rows, "probability")))
    return out


def scores(result: Result) -> list[Score]:
    row = result["sets"]["samples"]

    def score(name: str, key: str) -> Score:
        found = row[key]
        interval = None if found["low"] is None else (found["low"], found["high"])
        return Score(name, found["value"], "lower", interval=interval)

    out = [
        score("FAD of samples", "fad"),
        *([score("FAD of samples at infinite n", "fad_infinity")] if row["fad_infinity"] else []),
        Score("log-spectral distance of samples, dB", row["log_spectral_db"], "lower"),
    ]
    for key in ("precision", "recall", "density", "coverage"):
        out.append(Score(f"{key} of samples", row[key], "higher"))
    for kind, found in result["labels"].items():
        if found and found["samples"]["accuracy"] is not None:
            out.append(Score(f"{kind} named", found["samples"]["accuracy"], "higher"))
    return out
