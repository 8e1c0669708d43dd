"""The suite `memorisation`: do samples copy training songs more than held-out songs would?

Windows of samples and of held-out songs are looked up in an index of all training codes of the top
level (`code_index`): the longest run of codes that they share with a song, and the part of their
codes that agrees with its nearest stretch.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jukejax.errors import CheckpointError, DataError
from jukejax.evaluation import sample_sets
from jukejax.evaluation.code_index import CodeIndex, nearest
from jukejax.evaluation.data import Song
from jukejax.evaluation.pages.plots import png, subplots
from jukejax.evaluation.results import Columns, Figure, Score, Table
from jukejax.evaluation.subject import Lacking, Result, Subject, Suite, evenly
from jukejax.parallel.distributed import together
from jukejax.sampling.sample_dir import SampleDir

SECONDS = 4.0  # of a window; the length of the shortest sample, where that is less
WINDOWS = 256  # of samples and of held-out songs each, at most, evenly spread
SHOWN = 8  # windows that are listed with their nearest training windows
RESAMPLES = 2000
FEW = 8  # windows: fewer have no interval


def sample_codes(subject: Subject) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and top-level codes (T,) of each sample.

    Raises:
      Lacking: no samples were given, and none can be made.
      CheckpointError: one holds codes of another VQ-VAE, or no finished top level.
      ConfigError: one is no sample directory.
    """
    top = subject.levels[-1]
    for path in sample_sets.sample_dirs(subject):
        sample = SampleDir.open(path)
        entry = next((x for x in sample.record["levels"] if x["level"] == top), None)
        if entry is None:
            raise CheckpointError(f"{path} has no codes of level {top}; sample that level there.")
        if f"VQ-VAE {subject.vqvae.fingerprint}," not in entry["weights"]:
            raise CheckpointError(
                f"{path} was made with {entry['weights']}, but {subject.directory.path} names "
                f"VQ-VAE {subject.vqvae.fingerprint}; give samples of this model."
            )
        codes, done = sample.load(top, (len(sample.record["items"]), entry["tokens"]))
        if done.min() < codes.shape[1]:
            raise CheckpointError(f"{path} is not finished; sample there again to continue.")
        for item, row in enumerate(codes):
            yield f"{path.name} item {item}", row


def cut(songs: Iterable[tuple[str, NDArray[Any]]], size: int) -> list[tuple[str, int, Any]]:
    """Windows (name, first code, codes) of `size` that do not overlap, at most `WINDOWS`."""
    windows = [
        (name, start, codes[start : start + size])
        for name, codes in songs
        for start in range(0, len(codes) - size + 1, size)
    ]
    return evenly(windows, WINDOWS)


def look(index: CodeIndex, windows: list[tuple[str, int, Any]], rate: float, what: str) -> Result:
    """Longest run and nearest stretch of each window, and the time taken; `rate` in codes/s."""
    rows, began = [], time.perf_counter()
    for name, start, codes in tqdm(windows, what, unit="window", disable=None):
        runs = index.longest(codes)
        most = int(runs.length.argmax())
        near = nearest(index, codes, runs)
        run = int(runs.length[most])
        rows.append({
            "name": name, "at_s": start / rate, "run": run,
            "run_song": index.songs[runs.song[most]] if run else "",
            "run_at_s": float(runs.place[most]) / rate,
            "share": near.share if near else 0.0,
            "song": index.songs[near.song] if near else "",
            "song_at_s": near.start / rate if near else 0.0,
        })  # fmt: skip
    seconds = time.perf_counter() - began
    return {"windows": rows, "lookup_s": seconds / max(sum(len(w[2]) for w in windows), 1)}


def likelier(a: NDArray[Any], b: NDArray[Any]) -> tuple[float, tuple[float, float] | None]:
    """P(one of a > one of b), ties half, and its 95 % interval under resampling both.

    None for fewer than `FEW` of either: resampling would make it too narrow.
    """

    def probability(x: NDArray[Any], y: NDArray[Any]) -> float:
        ordered = np.sort(y)
        below = np.searchsorted(ordered, x, side="left") + np.searchsorted(ordered, x, side="right")
        return float(below.mean() / (2 * len(y)))

    if min(len(a), len(b)) < FEW:
        return probability(a, b), None
    rng = np.random.default_rng(0)
    drawn = [probability(rng.choice(a, len(a)), rng.choice(b, len(b))) for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return probability(a, b), (float(low), float(high))


def measure(subject: Subject) -> Result:
    """Windows of samples and of held-out songs, looked up in all training songs."""
    level = subject.levels[-1]
    rate = subject.vqvae.config.sample_rate / subject.vqvae.config.hops[level]
    samples = list(sample_codes(subject))
    held_out = subject.codes.split("test")

    def read(song: Song) -> NDArray[Any]:
        return subject.codes.read(song)[level]

    training = subject.codes.split("train")
    folder = subject.out / "memorisation_index"
    of = f"level {level} of VQ-VAE {subject.vqvae.fingerprint}"
    index = CodeIndex(folder, of)
    other = set(index.songs).difference(song.id for song in training)
    if other:
        raise DataError(
            f"{folder} holds {len(other)} songs that are no training songs of {subject.codes} "
            f"({min(other)} ...); remove it, or choose another --out."
        )
    began = time.perf_counter()
    if jax.process_index() == 0:
        index.add((song.id, functools.partial(read, song)) for song in training)
    together("the index is built")
    index = CodeIndex(folder, of)
    built = time.perf_counter() - began
    size = min(round(SECONDS * rate), min(len(codes) for _, codes in samples))
    made = look(index, cut(samples, size), rate, "samples")
    real = cut(((song.id, read(song)) for song in held_out), size)
    if not real:
        raise Lacking(f"No held-out song of {subject.codes} is as long as {size / rate:.2f} s.")
    unheard = look(index, real, rate, "held-out songs")
    result: Result = {
        "level": level, "window": size, "window_s": size / rate,
        "samples": made["windows"], "held_out": unheard["windows"],
        "index": {
            "songs": len(index.songs), "codes": index.codes, "bytes": index.bytes,
            "build_s": built, "lookup_s": unheard["lookup_s"],
        },
    }  # fmt: skip
    for kind in ("run", "share"):
        a, b = (np.array([w[kind] for w in result[x]], float) for x in ("samples", "held_out"))
        value, interval = likelier(a, b)
        result[f"{kind}_likelier"] = {"value": value, "interval": interval}
    return result


def tables(result: Result) -> list[Table]:
    def probability(kind: str) -> str:
        value, interval = (result[f"{kind}_likelier"][x] for x in ("value", "interval"))
        between = f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "too few windows"
        return f"{value:.2f} ({between})"

    index = result["index"]
    title = (
        f"Level {result['level']}, windows of {result['window']} codes ({result['window_s']:.2f} s)"
        f" against {index['songs']} training songs: the longest run of codes that a window shares "
        "with one, and the part of its codes that agrees with the nearest stretch of one. Held-out "
        "songs cannot be copies. A sample's run is longer than a held-out window's with "
        f"probability {probability('run')}, its agreement higher with {probability('share')}: near "
        "0.5 nothing is copied, 1 is copying."
    )
    columns: Columns = {
        "windows of": "{name}",
        "n": lambda row: str(len(row["runs"])),
        "run, median": lambda row: f"{np.median(row['runs']):.0f}",
        "longest": lambda row: str(max(row["runs"])),
        "agreement, median": lambda row: f"{100 * np.median(row['shares']):.1f} %",
        "highest": lambda row: f"{100 * max(row['shares']):.1f} %",
    }
    rows = [
        {"name": name, "runs": [w["run"] for w in windows], "shares": [w["share"] for w in windows]}
        for name, windows in (
            ("samples", result["samples"]),
            ("held-out songs", result["held_out"]),
        )
    ]
    cost = (
        f"The index: {index['bytes'] / max(index['songs'], 1):,.0f} bytes a song, "
        f"{index['bytes'] / max(index['codes'], 1):.2f} a code; built in {index['build_s']:.2f} s; "
        f"{1e6 * index['lookup_s']:.0f} microseconds to look a code up."
    )
    nearest_columns: Columns = {
        "sample": "{name} at {at_s:.1f} s",
        "run": "{run}",
        "shared with": "{run_song} at {run_at_s:.1f} s",
        "agreement": "{share:.1%}",
        "nearest stretch": "{song} at {song_at_s:.1f} s",
    }
    most = sorted(result["samples"], key=lambda w: (-w["run"], -w["share"]))[:SHOWN]
    return [
        Table.of(title, columns, rows),
        Table.of(f"Samples with the longest runs. {cost}", nearest_columns, most),
    ]


def figures(result: Result) -> list[Figure]:
    figure, axes = subplots(1, 2)
    names = (("run", "longest shared run in codes"), ("share", "agreement with nearest stretch"))
    for axis, (kind, label) in zip(axes[0], names, strict=True):
        for name, where in (("samples", "samples"), ("held-out songs", "held_out")):
            values = np.sort([w[kind] for w in result[where]])
            part = np.arange(1, len(values) + 1) / len(values)
            axis.plot(values, part, ".-", drawstyle="steps-post", label=name)
        axis.set(xlabel=label, ylabel="part of windows up to it")
        axis.legend()
    caption = (
        "How much windows share with training songs. Where the line of the samples is right of "
        "that of held-out songs, the model copies."
    )
    return [Figure("Making or copying", caption, png(figure))]


def scores(result: Result) -> list[Score]:
    value, interval = (result["run_likelier"][x] for x in ("value", "interval"))
    name = "P(a sample's run is longer than a held-out song's)"
    return [Score(name, value, "lower", interval=tuple(interval) if interval else None)]


SUITE = Suite(
    title="Memorisation",
    about=(
        "Whether samples repeat training songs: the longest runs of codes they share with them, "
        "compared with those of songs that training never saw."
    ),
    measure=measure,
    tables=tables,
    needs=("vqvae", "codes"),
    figures=figures,
    scores=scores,
    source=sample_sets.source,
)
