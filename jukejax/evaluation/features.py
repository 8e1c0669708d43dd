"""The suite `features`: what does a middle layer of the top prior know about songs?

A linear probe names genres from the layer's output, averaged over the tokens of a song's complete
windows (Castellon et al. 2021, jukemir). The prior gets the codes alone: labels are unknown, there
are no lyrics, and every window begins a song that is as long as a window, or the shortest that
timing has bins for.

OUT/features.npy has a row per song (songs, W) float32, OUT/features.ids.json the songs' ids in the
same order and the level and layer; OUT/features.parquet both, where pyarrow is installed.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jukejax import files
from jukejax.config import PriorConfig
from jukejax.errors import CheckpointError
from jukejax.evaluation.data import Song
from jukejax.evaluation.labels import sklearn
from jukejax.evaluation.pages.plots import png, subplots
from jukejax.evaluation.results import Figure, Score, Table
from jukejax.evaluation.subject import Lacking, Result, Subject, Suite
from jukejax.models.transformer import COLLECT_MEAN
from jukejax.parallel.distributed import together
from jukejax.sampling.inside import Reader, make_reader
from jukejax.text.labels import unknown_ids
from jukejax.tracks import absent

PART = 64  # songs between two saves
FOLDS = 5


def layer_of(config: PriorConfig) -> int:
    """The middle layer, counted from 1: 36 of the published 72."""
    return max(1, config.depth // 2)


def unconditioned(config: PriorConfig, windows: NDArray[Any]) -> dict[str, np.ndarray]:
    """What a prior reads of windows of codes (B, n_ctx) without labels, lyrics, tracks."""
    b = len(windows)
    batch = {"codes": windows.astype(np.int32)}
    if config.labels:
        shortest = int(config.labels.min_seconds * config.sample_rate)
        total = max(config.window_samples, shortest)
        batch |= {"total_length": np.full(b, total, np.int32), "offset": np.zeros(b, np.int32)}
        for name, ids in unknown_ids(config.labels).items():
            batch[name] = np.broadcast_to(ids, (b, *ids.shape))
    if config.lyrics:
        batch["lyrics"] = np.zeros((b, config.lyrics.tokens), np.int32)
    for track in config.tracks.tracks if config.tracks else ():
        batch[track.array] = np.stack([absent(track, config.n_ctx)] * b)
    return batch


def pooled(
    config: PriorConfig, read: Reader, songs: Sequence[NDArray[Any]], layer: int, batch: int
) -> NDArray[np.float32]:
    """Features (songs, W): a layer's output, the mean over the complete windows of each song.

    Args:
      read: a reader that keeps "mean".
      songs: codes (T,) of each.
      layer: counted from 1.
      batch: windows at once; they may be of several songs.
    """
    n = config.n_ctx
    cut = [codes[: len(codes) // n * n].reshape(-1, n) for codes in songs]
    owner = np.repeat(np.arange(len(songs)), [len(windows) for windows in cut])
    windows = np.concatenate(cut)
    sums = np.zeros((len(songs), config.width), np.float64)
    for i in range(0, len(windows), batch):
        part = windows[i : i + batch]
        padded = np.concatenate([part, np.repeat(part[:1], batch - len(part), axis=0)])
        means = np.asarray(read(unconditioned(config, padded))[layer - 1], np.float64)
        np.add.at(sums, owner[i : i + batch], means[: len(part)])
    return (sums / np.bincount(owner, minlength=len(songs))[:, None]).astype(np.float32)


def rows_of(subject: Subject, level: int, songs: list[Song]) -> NDArray[np.float32]:
    """The features (songs, W), exported; an interrupted run continues after its last save.

    Raises:
      CheckpointError: they are not finite.
    """
    prior = subject.load_prior(level)
    config = prior.config
    read = make_reader(config, prior.params, subject.mesh, COLLECT_MEAN)
    ids = [song.id for song in songs]
    source = [SUITE.sources(subject), ids, layer_of(config)]
    mark = hashlib.sha256(json.dumps(source).encode()).hexdigest()[:16]
    folder = subject.out / f".features_{mark}"

    def parts() -> Iterator[NDArray[np.float32]]:
        bar = tqdm(range(0, len(songs), PART), "features", unit=f"{PART} songs", disable=None)
        for first in bar:
            file = folder / f"{first:09d}.npy"
            if not file.exists():
                codes = [subject.codes.read(song)[level] for song in songs[first : first + PART]]
                rows = pooled(config, read, codes, layer_of(config), subject.batch)
                with files.atomic_path(file) as path:
                    np.save(path, rows)
            yield np.load(file)

    rows = np.concatenate(list(parts()))
    if not np.isfinite(rows).all():
        raise CheckpointError(
            f"The prior of level {level} gives features that are not finite; go back to an earlier "
            "checkpoint."
        )
    together("features")  # no process reads the parts any longer
    if jax.process_index() == 0:
        export(subject.out, rows, ids, level, layer_of(config))
        shutil.rmtree(folder)
    return rows


def export(out: Path, rows: NDArray[np.float32], ids: list[str], level: int, layer: int) -> None:
    """Writes the features of songs (songs, W) to `out`."""
    with files.atomic_path(out / "features.npy") as path:
        np.save(path, rows)
    files.write_json(out / "features.ids.json", {"level": level, "layer": layer, "songs": ids})
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return
    values = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.ravel()), rows.shape[1])
    with files.atomic_path(out / "features.parquet") as path:
        pyarrow.parquet.write_table(pyarrow.table({"song": ids, "features": values}), path)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927)."""
    z, p = 1.959964, hits / count
    middle = p + z * z / (2 * count)
    spread = z * math.sqrt(p * (1 - p) / count + (z / count) ** 2 / 4)
    scale = 1 + z * z / count
    return (middle - spread) / scale, (middle + spread) / scale


def probe(rows: NDArray[Any], genres: list[str], groups: list[str]) -> Result:
    """How well a linear classifier on features (songs, W) names genres it was not fitted on.

    Logistic regression on standardised features, cross-validated: songs of a group (versions,
    near-duplicates) are never on both sides. Genres of fewer than 2 groups are left out. The
    baseline names the commonest genre of the songs that it was fitted on.

    Raises:
      Lacking: there are not 2 genres of 2 groups each.
    """
    of_genre: dict[str, set[str]] = {}
    for genre, group in zip(genres, groups, strict=True):
        of_genre.setdefault(genre, set()).add(group)
    usable = {genre for genre, of in of_genre.items() if genre and len(of) >= 2}
    kept = [i for i, genre in enumerate(genres) if genre in usable]
    if len(usable) < 2:
        raise Lacking("A probe needs 2 genres of 2 songs each or more; the codes have fewer.")
    x = rows[kept]
    y: NDArray[Any] = np.array([genres[i] for i in kept])
    of = np.array([groups[i] for i in kept])
    folds = min(FOLDS, min(len(of_genre[genre]) for genre in usable))
    split = sklearn("model_selection").StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    linear, scaling, pipeline = (sklearn(m) for m in ("linear_model", "preprocessing", "pipeline"))
    named, guess = np.empty_like(y), np.empty_like(y)
    for train, test in split.split(x, y, of):
        model = pipeline.make_pipeline(
            scaling.StandardScaler(), linear.LogisticRegression(max_iter=2000)
        )
        named[test] = model.fit(x[train], y[train]).predict(x[test])
        guess[test] = Counter(y[train].tolist()).most_common(1)[0][0]
    listed = sorted(usable)
    hits = int((named == y).sum())
    return {
        "songs": len(y), "folds": folds, "genres": listed,
        "accuracy": hits / len(y), "interval": wilson(hits, len(y)),
        "majority": float((guess == y).mean()),
        "confusion": [[int(((y == a) & (named == b)).sum()) for b in listed] for a in listed],
        "right": {str(i): float(a) for i, a in zip(kept, named == y, strict=True)},
    }  # fmt: skip


def measure(subject: Subject) -> Result:
    """Features of all songs that fill a window, and the probe on their first genres."""
    sklearn("linear_model")  # its absence is an error before minutes of reading
    level = subject.prior_levels[0]
    config = subject.prior_config(level)
    if config.upper:
        raise Lacking(
            f"The highest prior of the model, level {level}, is an upsampler; features are those "
            "of a top prior."
        )
    everything = subject.codes.listed()
    songs = [song for song in everything if song.n_samples >= config.window_samples]
    if not songs:
        raise Lacking(f"No song of {subject.codes} fills a window of the prior.")
    rows = rows_of(subject, level, songs)
    genres = [song.genres[0] if song.genres else "" for song in songs]
    probed = probe(rows, genres, [song.group or song.id for song in songs])
    probed["right"] = {songs[int(i)].id: right for i, right in probed["right"].items()}
    return {
        "level": level, "layer": layer_of(config), "depth": config.depth, "width": rows.shape[1],
        "exported": len(songs), "short": len(everything) - len(songs), "probe": probed,
    }  # fmt: skip


def tables(result: Result) -> list[Table]:
    p = result["probe"]
    title = (
        f"Features of {result['exported']} songs ({result['short']} too short): the output of "
        f"layer {result['layer']} of {result['depth']}, {result['width']} numbers a song, in "
        f"features.npy. A linear probe names the genre of {p['songs']} songs, {p['folds']}-fold "
        "cross-validated by song; higher is better."
    )
    low, high = p["interval"]
    rows = [
        ("linear probe", f"{100 * p['accuracy']:.1f} %", f"{100 * low:.1f} to {100 * high:.1f} %"),
        ("commonest genre", f"{100 * p['majority']:.1f} %", ""),
    ]
    return [Table(title, ("classifier", "accuracy", "95 % interval"), rows)]


def figures(result: Result) -> list[Figure]:
    p = result["probe"]
    figure, axes = subplots(1, 1, width=6, height=4.5)
    axis, places = axes[0, 0], range(len(p["genres"]))
    axis.imshow(p["confusion"], cmap="Blues")
    for i in places:
        for j in places:
            axis.text(j, i, p["confusion"][i][j], ha="center", va="center", fontsize=8)
    axis.set_xticks(places, p["genres"], rotation=30, ha="right")
    axis.set_yticks(places, p["genres"])
    axis.set(xlabel="named by the probe", ylabel="genre of the song")
    caption = "Songs by their genre and the one that the probe names; the diagonal is right."
    return [Figure("Genres named from features", caption, png(figure))]


def scores(result: Result) -> list[Score]:
    p = result["probe"]
    by_song = {song: (right, 1.0) for song, right in p["right"].items()}
    return [Score("linear probe: accuracy", p["accuracy"], "higher", by_song)]


SUITE = Suite(
    title="Features",
    about=(
        "Whether the prior's middle layer is a useful representation of music: how well a linear "
        "classifier on it names genres."
    ),
    measure=measure,
    tables=tables,
    needs=("vqvae", "codes"),
    figures=figures,
    scores=scores,
    source=lambda subject: {"priors": subject.prior_marks(subject.prior_levels[:1])},
)
