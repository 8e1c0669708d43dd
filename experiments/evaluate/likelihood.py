"""The suite `likelihood`: how many bits the priors need for held-out tokens."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from data_pipeline import records
from data_pipeline.code_loader import code_windows
from data_pipeline.codes import codes_info, codes_length, read_song_codes
from data_pipeline.songs import PreparedSong, prepared_songs
from experiments.data import prior_inputs
from experiments.evaluate import likelihood_report
from experiments.evaluate.subject import Subject, Suite
from experiments.evaluate.worth import differences
from jukejax.config import PriorConfig
from jukejax.evaluation import bootstrap, conditions, counting, likelihood
from jukejax.text.labels import Vocabulary

ORDERS = (3, 5)  # of Kneser-Ney n-grams
NGRAM_TOKENS = 2**23  # that they count, a level; whole songs are drawn up to about so many
KEPT_BATCHES = 64  # an interrupted run repeats no more of them
CONDITION_WINDOWS = 128  # of a split, evenly over it, whose conditions are replaced
LENDERS = 16  # training songs that lend conditions where the held-out ones are too few


class Counted:
    """What the training codes of some levels say, read in one pass."""

    def __init__(self, subject: Subject, levels: Iterable[int], codes: int) -> None:
        songs = records.split_songs(subject.codes, "train")
        info = codes_info(subject.codes)
        top = info.hops[-1]
        self.codes, chosen = codes, {}
        for level in levels:
            lengths = [codes_length(song.n_samples, info.hops[level], top) for song in songs]
            order = np.random.default_rng(0).permutation(len(songs))
            before = np.cumsum(np.take(lengths, order)) - np.take(lengths, order)
            chosen[level] = {songs[i].id for i in order[before < NGRAM_TOKENS]}
        self.counts = {level: counting.empty_counts(codes) for level in chosen}
        self.sequences: dict[int, list[Any]] = {level: [] for level in chosen}
        for song in tqdm(songs, "counting training codes", unit="song", disable=None):
            found = read_song_codes(subject.codes, song.id)
            for level in chosen:
                counting.count(self.counts[level], found[level])
                if song.id in chosen[level]:
                    self.sequences[level].append(found[level])

    def bits(self, level: int) -> likelihood.CountBits:
        """The counting models of a level, fitted."""
        model = counting.fit(self.counts[level])
        most = int(63 / math.log2(self.codes))  # longest n-gram that fits into a number
        orders = [order for order in ORDERS if order <= most]
        ngrams = counting.KneserNey(self.sequences[level], self.codes, max(orders))

        def bits(codes: Any) -> dict[str, Any]:
            found = {"unigram": model.unigram_bits(codes), "bigram": model.bigram_bits(codes)}
            return found | {f"kn{n}": b for n, b in ngrams.bits(codes, orders).items()}

        return bits


class Held:
    """The held-out windows of one prior."""

    def __init__(self, subject: Subject, config: PriorConfig, fingerprint: str) -> None:
        labels = subject.directory.labels(config.level) if config.labels else None
        self.config, self.codes = config, subject.codes
        self.batch = subject.batch
        names = Vocabulary.load(labels) if labels else None
        self.read = functools.partial(
            code_windows, self.codes, config, names, batch_size=self.batch,
            expect_fingerprint=fingerprint,
        )  # fmt: skip
        top = codes_info(subject.codes).hops[-1]
        songs = records.split_songs(subject.codes, "test")
        self.lengths = [codes_length(song.n_samples, config.hop, top) for song in songs]
        self.total = sum(length // config.n_ctx for length in self.lengths)  # windows

    def batches(self, split: str = "test", most: int | None = None) -> Iterator[dict[str, Any]]:
        """What the prior reads, with "valid", "song" and "place" (see `conditions`)."""
        for found in self.read(split=split, most=most):
            kept = {k: found[k] for k in ("valid", "song")}
            place = found["offset"] / found["total_length"]
            yield prior_inputs(self.config, found) | kept | {"place": place}

    def chosen(self, split: str = "test") -> conditions.Windows:
        """Windows whose conditions are replaced, evenly over the split."""
        return _stack(_rows(self.batches(split, CONDITION_WINDOWS)))

    def lenders(self) -> conditions.Windows:
        """The first window of some training songs, sung ones where the prior reads lyrics."""
        songs, seen = prepared_songs(self.codes), set[int]()
        sung = self.config.lyrics and any(s.lyrics for s in songs.of_split("train"))

        def new(row: dict[str, Any]) -> bool:
            song = int(row["song"])
            found = song not in seen and bool(songs[song].lyrics or not sung)
            seen.update([song] if found else [])
            return found

        return _stack(itertools.islice(filter(new, _rows(self.batches("train"))), LENDERS))


def _rows(batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The valid rows of batches one by one, without "valid"."""
    for batch in batches:
        for row in np.flatnonzero(batch.pop("valid")):
            yield {name: array[row] for name, array in batch.items()}


def _stack(rows: Iterable[dict[str, Any]]) -> conditions.Windows:
    found = list(rows)
    return {name: np.stack([row[name] for row in found]) for name in found[0]}


def worth(
    subject: Subject, held: Held, scorer: likelihood.Scorer, upper_unigram: Any, split: str
) -> list[dict[str, Any]]:
    """What each condition is worth: bits with it replaced, beside the same windows as they are."""
    config, windows = held.config, held.chosen(split)
    count = len(windows["codes"])
    few = len(np.unique(windows["song"])) < 2
    if config.lyrics and not few:
        few = len(np.unique(windows["song"][(windows["lyrics"] != 0).any(1)])) < 2
    if few:
        lenders = held.lenders()
        windows = {name: np.concatenate([windows[name], lenders[name]]) for name in windows}

    def score(some: conditions.Windows) -> Any:
        return likelihood.score_all(scorer, some, held.batch)

    rows = differences(subject, split, config, score, windows, count, upper_unigram)
    return [row | {"lent_by_training_songs": few} for row in rows]


def of_level(subject: Subject, level: int, counted: Counted) -> dict[str, Any]:
    """All figures of one prior."""
    prior = subject.load_prior(level)
    config = prior.config
    held = Held(subject, config, prior.fingerprint)
    scorer = likelihood.make_scorer(config, prior.params, subject.mesh)
    models = counted.bits(level)
    named = f"likelihood of level {level}"
    total = -(-held.total // held.batch)
    progress = tqdm(held.batches(), named, total, unit="batch", disable=None)
    plain = ({k: v for k, v in batch.items() if k != "place"} for batch in progress)
    whole: dict[str, Any] = {"windows": 0, "models": {}}
    for number in range(-(-total // KEPT_BATCHES)):
        some = list(itertools.islice(plain, KEPT_BATCHES))
        compute = functools.partial(likelihood.sums, scorer, models, some)
        part = subject.once(f"level {level}, part {number}", compute)
        whole = likelihood.add(whole, part)
    upper = None
    if config.upper:
        upper = counting.fit(counted.counts[level + 1]).unigram
    found = whole["models"]
    listed = prepared_songs(subject.codes)
    by_song = {listed[int(i)]: (b / n, n) for i, (b, n) in found["prior"]["songs"].items()}
    songs, bits = list(by_song), {song.id: pair for song, pair in by_song.items()}
    tokens = int(sum(n for _, n in bits.values()))
    mean = likelihood.mean(found["prior"]["songs"])
    baselines = {
        f"{name}_bits_per_token": likelihood.mean(sums["songs"])
        for name, sums in found.items()
        if name != "prior"
    }
    return {
        "level": level,
        "step": prior.step,
        "bits_per_token": mean,
        "interval": bootstrap.interval(bits),
        "bits_per_second": mean * config.sample_rate / config.hop,
        "uniform_bits_per_token": math.log2(config.codes),
        **baselines,
        "counted_tokens": int(counted.counts[level].tokens.sum()),
        "ngram_tokens": sum(map(len, counted.sequences[level])),
        "tokens": tokens,
        "windows": whole["windows"],
        "songs": len(bits),
        "covered": tokens / sum(held.lengths),
        "window_seconds": config.window_samples / config.sample_rate,
        "by_song": bits,
        "by_artist": _grouped(bits, songs, lambda song: [song.artist or "(none)"]),
        "by_genre": _grouped(bits, songs, lambda song: song.genres or ["(none)"]),
        "by_position": {
            name: likelihood.curve(sums["positions"], whole["windows"])
            for name, sums in found.items()
        },
        "conditions": [
            row for split in ("test", "train") for row in worth(subject, held, scorer, upper, split)
        ],
    }


def _grouped(
    bits: dict[str, tuple[float, float]], songs: Sequence[PreparedSong], names: Any
) -> dict[str, dict[str, Any]]:
    """Figures of the songs of each name (an artist's, a genre's), most tokens first."""
    groups: dict[str, dict[str, tuple[float, float]]] = {}
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


def measure(subject: Subject) -> dict[str, Any]:
    """Figures of every prior that the model directory names, top level first.

    "covered" is the part of the held-out tokens that lies in whole windows and is scored.
    """
    levels = subject.prior_levels
    configs = {level: subject.prior_config(level)[0] for level in levels}
    records.split_songs(subject.codes, "test")  # said before minutes of counting
    needed = {level + 1 for level in levels if configs[level].upper} | set(levels)
    counted = Counted(subject, sorted(needed), configs[levels[0]].codes)
    return {"levels": [of_level(subject, level, counted) for level in levels]}


SUITE = Suite(
    title="Likelihood",
    about=likelihood_report.ABOUT,
    measure=measure,
    tables=likelihood_report.tables,
    figures=likelihood_report.figures,
    scores=likelihood_report.scores,
    needs=("vqvae", "codes", "priors", "labels"),
    alike=("vqvae",),
    definition=4,
)
