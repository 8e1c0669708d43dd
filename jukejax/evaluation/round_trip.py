"""What survives the round trip through each level's codes: words, notes, and the kind of sound.

Of excerpts of held-out songs, the original and what each level and a renderer rebuild: word and
phoneme errors, adherence and onset errors (`words`); F1 of the notes that basic-pitch hears
(`melody`) with those of the original and of the score; and the Fréchet audio distance of musicnn's
embeddings (`frechet`) from the originals. Part of the suite `reconstruction`. S samples, mono.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jukejax.errors import CheckpointError, DataError
from jukejax.evaluation import bootstrap, fidelity, frechet, melody, wheels, words
from jukejax.evaluation.data import Song
from jukejax.evaluation.fidelity import Sound
from jukejax.evaluation.musicnn import Musicnn
from jukejax.evaluation.results import Score, Table, spread
from jukejax.evaluation.subject import Result, Subject, evenly
from jukejax.evaluation.whisper import Whisper

SONGS, SECONDS = 24, 24.0  # at most: songs, those with word times first; of an excerpt
NOTE_SECONDS = 12.0  # of an excerpt
ORIGINAL, SCORE, OTHER = "original", "score", "another song"
SYSTEMS = ("level", "renderer")  # what the names of `Subject.systems` begin with


@dataclass(frozen=True)
class Excerpt:
    """A part of a held-out song, and its words where they have times."""

    song: Song
    start: int  # samples
    stop: int
    text: words.Sung | None

    @property
    def rate(self) -> int:
        return self.song.sample_rate


def excerpt(song: Song) -> Excerpt:
    """From half a second before the first word to the last complete one, or the song's middle."""
    rate, most = song.sample_rate, round(SECONDS * song.sample_rate)
    if not song.words:
        start = max(0, (song.n_samples - most) // 2)
        return Excerpt(song, start, min(song.n_samples, start + most), None)
    return cut(song, max(0, round((song.words[0][1] - 0.5) * rate)), most)


def cut(song: Song, start: int, most: int, first: int = 0) -> Excerpt:
    """At most `most` samples from `start` on, to the last complete word, with words `first` ..."""
    rate = song.sample_rate
    end = min(song.n_samples, start + most) / rate
    inside = [word for word in song.words[first:] if word[2] <= end]
    stop = min(song.n_samples, round((inside[-1][2] + 0.1) * rate)) if inside else round(end * rate)
    text = words.Sung([word for word, *_ in inside], [at - start / rate for _, at, _ in inside])
    return Excerpt(song, start, stop, text if words.plain_words(" ".join(text.printed)) else None)


def score_notes(part: Excerpt) -> list[melody.Note]:
    """The notes that begin in an excerpt, of the song's track "notes" (MIDI numbers)."""
    begin, seconds = part.start / part.rate, (part.stop - part.start) / part.rate
    return [
        (start - begin, end - begin, int(what))
        for what, start, end in part.song.tracks.get("notes", ())
        if begin <= start < min(end, begin + min(NOTE_SECONDS, seconds))
    ]


def chosen(songs: Sequence[Song]) -> list[Excerpt]:
    """Excerpts of at most `SONGS` songs, those with word times first."""
    with_words = [song for song in songs if song.words]
    others = [song for song in songs if not song.words]
    return [excerpt(x) for x in (evenly(with_words, SONGS) + evenly(others, SONGS))[:SONGS]]


def versions(subject: Subject, part: Excerpt) -> dict[str, Sound]:
    """The original excerpt (S,), and the same decoded from codes by each of `Subject.systems`."""
    sounds = {ORIGINAL: subject.songs.audio(part.song, part.start, part.stop)}
    codes = subject.codes.read(part.song)
    with jax.set_mesh(subject.mesh):
        for name, (level, renderer) in subject.systems.items():
            rebuilt, done = [], 0
            pieces = fidelity.decode_pieces(subject.vqvae, level, codes[level], renderer=renderer)
            for piece in pieces:
                rebuilt.append(piece[max(0, part.start - done) : max(0, part.stop - done)])
                done += len(piece)
                if done >= part.stop:
                    break
            sounds[name] = np.clip(np.concatenate(rebuilt), -1.0, 1.0)
    return sounds


# --- the measures ---------------------------------------------------------------------------------

_NEEDS = {
    "words": (("faster_whisper", "soxr"), wheels.WHISPER),
    "notes": (("onnxruntime", "mir_eval", "soxr"), wheels.BASIC_PITCH),
    "fad": (("soxr",), wheels.MUSICNN),
}


@functools.cache
def _missing(measure: str) -> str:
    """Why a measure is not possible here, in a sentence; "" where it is."""
    packages, wheel = _NEEDS[measure]
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    if absent:
        return f"{' and '.join(absent)} missing: pip install 'jukejax[evaluate]'."
    try:
        wheel.path()
    except CheckpointError as error:
        return str(error)
    return ""


def lacking(subject: Subject, parts: Sequence[Excerpt]) -> dict[str, str]:
    """By measure, why it is not possible, "" where it is; words only where some are sung."""
    sung = any(part.text for part in parts)
    reasons = {name: _missing(name) for name in _NEEDS if sung or name != "words"}
    if reasons.get("words") == "" and subject.aligner is not None:
        try:
            subject.aligner()
        except DataError as error:
            reasons["words"] = str(error)
    return reasons


def measures(subject: Subject) -> list[str]:
    """The measures that are possible, of `_NEEDS`; none without an aligner, as in training."""
    if subject.aligner is None:
        return []
    reasons = lacking(subject, chosen(subject.songs.split("test")))
    return [name for name, reason in reasons.items() if not reason]


def measure(subject: Subject, songs: Sequence[Song]) -> Result | None:
    """Words, notes and FAD of excerpts of songs; None without an aligner.

    What cannot be measured is named in a sentence. Excerpts that an interrupted run measured are
    not measured again.
    """
    if subject.aligner is None:
        return None
    parts = chosen(songs)
    reasons = lacking(subject, parts)
    names = [name for name, reason in reasons.items() if not reason]
    for name, reason in reasons.items():
        if reason:
            print(f"round trip: {name} left out: {reason}")
    listeners = _listeners(subject, names)
    rows: dict[str, dict[str, Any]] = {name: {} for name in names}
    for part in tqdm(parts, "round trip", unit="excerpt", disable=None):
        compute = functools.partial(_listen, subject, part, listeners)
        for name, row in subject.once(f"round trip of {part.song.id}", compute).items():
            rows[name][part.song.id] = row
    return {
        "words": _transposed(rows.get("words", {})),
        "notes": _transposed(_note_scores(rows.get("notes", {}), ORIGINAL)),
        "score_notes": _transposed(_note_scores(rows.get("notes", {}), SCORE)),
        "fad": distances(rows.get("fad", {})),
    }


Listener = Callable[[Excerpt, Mapping[str, Sound]], dict[str, Any]]


def _listeners(subject: Subject, names: Sequence[str]) -> dict[str, Listener]:
    """By measure, a function of an excerpt and its versions: what it finds in each, as JSON."""
    listeners: dict[str, Listener] = {}
    if "words" in names:
        assert subject.aligner is not None
        recogniser, aligner = Whisper(), subject.aligner()
        listeners["words"] = lambda part, sounds: (
            words.heard(part.text, sounds, part.rate, recogniser, aligner) if part.text else {}
        )
    if "notes" in names:
        listeners["notes"] = lambda part, sounds: {
            SCORE: score_notes(part),
            **{
                name: melody.transcribe(sound[: round(NOTE_SECONDS * part.rate)], part.rate)
                for name, sound in sounds.items()
            },
        }
    if "fad" in names:
        embedder = Musicnn()
        listeners["fad"] = lambda part, sounds: {
            name: embedder(sound, part.rate).vectors.round(5).tolist()
            for name, sound in sounds.items()
        }
    return listeners


def _listen(subject: Subject, part: Excerpt, listeners: Mapping[str, Listener]) -> dict[str, Any]:
    """What each listener hears in an excerpt; nothing of a silent one."""
    sounds = versions(subject, part)
    if not sounds[ORIGINAL].any():
        return {}
    return {name: listener(part, sounds) for name, listener in listeners.items()}


def _transposed(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """{song: {version: value}} as {version: {song: value}}."""
    versions = dict.fromkeys(version for row in rows.values() for version in row)
    return {v: {song: row[v] for song, row in rows.items() if v in row} for v in versions}


def _note_scores(notes: Mapping[str, Mapping[str, Any]], truth: str) -> dict[str, Any]:
    """By song, F1 of the notes heard in each version with those of `truth`, where there are any.

    The notes heard in the next song show what chance scores.
    """
    known = {song: row for song, row in notes.items() if row[truth]}
    others = [*known.values()][1:] + [*known.values()][:1]
    scores = {}
    for (song, row), other in zip(known.items(), others, strict=True):
        heard = {**row, OTHER: other[ORIGINAL]} if len(known) > 1 else dict(row)
        del heard[SCORE]
        scores[song] = {name: melody.note_f1(row[truth], y) for name, y in heard.items()}
    return scores


def distances(vectors: Mapping[str, Mapping[str, Any]]) -> Result:
    """FAD of each version from the originals, and the number of windows; {} of fewer than two.

    Args:
      vectors: {song: {version: (windows, D)}}, "original" among the versions.
    """
    full = {song: row for song, row in vectors.items() if row[ORIGINAL]}
    by_version = {v: np.concatenate([*rows.values()]) for v, rows in _transposed(full).items()}
    if len(by_version.get(ORIGINAL, ())) < 2:
        return {}
    real = frechet.fit(by_version[ORIGINAL])
    songs = np.repeat(np.arange(len(full)), [len(row[ORIGINAL]) for row in full.values()])
    return {
        version: {"n": len(x), **frechet.estimate(real, x, songs)[0]._asdict()}
        for version, x in by_version.items()
    }


# --- what is shown --------------------------------------------------------------------------------


def _rate(rows: Mapping[str, Any], errors: str, of: str) -> bootstrap.BySong:
    return {song: (row[errors] / row[of], row[of]) for song, row in rows.items() if row[of]}


def _equally(values: Mapping[str, float]) -> bootstrap.BySong:
    """Values of songs that count the same."""
    return {song: (value, 1.0) for song, value in values.items()}


def mean(by_song: bootstrap.BySong) -> float:
    return sum(x * weight for x, weight in by_song.values()) / sum(w for _, w in by_song.values())


def with_interval(by_song: bootstrap.BySong) -> str:
    """The weighted mean over songs and its interval; a dash for no songs."""
    if not by_song:
        return "–"
    return f"{mean(by_song):.2f} {spread(bootstrap.interval(by_song), 2)}"


def tables(result: Result | None) -> list[Table]:
    """Tables of what was measured; none of results without round trips."""
    if result is None:
        return []
    shown = []
    if result["words"]:
        shown.append(_words(result["words"]))
    if result["notes"]:
        shown.append(_notes(result["notes"], result["score_notes"]))
    if result["fad"]:
        shown.append(_fad(result["fad"]))
    return shown


def _words(versions: Result) -> Table:
    original = versions[ORIGINAL]
    fits = [song for song, row in original.items() if row["fits"]]
    title = (
        f"Words of {len(original)} held-out songs ({sum(x['words'] for x in original.values())} "
        f"words) in the original and rebuilt from each level, by {Whisper.name}: word (WER) and "
        "phoneme error rate (PER) with 95 % interval over songs, lower is better; above 1 where "
        "more is heard than sung. By forced alignment: adherence, higher is better, mean of songs "
        "with a path; songs that align as of `jukejax align`, of those whose original does; their "
        "median onset error."
    )

    def row(item: tuple[str, Any]) -> list[str]:
        name, rows = item
        of_fits = [rows[song] for song in fits]
        gaps = [x["onset_error"] for x in of_fits if x["onset_error"] is not None]
        placed = {s: x["adherence"] for s, x in rows.items() if x["adherence"] is not None}
        return [
            name,
            with_interval(_rate(rows, "word_errors", "words")),
            with_interval(_rate(rows, "phone_errors", "phones")),
            with_interval(_equally(placed)),
            f"{sum(x['fits'] for x in of_fits)} of {len(rows if name == ORIGINAL else fits)}",
            f"{np.median(gaps):.3f}" if gaps else "–",
        ]

    header = ("", "WER", "PER", "adherence", "aligned", "onset error s")
    return Table(title, header, [row(item) for item in versions.items()])


def _notes(versions: Result, of_score: Result) -> Table:
    title = (
        f"Notes that basic-pitch hears in {len(versions[ORIGINAL])} excerpts of up to "
        f"{NOTE_SECONDS:.0f} s: F1 (pitch, and onset within 50 ms) with those heard in the "
        f"original, and with the track `notes` of the {len(of_score.get(ORIGINAL, ()))} songs that "
        "have one, with 95 % interval over songs, higher is better."
    )
    kinds = (versions, of_score)
    rows = [
        (name, *(with_interval(_equally(kind.get(name, {}))) for kind in kinds))
        for name in versions
    ]
    return Table(title, ("", "of the original", "of the score"), rows)


def _fad(versions: Result) -> Table:
    title = (
        f"Fréchet audio distance of {versions[ORIGINAL]['n']} windows of {Musicnn.seconds:.0f} s "
        "(musicnn MTT) from those of the originals, with 95 % interval over songs: lower is "
        "better. Compare it at the same number of windows only."
    )
    rows = [(name, fad_text(row)) for name, row in versions.items()]
    return Table(title, ("", "FAD"), rows)


def fad_text(estimate: Result) -> str:
    """A `frechet.Estimate` and its interval."""
    return f"{estimate['value']:.1f} {spread(fad_interval(estimate), 1)}"


def fad_interval(estimate: Result) -> tuple[float, float] | None:
    """The ends of a `frechet.Estimate`; None of a single song."""
    return None if estimate["low"] is None else (estimate["low"], estimate["high"])


def scores(result: Result | None) -> list[Score]:
    """Word and phoneme error rate, note F1 and FAD of each level and of a renderer."""
    if result is None:
        return []
    out = []
    for name, rows in result["words"].items():
        if name.startswith(SYSTEMS):
            for kind, errors, of in (
                ("WER", "word_errors", "words"),
                ("PER", "phone_errors", "phones"),
            ):
                by_song = _rate(rows, errors, of)
                out.append(Score(f"{name}: {kind}", mean(by_song), "lower", by_song))
    for name, rows in result["notes"].items():
        if name.startswith(SYSTEMS):
            by_song = _equally(rows)
            out.append(Score(f"{name}: note F1", mean(by_song), "higher", by_song))
    for name, row in result["fad"].items():
        if name.startswith(SYSTEMS):
            out.append(Score(f"{name}: FAD", row["value"], "lower", interval=fad_interval(row)))
    return out
