"""The suite `likelihood`: how many bits do the priors need for held-out tokens?

Beside each prior stand models that count the training codes (`counting`), scored on the same
tokens, and what each condition is worth to the prior (`conditions`).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from jukejax.config import PriorConfig
from jukejax.evaluation import bootstrap, conditions, counting, scoring
from jukejax.evaluation.data import Codes, Song
from jukejax.evaluation.pages import plots
from jukejax.evaluation.results import Columns, Figure, Score, Table, spread
from jukejax.evaluation.subject import Lacking, Result, Subject, Suite

ORDERS = (3, 5)  # of Kneser-Ney n-grams
NGRAM_TOKENS = 2**23  # tokens that they count, a level
KEPT_BATCHES = 64  # an interrupted run repeats at most this many
CONDITION_WINDOWS = 128  # of a split, evenly over it, whose conditions are replaced
LENDERS = 16  # training songs that lend conditions where the held-out ones are too few
MOST_ROWS = 20  # artists or genres of a table
SPLITS = {
    "test": "held-out songs",
    "train": "training songs (conditions are worth more here: the prior has seen them)",
}
BASELINES = {"kn5": "5-gram", "kn3": "3-gram", "bigram": "bigram", "unigram": "unigram"}

BitsBySong = dict[str, tuple[float, float]]  # id -> (bits per token, tokens)


# --- counting models ------------------------------------------------------------------------------


class Counted:
    """Counts of the training codes of several levels, from one pass over the songs."""

    def __init__(
        self, source: Codes, levels: Iterable[int], config: PriorConfig, most: int = NGRAM_TOKENS
    ) -> None:
        """Counts the training songs; n-grams those of songs drawn up to about `most` tokens.

        Args:
          config: of a prior of these codes.
        """
        songs = source.split("train")
        self.codes, self.groups, chosen = config.codes, config.groups, {}
        for level in levels:
            lengths = [source.length(song, level) for song in songs]
            order = np.random.default_rng(0).permutation(len(songs))
            before = np.cumsum(np.take(lengths, order)) - np.take(lengths, order)
            chosen[level] = {songs[int(i)].id for i in order[before < most]}
        empty = counting.empty_counts
        self.counts = {level: [empty(self.codes) for _ in range(self.groups)] for level in chosen}
        self.sequences: dict[int, list[Any]] = {level: [] for level in chosen}
        for song in tqdm(songs, "counting training codes", unit="song", disable=None):
            read = source.read(song)
            for level in chosen:
                for place, counts in enumerate(self.counts[level]):
                    counting.count(counts, read[level], place, self.groups)
                if song.id in chosen[level]:
                    self.sequences[level].append(read[level])

    def tokens(self, level: int) -> Any:
        """How often each code (K,) occurs, at any place of its group."""
        return sum(counts.tokens for counts in self.counts[level])

    def bits(self, level: int) -> scoring.CountBits:
        """The counting models of a level, fitted; windows begin with a group."""
        most = int(63 / math.log2(self.codes))  # longest n-gram that fits into a number
        orders = [order for order in ORDERS if order <= most]
        models = [
            (
                counting.fit(counts),
                counting.KneserNey(
                    self.sequences[level], self.codes, max(orders), place, self.groups
                ),
            )
            for place, counts in enumerate(self.counts[level])
        ]

        def bits(codes: Any) -> dict[str, Any]:
            found: dict[str, Any] = {}
            for place, (model, ngrams) in enumerate(models):
                by_order = {f"kn{n}": b for n, b in ngrams.bits(codes, orders).items()}
                unigram, bigram = model.unigram_bits(codes), model.bigram_bits(codes)
                for name, b in ({"unigram": unigram, "bigram": bigram} | by_order).items():
                    all_places = found.setdefault(name, np.empty(codes.shape))
                    all_places[:, place :: self.groups] = b[:, place :: self.groups]
            return found

        return bits


# --- what conditions are worth --------------------------------------------------------------------


def chosen_windows(subject: Subject, config: PriorConfig, split: str) -> conditions.Windows:
    """At most `CONDITION_WINDOWS` windows, evenly over a split, with "song" and "place"."""
    names = subject.label_names(config)
    batches = subject.codes.windows(config, names, split, subject.batch, CONDITION_WINDOWS)
    return _stack(_rows(batches))


def lender_windows(subject: Subject, config: PriorConfig) -> conditions.Windows | None:
    """The first window of some training songs, sung ones where the prior reads lyrics.

    None where no such song fills a window.
    """
    songs, seen = subject.codes.listed(), set[int]()
    sung = config.lyrics and any(song.lyrics for song in subject.codes.split("train"))

    def is_new(row: dict[str, Any]) -> bool:
        song = int(row["song"])
        new = song not in seen and bool(songs[song].lyrics or not sung)
        seen.update([song] if new else [])
        return new

    names = subject.label_names(config)
    rows = _rows(subject.codes.windows(config, names, "train", subject.batch))
    lenders = list(itertools.islice(filter(is_new, rows), LENDERS))
    return _stack(lenders) if lenders else None


def _rows(batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The valid rows of batches one by one, without "valid"."""
    for batch in batches:
        for row in np.flatnonzero(batch.pop("valid")):
            yield {name: array[row] for name, array in batch.items()}


def _stack(rows: Iterable[dict[str, Any]]) -> conditions.Windows:
    listed = list(rows)
    return {name: np.stack([row[name] for row in listed]) for name in listed[0]}


def worth(
    subject: Subject, config: PriorConfig, scorer: scoring.Scorer, upper_unigram: Any, split: str
) -> list[dict[str, Any]]:
    """What each condition is worth: bits with it replaced, and of the same windows unchanged."""
    windows = chosen_windows(subject, config, split)
    count = len(windows["codes"])
    few = len(np.unique(windows["song"])) < 2
    if config.lyrics and not few:
        few = len(np.unique(windows["song"][(windows["lyrics"] != 0).any(1)])) < 2
    lenders = lender_windows(subject, config) if few else None
    if lenders:
        windows = {name: np.concatenate([windows[name], lenders[name]]) for name in windows}
    rows = conditions.differences(subject, config, scorer, split, windows, count, upper_unigram)
    return [row | {"lent_by_training_songs": lenders is not None} for row in rows]


# --- the suite ------------------------------------------------------------------------------------


def score_test_split(
    subject: Subject, config: PriorConfig, scorer: scoring.Scorer, models: scoring.CountBits
) -> dict[str, Any]:
    """`scoring.sums` of all held-out windows."""
    songs = subject.codes.split("test")
    windows = sum(subject.codes.length(song, config.level) // config.n_ctx for song in songs)
    if not windows:
        raise Lacking(
            f"No held-out song fills a window of the prior of level {config.level} "
            f"({config.window_samples / config.sample_rate:.1f} s)."
        )
    count = -(-windows // subject.batch)
    batches = subject.codes.windows(config, subject.label_names(config), "test", subject.batch)
    bar = tqdm(batches, f"likelihood of level {config.level}", count, unit="batch", disable=None)
    progress = iter(bar)
    total: dict[str, Any] = {"windows": 0, "models": {}}
    for number in range(-(-count // KEPT_BATCHES)):
        part = list(itertools.islice(progress, KEPT_BATCHES))
        compute = functools.partial(scoring.sums, scorer, models, part)
        sums = subject.once(f"level {config.level}, part {number}", compute)
        total = scoring.add(total, sums)
    return total


def of_level(subject: Subject, level: int, counted: Counted) -> dict[str, Any]:
    """All figures of one prior."""
    prior = subject.load_prior(level)
    config = prior.config
    scorer = scoring.make_scorer(config, prior.params, subject.mesh)
    total = score_test_split(subject, config, scorer, counted.bits(level))
    upper = counting.unigram(counted.tokens(level + 1)) if config.upper else None
    models, listed = total["models"], subject.codes.listed()
    by_song = {listed[int(i)]: (b / n, n) for i, (b, n) in models["prior"]["songs"].items()}
    songs, bits = list(by_song), {song.id: pair for song, pair in by_song.items()}
    tokens = int(sum(n for _, n in bits.values()))
    held_out = sum(subject.codes.length(song, level) for song in subject.codes.split("test"))
    mean = scoring.mean(models["prior"]["songs"])
    return {
        "level": level,
        "step": prior.step,
        "bits_per_token": mean,
        "interval": bootstrap.interval(bits),
        "bits_per_second": mean * config.sample_rate / config.hop,
        "uniform_bits_per_token": math.log2(config.codes),
        **{
            f"{name}_bits_per_token": scoring.mean(sums["songs"])
            for name, sums in models.items()
            if name != "prior"
        },
        "of_5gram": of_5gram(models),
        "counted_tokens": int(counted.tokens(level).sum()),
        "ngram_tokens": sum(map(len, counted.sequences[level])),
        "tokens": tokens,
        "windows": total["windows"],
        "songs": len(bits),
        "covered": tokens / held_out,
        "window_seconds": config.window_samples / config.sample_rate,
        "by_song": bits,
        "by_artist": _grouped(bits, songs, lambda song: [song.artist or "(none)"]),
        "by_genre": _grouped(bits, songs, lambda song: song.genres or ["(none)"]),
        "by_position": {
            name: scoring.curve(sums["positions"], total["windows"])
            for name, sums in models.items()
        },
        "conditions": [
            row for split in SPLITS for row in worth(subject, config, scorer, upper, split)
        ],
    }


def of_5gram(models: dict[str, Any]) -> dict[str, Any] | None:
    """The prior's bits over the 5-gram's of the same tokens, with interval; None without one.

    Args:
      models: "models" of `scoring.sums`.
    """
    if "kn5" not in models:
        return None
    sums = {song: bits for song, (bits, _) in models["kn5"]["songs"].items()}
    ratios = {s: (bits / sums[s], sums[s]) for s, (bits, _) in models["prior"]["songs"].items()}
    total = sum(bits for bits, _ in models["prior"]["songs"].values())
    return {"ratio": total / sum(sums.values()), "interval": bootstrap.interval(ratios)}


def _fewer(of: dict[str, Any] | None) -> str:
    """How many bits fewer than the 5-gram's, of `of_5gram`."""
    if of is None:
        return "–"
    ends = of["interval"] and sorted(100 * (1 - x) for x in of["interval"])
    return f"{100 * (1 - of['ratio']):.1f} % {spread(ends, 1)}"


def _grouped(
    bits: BitsBySong, songs: Sequence[Song], names: Callable[[Song], Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """Figures of the songs of each name (an artist's, a genre's), most tokens first."""
    groups: dict[str, BitsBySong] = {}
    for song in songs:
        for name in names(song):
            groups.setdefault(name, {})[song.id] = bits[song.id]
    rows: dict[str, dict[str, Any]] = {}
    for name, group in groups.items():
        tokens = sum(n for _, n in group.values())
        rows[name] = {
            "bits_per_token": sum(b * n for b, n in group.values()) / tokens,
            "interval": bootstrap.interval(group),
            "songs": len(group),
            "tokens": int(tokens),
        }
    return dict(sorted(rows.items(), key=lambda item: -item[1]["tokens"]))


def measure(subject: Subject) -> Result:
    """Figures of every prior that the model directory names, top level first.

    "covered" is the part of the held-out tokens that is scored: those in whole windows.
    """
    levels = subject.prior_levels
    configs = {level: subject.prior_config(level) for level in levels}
    subject.codes.split("test")  # an error of it comes before minutes of counting
    needed = {level + 1 for level in levels if configs[level].upper} | set(levels)
    counted = Counted(subject.codes, sorted(needed), configs[levels[0]])
    return {"levels": [of_level(subject, level, counted) for level in levels]}


# --- what is shown --------------------------------------------------------------------------------


def tables(result: Result) -> list[Table]:
    levels = result["levels"]
    shown = {
        name: label
        for name, label in BASELINES.items()
        if all(f"{name}_bits_per_token" in row for row in levels)
    }
    columns: Columns = {
        "level": "{level}",
        "prior": "{bits_per_token:.3f}",
        "95 %": lambda row: spread(row["interval"]),
        **{label: f"{{{name}_bits_per_token:.3f}}" for name, label in shown.items()},
        "fewer than 5-gram": lambda row: _fewer(row["of_5gram"]),
        "uniform": "{uniform_bits_per_token:.3f}",
        "bits/s": "{bits_per_second:.0f}",
        "tokens": "{tokens}",
        "songs": "{songs}",
        "of test": "{covered:.0%}",
    }
    title = (
        "Bits per held-out token (95 % interval: bootstrap over songs) and per second of sound; "
        "lower is better."
    )
    bits = Table.of(title, columns, levels)
    worth = [conditions.worth_table(levels, split, where) for split, where in SPLITS.items()]
    return [bits, *worth, *(_groups(levels, kind) for kind in ("artist", "genre"))]


def _groups(levels: list[dict[str, Any]], kind: str) -> Table:
    rows = []
    for name in list(levels[0][f"by_{kind}"])[:MOST_ROWS]:
        groups = [row[f"by_{kind}"].get(name) for row in levels]
        cells = [f"{group['bits_per_token']:.3f}" if group else "–" for group in groups]
        rows.append((name, *cells, str(groups[0]["songs"])))
    header = (kind, *(f"level {row['level']}" for row in levels), "songs")
    return Table(f"Bits per token by {kind}, those with most tokens first.", header, rows)


def figures(result: Result) -> list[Figure]:
    shown = []
    for row in result["levels"]:
        curves = row["by_position"]
        names = {"prior": "prior"} | {k: v for k, v in BASELINES.items() if k in curves}
        seconds = row["window_seconds"] / curves["prior"]["until"][-1]
        lines = {
            label: ([end * seconds for end in curves[name]["until"]], curves[name]["bits"])
            for name, label in names.items()
        }
        figure = plots.curves(lines, "seconds since the window began", "bits per token")
        caption = (
            f"Level {row['level']}, {row['windows']} windows of {row['songs']} held-out songs. A "
            "prior that uses what came before needs fewer bits later in the window; a counting "
            "model soon has all the context it can use. Lower is better."
        )
        shown.append(Figure(f"Level {row['level']}: bits along the window", caption, figure))
    return shown + conditions.worth_figures(result["levels"])


def scores(result: Result) -> list[Score]:
    return [
        Score(
            f"level {row['level']}: bits per token",
            row["bits_per_token"],
            "lower",
            {song: (float(b), float(n)) for song, (b, n) in row["by_song"].items()},
        )
        for row in result["levels"]
    ]


SUITE = Suite(
    title="Likelihood",
    about=(
        "How many bits each prior needs for a token of songs that training never saw: -log2 of the "
        "probability that it gave to what came. Fewer is better; a prior that had learned nothing "
        "would need log2 of the number of codes. Beside it stand models that only count the "
        "training codes (unigram, bigram, Kneser-Ney trigram and 5-gram): a prior that knows music "
        "beats them. Windows are scored one by one from their first token on, whole windows only."
    ),
    measure=measure,
    tables=tables,
    figures=figures,
    scores=scores,
    needs=("vqvae", "codes", "priors", "labels"),
    alike=("vqvae",),
    definition=5,
)
