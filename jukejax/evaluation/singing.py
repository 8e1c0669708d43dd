"""The suite `singing`: does the model sing the words and the tune that it is given?

The model sings lines of held-out songs, given their phones and notes (`lines`). Each sample is
judged as the original, the original's round trip through the codes, and codes without order are:

- the aligner picks the line's words out of eight texts of as many words; chance is 1 / 8. Texts are
  compared by the mean log likelihood a frame of their best paths (`words.Fit`);
- how far the words begin from the score's times, by the same alignment;
- word and phoneme error rate of free recognition (`words`);
- F1 of the notes heard with those of the score (`melody`);
- Fréchet audio distance from the originals (`frechet`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jukejax.evaluation import bootstrap, lines, melody, round_trip, words
from jukejax.evaluation.fidelity import Sound
from jukejax.evaluation.musicnn import Musicnn
from jukejax.evaluation.results import Score, Table, spread
from jukejax.evaluation.round_trip import ORIGINAL, Excerpt
from jukejax.evaluation.subject import Lacking, Result, Subject, Suite, checkpoint_mark
from jukejax.evaluation.whisper import Whisper
from jukejax.text.transliterate import spoken

VERSIONS = (ORIGINAL, lines.BASELINES[0], lines.SAMPLES, *lines.BASELINES[1:])
ROUND_TRIP = lines.BASELINES[0]

Listener = Callable[[Excerpt, Sound, list[list[str]]], dict[str, Any]]


def measure(subject: Subject) -> Result:
    """What is heard in every version of every line, kept line by line."""
    if subject.aligner is None:
        raise Lacking("Singing is judged by forced alignment, which is not there in training.")
    config = subject.prior_config(subject.prior_levels[0])
    chosen, pool = lines.choose(subject, config)
    given = [lines.texts(line, pool) for line in chosen]
    names = _measures(subject, chosen)
    if "words" not in names:
        raise Lacking(round_trip.lacking(subject, chosen)["words"])
    listeners = _listeners(subject, names)
    sung = list(lines.sample(subject, config, chosen))
    beside = lines.Beside(subject, config.level)
    rows = []
    for line, texts, sample in tqdm(
        list(zip(chosen, given, sung, strict=True)), "singing", unit="line", disable=None
    ):
        compute = functools.partial(_heard, subject, line, texts, sample, beside, listeners)
        rows.append(subject.once(f"line {line.song.id} {line.start}", compute))
    return {
        "level": config.level,
        "seconds": beside.samples / config.sample_rate,
        "choices": lines.CHOICES,
        "lines": [
            {"song": line.song.id, "start": line.start / line.rate, "texts": texts, **row}
            for line, texts, row in zip(chosen, given, rows, strict=True)
        ],
        "fad": _distances(rows),
    }


def _measures(subject: Subject, chosen: list[Excerpt]) -> list[str]:
    """The measures that are possible; says in a sentence what is left out."""
    reasons = round_trip.lacking(subject, chosen)
    for name, reason in reasons.items():
        if reason and name != "words":
            print(f"singing: {name} left out: {reason}")
    return [name for name, reason in reasons.items() if not reason]


def _listeners(subject: Subject, names: list[str]) -> list[Listener]:
    """Functions of a line, a sound of it and the texts to pick from, to figures as JSON."""
    assert subject.aligner is not None
    aligner, recogniser = subject.aligner(), Whisper()

    def hear(line: Excerpt, sound: Sound, texts: list[list[str]]) -> dict[str, Any]:
        assert line.text
        fits = aligner.fits(sound, line.rate, [[*map(spoken, text)] for text in texts])
        heard = words.recognised(line.text, recogniser(sound, line.rate), aligner)
        return placed(line.text, fits) | heard

    listeners: list[Listener] = [hear]
    if "notes" in names:
        listeners.append(
            lambda line, sound, _: {
                "note_f1": melody.note_f1(
                    round_trip.score_notes(line), melody.transcribe(sound, line.rate)
                )
            }
        )
    if "fad" in names:
        embedder = Musicnn()
        listeners.append(
            lambda line, sound, _: {"vectors": embedder(sound, line.rate).vectors.round(5).tolist()}
        )
    return listeners


def placed(text: words.Sung, fits: list[words.Fit | None]) -> dict[str, Any]:
    """Whether the first of several texts is "picked", all their "scores", and its "onsets".

    Onsets are how far its words begin from their times, in seconds; none where it has no path.
    """
    right, *others = (None if fit is None else float(fit.score) for fit in fits)
    best = max((score for score in others if score is not None), default=-np.inf)
    starts = fits[0].starts if fits[0] else [None] * len(text.starts)
    pairs = zip(starts, text.starts, strict=True)
    return {
        "picked": right is not None and right > best,
        "scores": [right, *others],
        "onsets": [abs(start - true) for start, true in pairs if start is not None],
    }


def _heard(
    subject: Subject,
    line: Excerpt,
    texts: list[list[str]],
    sample: Sound,
    beside: lines.Beside,
    listeners: list[Listener],
) -> dict[str, Any]:
    """By version of a line, what every listener finds in it."""
    with jax.set_mesh(subject.mesh):
        sounds = beside(line) | {lines.SAMPLES: sample}
    rows: dict[str, Any] = {}
    for name in VERSIONS:
        sound = sounds[name][: line.stop - line.start]
        rows[name] = {}
        for listener in listeners:
            rows[name] |= listener(line, sound, texts)
    return rows


def _distances(rows: list[dict[str, Any]]) -> Result:
    """FAD of each version from the originals; the vectors are taken out of the rows."""
    vectors = {
        str(i): {name: row[name].pop("vectors") for name in VERSIONS}
        for i, row in enumerate(rows)
        if "vectors" in row[ORIGINAL]
    }
    return round_trip.distances(vectors)


# --- what is shown --------------------------------------------------------------------------------


def _by_song(result: Result, version: str, value: str, of: str = "") -> bootstrap.BySong:
    """Means by song over its lines, weighted by `of` where given; lines without it are left out."""
    sums: dict[str, list[float]] = {}
    for line in result["lines"]:
        row = line[version]
        if value in row:
            total = sums.setdefault(line["song"], [0.0, 0.0])
            total[0] += row[value]
            total[1] += row[of] if of else 1
    return {song: (a / n, n) for song, (a, n) in sums.items() if n}


def _onsets(result: Result, version: str) -> dict[str, list[float]]:
    """Onset errors of all words by song."""
    found: dict[str, list[float]] = {}
    for line in result["lines"]:
        found.setdefault(line["song"], []).extend(line[version]["onsets"])
    return found


MEASURES: Mapping[str, tuple[str, str, str]] = {  # header -> value, weight, which is better
    "picked": ("picked", "", "higher"),
    "WER": ("word_errors", "words", "lower"),
    "PER": ("phone_errors", "phones", "lower"),
    "note F1": ("note_f1", "", "higher"),
}


def tables(result: Result) -> list[Table]:
    songs = len({line["song"] for line in result["lines"]})
    title = (
        f"{len(result['lines'])} lines of {songs} held-out songs, {result['seconds']:.1f} s each, "
        f"sung by the prior of level {result['level']} given their phones and notes. Picked: the "
        f"line's words fit best of {result['choices']} texts of as many words, by forced alignment "
        f"(chance {1 / result['choices']:.3f}); median error of word onsets, of lines with a path; "
        f"word and phoneme error rate by {Whisper.name}; F1 of notes with the score; FAD from the "
        "originals. Brackets: 95 % intervals over songs. Codes without order are decoded as the "
        "samples are."
    )
    return [Table(title, ("", *_header()), [_row(result, version) for version in VERSIONS])]


def _header() -> list[str]:
    first, *others = MEASURES
    return [first, "onset error s", "with a path", *others, "FAD"]


def _row(result: Result, version: str) -> list[str]:
    cells = {
        header: round_trip.with_interval(_by_song(result, version, value, of))
        for header, (value, of, _) in MEASURES.items()
    }
    onsets = _onsets(result, version)
    every = [x for errors in onsets.values() for x in errors]
    with_path = sum(line[version]["scores"][0] is not None for line in result["lines"])
    cells["onset error s"] = (
        f"{np.median(every):.3f} {spread(bootstrap.median_interval(onsets))}" if every else "–"
    )
    cells["with a path"] = f"{with_path} of {len(result['lines'])}"
    cells["FAD"] = round_trip.fad_text(result["fad"][version]) if result["fad"] else "–"
    return [version, *(cells[header] for header in _header())]


def scores(result: Result) -> list[Score]:
    """Those of the samples, and beside the round trip's."""
    out = []
    for header, (value, of, better) in MEASURES.items():
        by_song = _by_song(result, lines.SAMPLES, value, of)
        if by_song:
            out.append(Score(header, round_trip.mean(by_song), better, by_song))
            beside = round_trip.mean(_by_song(result, ROUND_TRIP, value, of))
            out.append(Score(f"{header} of the round trip", beside, ""))
    onsets = _onsets(result, lines.SAMPLES)
    every = [x for errors in onsets.values() for x in errors]
    if every:
        interval = bootstrap.median_interval(onsets)
        out.append(Score("onset error, s", float(np.median(every)), "lower", interval=interval))
    if result["fad"]:
        row = result["fad"][lines.SAMPLES]
        interval = round_trip.fad_interval(row)
        out.append(Score("FAD", row["value"], "lower", interval=interval))
    return out


def source(subject: Subject) -> dict[str, Any]:
    """What is sampled, how it is decoded, and what can be measured here."""
    asked, path = subject.generate, subject.directory.renderer
    return {
        "lines": [asked.lines, asked.line_seconds, asked.temperature, asked.guidance],
        "renderer": path and checkpoint_mark(path),
        "measures": round_trip.measures(subject),
    }


SUITE = Suite(
    title="Singing",
    about=(
        "Does the model sing the words and the tune that it is given? Lines of held-out songs are "
        "sampled from their phones and notes, and judged beside the original, its round trip "
        "through the codes, and codes without order."
    ),
    measure=measure,
    tables=tables,
    scores=scores,
    needs=("vqvae", "codes", "songs", "priors", "labels"),
    source=source,
)
