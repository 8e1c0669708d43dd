"""The suite `generation`: how close are samples to real music?

Fréchet audio distance, precision and recall of embeddings (`frechet`), log-spectral distance and
measures of single sounds (`sounds`, `melody`), and a classifier's agreement with the labels
(`label_check`), each of samples, held-out songs and rebuilt ones, compared with training songs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jukejax.config import ConfigError
from jukejax.evaluation import frechet
from jukejax.evaluation import sample_sets as sets
from jukejax.evaluation.embedding import Embedder
from jukejax.evaluation.label_check import consistency
from jukejax.evaluation.musicnn import Musicnn
from jukejax.evaluation.pages import plots
from jukejax.evaluation.results import Columns, Figure, Score, Table
from jukejax.evaluation.sounds import LevelCounts
from jukejax.evaluation.subject import Lacking, Result, Subject, Suite
from jukejax.evaluation.wheels import NotFetched

EMBEDDERS: dict[str, Callable[[], Embedder]] = {
    "musicnn-mtt": functools.partial(Musicnn, "MTT"),
    "musicnn-msd": functools.partial(Musicnn, "MSD"),
}
REAL, HELD_OUT, SAMPLES = "training songs", "held-out songs", "samples"


def make_embedder(name: str) -> Embedder:
    """The network of that name in `EMBEDDERS`.

    Raises:
      ConfigError: there is none.
      Lacking: its weights or a package of the extra `evaluate` are missing.
    """
    if name not in EMBEDDERS:
        raise ConfigError(f"There is no embedder {name!r}; choose one of {', '.join(EMBEDDERS)}.")
    try:
        import onnxruntime  # noqa: F401
        import pyloudnorm  # noqa: F401
        import sklearn  # noqa: F401
        import soxr  # noqa: F401

        return EMBEDDERS[name]()
    except ImportError as error:
        raise Lacking(f"{error}; this needs the extra: pip install 'jukejax[evaluate]'.") from error
    except NotFetched as error:
        raise Lacking(str(error)) from error


def measure(subject: Subject) -> Result:
    """Every set described once, and compared with the training songs."""
    network = make_embedder(subject.generate.embedder)
    rate = subject.vqvae.config.sample_rate
    folders = sets.sample_dirs(subject)
    level = max(sets.lowest(folder) for folder in folders)
    rebuilt = f"held-out, rebuilt from level {level}"
    sources: dict[str, Callable[[], Iterator[sets.Piece]]] = {
        REAL: lambda: sets.real(subject, "train"),
        HELD_OUT: lambda: sets.real(subject, "test"),
        rebuilt: lambda: sets.rebuilt(subject, level),
        SAMPLES: lambda: sets.sampled(subject, folders),
    }

    def describe(name: str) -> Result:
        return sets.describe(sources[name](), network, rate, name)

    described: dict[str, Result] = {}
    for name in sources:
        key = f"{subject.generate.embedder} {name}"
        described[name] = subject.once(key, functools.partial(describe, name))
        if len(described[name]["vectors"]) < 2:
            raise Lacking(
                f"The {name} hold fewer than two windows of {network.seconds:.2f} s, so they have "
                "no distribution to compare; give longer ones (--generate-seconds for samples)."
            )
    real, compared = described[REAL], (HELD_OUT, rebuilt, SAMPLES)
    return {
        "embedder": network.name,
        "window": network.seconds,
        "real_n": len(real["vectors"]),
        "level": level,
        "rate": rate,
        "sets": {name: _compare(real, described[name], rate) for name in compared},
        "sounds": {name: _mean(part["sounds"]) for name, part in described.items()},
        "labels": {
            kind: consistency(
                _labelled(real, column),
                {name: _labelled(described[name], column) for name in compared},
            )
            for column, kind in enumerate(("artist", "genre"))
        },
        "tags": {
            "names": list(network.tags),
            **{name: part["tags"] for name, part in described.items()},
        },
        "folders": [str(folder) for folder in folders],
    }


def _compare(real: Result, part: Result, rate: int) -> Result:
    """Distances of a set of sounds from the training songs, both as `sets.describe` gives them."""
    of_real, vectors = np.array(real["vectors"]), np.array(part["vectors"])
    plain, limit, line = frechet.estimate(frechet.fit(of_real), vectors, np.array(part["songs"]))
    return {
        "n": len(vectors),
        "sounds": len(part["sounds"]),
        "fad": plain._asdict(),
        "fad_infinity": limit and limit._asdict(),
        "line": line and line._asdict(),
        "log_spectral_db": _counts(real["counts"], rate).distance(_counts(part["counts"], rate)),
        **frechet.neighbours(of_real, vectors),
    }


def _counts(counts: Any, rate: int) -> LevelCounts:
    out = LevelCounts(rate)
    out.counts = np.array(counts)
    return out


def _labelled(part: dict[str, Any], column: int) -> tuple[Any, Any, list[str]]:
    labels = [row[column] for row in part["labels"]]
    return np.array(part["vectors"]), np.array(part["songs"]), labels


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over sounds; where only some have a measure, over those."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {
        name: np.mean([row[name] for row in rows if name in row], axis=0).tolist() for name in names
    }


def source(subject: Subject) -> dict[str, Any]:
    """The samples given, or what is to be sampled; raises Lacking without weights to embed with."""
    make_embedder(subject.generate.embedder)
    return {"embedder": subject.generate.embedder, **sets.source(subject)}


# --- what is shown --------------------------------------------------------------------------------


def _interval(estimate: dict[str, float] | None) -> str:
    if estimate is None:
        return "–"
    if estimate["low"] is None:
        return f"{estimate['value']:.1f}"
    return f"{estimate['value']:.1f} [{estimate['low']:.1f}, {estimate['high']:.1f}]"


def _pitch_gap(a: list[float], b: list[float]) -> float:
    """Total variation of two pitch-class histograms, 0 .. 1."""
    return float(np.abs(np.subtract(a, b)).sum() / 2)


def tables(result: Result) -> list[Table]:
    return [_distances(result), _sounds(result), _labels(result), _tags(result)]


def _distances(result: Result) -> Table:
    title = (
        f"Beside {result['real_n']} windows of training songs ({result['window']:.2f} s each, "
        f"{result['embedder']}): FAD with 95 % interval over songs, and its limit for infinite n "
        f"(of {frechet.LEAST} windows and more), lower is better; log-spectral distance (LSD), "
        "lower is better; precision, recall, density, coverage, higher is better. Compare FAD at "
        "the same n only."
    )
    columns: Columns = {
        "": "{name}",
        "n": "{n}",
        "FAD": lambda row: _interval(row["fad"]),
        "FAD infinity": lambda row: _interval(row["fad_infinity"]),
        "LSD dB": "{log_spectral_db:.1f}",
        "prec.": "{precision:.2f}",
        "recall": "{recall:.2f}",
        "dens.": "{density:.2f}",
        "cover.": "{coverage:.2f}",
    }
    return Table.of(title, columns, _named(result["sets"]))


def _named(rows: Result) -> list[Result]:
    return [{"name": name, **row} for name, row in rows.items()]


def _sounds(result: Result) -> Table:
    title = (
        "Means over sounds. Repetition: 1 is an exact loop. Joins: where changes at window borders "
        "rank among all, 0.50 where they do not stand out. Notes by basic-pitch; pitch gap: how "
        "far the use of the 12 pitch classes is from the training songs', 0 to 1."
    )
    real = next(iter(result["sounds"].values()))["pitch_classes"]
    columns: Columns = {
        "": "{name}",
        "LUFS": "{loudness_lufs:.1f}",
        "silent": "{silent:.1%}",
        "clipped": "{clipped:.2%}",
        "repetition": "{repetition:.2f}",
        "join flux": lambda row: f"{row['flux_rank']:.2f}" if "flux_rank" in row else "–",
        "join jump": lambda row: f"{row['jump_rank']:.2f}" if "jump_rank" in row else "–",
        "notes/s": "{notes_per_second:.1f}",
        "polyphony": "{polyphony:.1f}",
        "pitch gap": lambda row: f"{_pitch_gap(row['pitch_classes'], real):.2f}",
    }
    return Table.of(title, columns, _named(result["sounds"]))


def _labels(result: Result) -> Table:
    title = (
        "Label consistency: how often a classifier fitted on training songs' embeddings names the "
        "label (of real songs: their own; of samples: that they are conditioned on). Higher is "
        "better; chance is the greatest class's share."
    )
    names = list(result["sets"])
    rows = []
    for kind, of_kind in result["labels"].items():
        if of_kind:
            cells = [
                "–" if of_kind[n]["accuracy"] is None
                else f"{100 * of_kind[n]['accuracy']:.0f} % of {of_kind[n]['count']}" for n in names
            ]  # fmt: skip
            rows.append((kind, str(of_kind["classes"]), f"{100 * of_kind['chance']:.0f} %", *cells))
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
        value, low, high = (row[key][x] for x in ("value", "low", "high"))
        interval = None if low is None else (low, high)
        return Score(name, value, "lower", interval=interval)

    out = [
        score("FAD of samples", "fad"),
        *([score("FAD of samples at infinite n", "fad_infinity")] if row["fad_infinity"] else []),
        Score("log-spectral distance of samples, dB", row["log_spectral_db"], "lower"),
    ]
    for key in ("precision", "recall", "density", "coverage"):
        out.append(Score(f"{key} of samples", row[key], "higher"))
    for kind, of_kind in result["labels"].items():
        if of_kind and of_kind["samples"]["accuracy"] is not None:
            out.append(Score(f"{kind} named", of_kind["samples"]["accuracy"], "higher"))
    return out


SUITE = Suite(
    title="Generation",
    about=(
        "How close samples are to real songs. Fréchet audio distance (FAD) of embeddings compares "
        "the kind of music, up to 8 kHz; the log-spectral distance compares the level of each "
        "frequency band, up to half the sample rate. Held-out songs show the score of other real "
        "music, rebuilt ones the cost of the VQ-VAE alone."
    ),
    measure=measure,
    tables=tables,
    figures=figures,
    scores=scores,
    needs=("vqvae", "codes", "songs"),
    source=source,
)
