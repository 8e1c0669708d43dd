"""The suite `alignment`: does the top prior follow the lyrics, and which attention head shows it?

Monotonicity is that of `sampling.alignment`; onset errors are against words with known times. F
frames of a song, C characters of its lyrics.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from jukejax.config import PriorConfig
from jukejax.evaluation.data import Song
from jukejax.evaluation.pages.player import find_words
from jukejax.evaluation.pages.plots import png, subplots
from jukejax.evaluation.results import Columns, Figure, Score, Table
from jukejax.evaluation.subject import Lacking, Result, Subject, Suite, evenly
from jukejax.models.transformer import COLLECT_LYRICS
from jukejax.sampling import alignment
from jukejax.sampling.alignment import Found, Head
from jukejax.sampling.conditions import conditions_of
from jukejax.sampling.inside import Reader, make_reader
from jukejax.sampling.plan import plan_windows
from jukejax.sampling.words import of_text, sung

SONGS = 64  # held-out songs that are aligned, at most, evenly spread
HOP = 0.5  # distance of windows, as a part of a window
SHOWN = 160  # frames and characters of the picture, at most


def lyric_level(subject: Subject) -> int:
    """The highest level whose prior has layers that attend to lyrics; Lacking without one."""
    for level in subject.prior_levels:
        config = subject.prior_config(level)
        if config.lyrics and alignment.lyric_layers(config):
            return level
    raise Lacking("No prior of the model attends to lyrics, so there is nothing to align.")


def sung_songs(subject: Subject) -> list[Song]:
    """Held-out songs with lyrics, at most `SONGS`; Lacking where there are none."""
    songs = [s for s in subject.codes.split("test") if s.lyrics.strip()]
    if not songs:
        raise Lacking(f"No held-out song of {subject.codes} has lyrics to align.")
    return evenly(songs, SONGS)


# --- one song -------------------------------------------------------------------------------------


class Aligner:
    """One prior, whose heads are read on prepared songs."""

    def __init__(self, subject: Subject, level: int) -> None:
        prior = subject.load_prior(level)
        self.subject, self.config = subject, prior.config
        self.read: Reader = make_reader(prior.config, prior.params, subject.mesh, COLLECT_LYRICS)
        self.names = subject.label_names(prior.config)

    def align(self, song: Song, heads: list[Head]) -> dict[Head, Found]:
        """Heads on a song, with its labels and lyrics as in training."""
        config = self.config
        codes = self.subject.codes.read(song)[config.level]
        labels: dict[str, np.ndarray] = {}
        if self.names and config.labels:
            ids = self.names.song_ids(config.labels, song)
            labels = {name: array[None] for name, array in ids.items()}
        windows = plan_windows(len(codes), config.n_ctx, HOP, 1)
        conditions = conditions_of(config, labels, [song.lyrics], [song.tracks], 0, song.n_samples)
        target = sung(conditions, codes, windows)
        return alignment.align(config, self.read, target, heads, self.subject.batch)

    def weights(self, song: Song, head: Found) -> np.ndarray:
        """Attention (F, C) to the characters of the lyrics as written."""
        assert self.config.lyrics is not None
        return of_text(head.weights, song.lyrics, self.config.lyrics.alphabet)

    def measure(self, song: Song) -> dict[str, Any]:
        """Figures of every head on one song, and of the evenly spread guess."""
        heads = self.align(song, alignment.lyric_heads(self.config))
        return {
            "heads": [
                {
                    "monotonicity": head.monotonicity,
                    "windows": head.windows,
                    "errors": word_errors(self.config, song, self.weights(song, head)),
                }
                for head in heads.values()
            ],
            "linear": linear_errors(song),
        }


def word_errors(config: PriorConfig, song: Song, weights: np.ndarray) -> list[float]:
    """Distance in s of the onset read from attention (F, C), for each word with a known time."""
    firsts, starts = _timed(song)
    if not len(firsts):
        return []
    seconds = alignment.frame_seconds(config, len(weights))
    end = song.n_samples / song.sample_rate
    read = alignment.onsets(alignment.path(weights), seconds, end, firsts)
    errors: list[float] = np.abs(read - starts).tolist()
    return errors


def linear_errors(song: Song) -> list[float]:
    """The same for a guess: characters pass evenly from the song's beginning to its end."""
    firsts, starts = _timed(song)
    end = song.n_samples / song.sample_rate
    errors: list[float] = np.abs(firsts / max(len(song.lyrics), 1) * end - starts).tolist()
    return errors


def _timed(song: Song) -> tuple[np.ndarray, np.ndarray]:
    """First characters in the lyrics, and onsets in s, of words with known times."""
    lyrics, timed = find_words(song.lyrics, song.words)
    if lyrics != song.lyrics:  # none of the words is in the lyrics
        timed = []
    return np.array([word[3] for word in timed], int), np.array([word[1] for word in timed])


# --- the suite ------------------------------------------------------------------------------------


def _percentiles(errors_by_song: list[list[float]]) -> dict[str, Any]:
    """Median and 90th percentile over all words; None where no time is known."""
    errors = [error for errors in errors_by_song for error in errors]
    if not errors:
        return {"median_s": None, "p90_s": None}
    return {"median_s": float(np.median(errors)), "p90_s": float(np.percentile(errors, 90))}


def measure(subject: Subject) -> Result:
    """Every head that attends to lyrics, on held-out songs."""
    level = lyric_level(subject)
    songs = sung_songs(subject)
    aligner = Aligner(subject, level)
    measured = [subject.once(song.id, functools.partial(aligner.measure, song)) for song in songs]
    rows: list[dict[str, Any]] = []
    for i, head in enumerate(alignment.lyric_heads(aligner.config)):
        own = [song["heads"][i] for song in measured]
        windows = sum(x["windows"] for x in own)
        score = sum(x["monotonicity"] * x["windows"] for x in own) / max(windows, 1)
        errors = _percentiles([x["errors"] for x in own])
        rows.append({**head._asdict(), "monotonicity": score, **errors})
    chosen = max(range(len(rows)), key=lambda i: rows[i]["monotonicity"])
    timed = rows[chosen]["median_s"] is not None
    by_song = {
        song.id: [float(np.median(x["heads"][chosen]["errors"])), len(x["linear"])]
        for song, x in zip(songs, measured, strict=True)
        if x["linear"]
    }
    return {
        "level": level,
        "songs": len(songs),
        "words": sum(len(x["linear"]) for x in measured),
        "heads": rows,
        "chosen": chosen,
        "best": min(range(len(rows)), key=lambda i: rows[i]["median_s"]) if timed else None,
        "linear": _percentiles([x["linear"] for x in measured]),
        "by_song": by_song,
        "picture": _picture(aligner, songs[0], rows[chosen]),
    }


def _picture(aligner: Aligner, song: Song, row: dict[str, Any]) -> dict[str, Any]:
    """The chosen head on a song, reduced; each frame in 255ths of its largest weight."""
    head = Head(row["layer"], row["head"])
    weights = aligner.weights(song, aligner.align(song, [head])[head])
    firsts, starts = _timed(song)
    scale = [math.ceil(size / SHOWN) for size in weights.shape]
    small = np.add.reduceat(weights, range(0, len(weights), scale[0]), axis=0)
    small = np.add.reduceat(small, range(0, weights.shape[1], scale[1]), axis=1)
    small = small / np.maximum(small.max(axis=1, keepdims=True), 1e-12)
    return {
        "song": song.id,
        "seconds": song.n_samples / song.sample_rate,
        "characters": weights.shape[1],
        "image": [row.tobytes().hex() for row in (255 * small).round().astype(np.uint8)],
        "words": [firsts.tolist(), starts.tolist()],
    }


# --- what is shown --------------------------------------------------------------------------------


def tables(result: Result) -> list[Table]:
    title = (
        f"Lyrics and music of {result['songs']} held-out songs, level {result['level']}: how "
        "monotonic each head is (expected Kendall's tau within a window: 1 moves forward all the "
        f"time, 0 does not move), and its error in s at the onsets of {result['words']} words "
        "whose times are known; lower is better. * is chosen by monotonicity, + is best by words."
    )

    def seconds(key: str) -> Any:
        return lambda row: "–" if row[key] is None else f"{row[key]:.2f}"

    columns: Columns = {
        "head": "{name}",
        "monotonicity": lambda row: f"{row['monotonicity']:+.4f}" if "layer" in row else "",
        "median": seconds("median_s"),
        "90 %": seconds("p90_s"),
    }
    rows = []
    for i, row in enumerate(result["heads"]):
        mark = "*" * (i == result["chosen"]) + "+" * (i == result["best"])
        rows.append({**row, "name": f"layer {row['layer']} head {row['head']} {mark}"})
    rows.append({**result["linear"], "name": "evenly spread"})
    return [Table.of(title, columns, rows)]


def figures(result: Result) -> list[Figure]:
    picture, row = result["picture"], result["heads"][result["chosen"]]
    figure, axes = subplots(1, 1)
    axis = axes[0, 0]
    extent = (0, picture["seconds"], picture["characters"], 0)
    image = np.array([list(bytes.fromhex(row)) for row in picture["image"]]).T
    axis.imshow(image, aspect="auto", cmap="magma", extent=extent, interpolation="nearest")
    characters, seconds = picture["words"]
    if characters:
        axis.plot(seconds, characters, ".", color="cyan", markersize=3, label="known onsets")
        axis.legend(loc="upper right")
    axis.set(xlabel="time in s", ylabel="character of the lyrics")
    caption = (
        f"Attention of layer {row['layer']}, head {row['head']} to the lyrics of "
        f"{picture['song']}, each time scaled to its largest weight. The band falls because the "
        "window of lyrics that the prior is conditioned on moves with the song; a prior that "
        "follows the words draws a narrow line in it, through the known onsets."
    )
    return [Figure("Attention to the lyrics", caption, png(figure))]


def scores(result: Result) -> list[Score]:
    row = result["heads"][result["chosen"]]
    out = [Score("most monotone head: monotonicity", row["monotonicity"], "higher")]
    if row["median_s"] is not None:
        by_song = {song: (value, weight) for song, (value, weight) in result["by_song"].items()}
        name = "most monotone head: median onset error in s"
        out.append(Score(name, row["median_s"], "lower", by_song))
    return out


SUITE = Suite(
    title="Alignment",
    about=(
        "Whether the top prior's attention moves through the lyrics as they are sung: its "
        "monotonicity, and its errors at words whose times are known."
    ),
    measure=measure,
    tables=tables,
    needs=("vqvae", "codes", "labels"),
    figures=figures,
    scores=scores,
    source=lambda subject: {"priors": subject.prior_marks([lyric_level(subject)])},
)
