"""Aligned word onsets of rendered songs against the truth, from the voice alone to +3 dB SI-SDR.

jukejax benchmark alignment --folder /tmp/alignment

Songs are the scores of the demo set, each sung by two of four recorded voices. Levels are the
SI-SDR of the mono mix, in dB. Needs the extras align, render and dev, and Debian's flite,
fluidsynth and fluidr3mono-gm-soundfont. After an interruption, the same command continues.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from data_pipeline.align.songs import LINEAR, Options, align_manifest
from data_pipeline.manifest import Song
from data_pipeline.render import scores
from data_pipeline.render import songs as render_songs
from data_pipeline.render.band import play
from data_pipeline.render.sound import RATE, MissingTool, reverberate
from jukejax.errors import DataError
from jukejax.files import read_json, write_json, write_json_lines, write_text

VOICES = tuple(render_songs.ARTISTS)
CONDITIONS: dict[str, float | None] = {
    "clean": None, "stem": 8.0, "+18 dB": 18.0, "+13 dB": 13.0, "+8 dB": 8.0, "+3 dB": 3.0,
}  # fmt: skip
WRONG = " wrong"  # after the name of a condition: the same sound with another song's lyrics
_SUBTYPE = "PCM_16"
_PEAK = 0.9


@dataclass(frozen=True)
class Command:
    """Align rendered songs at several levels of music, and compare word onsets with the truth."""

    folder: Path
    """Gets songs, manifests, `alignment.json` and `alignment.md`."""
    workers: int = 1
    """Songs aligned at once."""
    voices: int = 2
    """Of the four, those that sing each song."""
    songs: int = 13
    """Scores, in the order of their names."""
    separator: str = "stem"
    """As in `jukejax align`."""


def run(command: Command) -> dict[str, Any]:
    """Renders, aligns, measures; figures of each condition."""
    try:
        import mir_eval  # noqa: F401
    except ImportError as error:
        raise DataError("mir_eval is missing: pip install 'jukejax[dev]'") from error
    folder = command.folder
    folder.mkdir(parents=True, exist_ok=True)
    songs = render(folder, command)
    conditions: dict[str, Any] = {}
    for name, level in CONDITIONS.items():
        rows = [mixed(folder, name, level, song) for song in tqdm(songs, desc=name)]
        others = rows[len(rows) // 2 :] + rows[: len(rows) // 2]
        wrong = [a | {"lyrics": b["lyrics"]} for a, b in zip(rows, others, strict=True)]
        conditions[name] = figures(songs, aligned(folder, name, rows, command))
        differ = [a["lyrics"] != b["lyrics"] for a, b in zip(rows, wrong, strict=True)]
        misled = aligned(folder, name + WRONG, wrong, command)
        accepted = [s.alignment is not None and s.alignment["method"] != LINEAR for s in misled]
        conditions[name]["wrong_songs"] = sum(differ)
        pairs = zip(accepted, differ, strict=True)
        conditions[name]["wrong_aligned"] = sum(a for a, d in pairs if d)
    result = {"songs": len(songs), "machine": platform.processor(), "conditions": conditions}
    write_json(folder / "alignment.json", result)
    write_text(folder / "alignment.md", "\n".join(lines(result)) + "\n")
    return result


def render(folder: Path, command: Command) -> list[dict[str, Any]]:
    """Manifest rows with the true words of every song; writes its dry voice and its band."""
    rows = []
    paths = sorted(render_songs.SCORES.glob("*.json"))[: command.songs]
    for path in tqdm(paths, desc="render", unit="score"):
        score = scores.load_score(path)
        first = VOICES.index(score["singer"])
        for i in range(command.voices):
            singer = VOICES[(first + i) % len(VOICES)]
            rows.append(_rendered(folder, score | {"singer": singer}))
    return rows


def _rendered(folder: Path, score: dict[str, Any]) -> dict[str, Any]:
    name = f"{score['id']}_{score['singer']}"
    note, dry, band = (
        folder / f"{part}" for part in (f"{name}.json", f"{name}.flac", f"{score['id']}_band.flac")
    )
    known = read_json(note)
    if known is not None:
        return dict(known)
    try:
        voice, times = render_songs.render_voice(score)
        music = play(score, len(voice) / RATE)
    except MissingTool as error:
        raise DataError(str(error)) from error
    soundfile.write(dry, voice * (_PEAK / np.abs(voice).max()), RATE, _SUBTYPE)
    soundfile.write(band, music * (_PEAK / np.abs(music).max()), RATE, _SUBTYPE)
    row = render_songs.manifest_row(score, times)
    row |= {"id": name, "voice": dry.name, "band": band.name, "seconds": len(voice) / RATE}
    write_json(note, row)
    return row


def mixed(
    folder: Path, condition: str, level: float | None, song: dict[str, Any]
) -> dict[str, Any]:
    """A manifest row with the song's sound in a condition, written if it is missing."""
    name = re.sub(r"\W", "", condition)
    mix, stem = folder / f"{song['id']}_{name}.flac", folder / f"{song['id']}_hall.flac"
    row = {"id": song["id"], "audio": mix.name, "lyrics": song["lyrics"]}
    if condition == "stem":
        row["stems"] = {"vocals": stem.name}
    if level is None:
        return row | {"audio": song["voice"]}
    if not (mix.exists() and stem.exists()):
        voice = reverberate(soundfile.read(folder / song["voice"])[0])
        band = soundfile.read(folder / song["band"])[0]
        sound = voice + band * music_gain(voice.mean(1), band.mean(1), level)
        for path, samples in ((mix, sound), (stem, voice)):
            soundfile.write(path, samples * (_PEAK / np.abs(samples).max()), RATE, _SUBTYPE)
    return row


def music_gain(voice: np.ndarray, band: np.ndarray, level: float) -> float:
    """What to scale a band (N,) by for its mix with a voice (N,) to have an SI-SDR of `level` dB.

    As the two are next to uncorrelated, SI-SDR is the ratio of their energies.
    """
    return float(np.sqrt(np.sum(voice**2) / np.sum(band**2) * 10 ** (-level / 10)))


def aligned(
    folder: Path, name: str, rows: Sequence[dict[str, Any]], command: Command
) -> list[Song]:
    """The songs of these rows with their alignments, as by `jukejax align`."""
    plain = re.sub(r"\W", "", name)
    manifest, out = folder / f"{plain}.jsonl", folder / f"{plain}_aligned.jsonl"
    write_json_lines(manifest, list(rows))
    options = Options(separator=command.separator)
    return align_manifest(manifest, out, options, workers=command.workers)


def linear_onsets(song: dict[str, Any]) -> np.ndarray:
    """Onset of each word (n,) if lyrics ran evenly through the song, in seconds."""
    begins = [m.start() for m in re.finditer(r"\S+", song["lyrics"])]
    return np.asarray(begins) / len(song["lyrics"]) * song["seconds"]


def figures(songs: Sequence[dict[str, Any]], results: Sequence[Song]) -> dict[str, Any]:
    """Errors over the songs that aligned, in seconds, and the least score."""
    from mir_eval import alignment

    errors, linear, medians, correct, adherence = [], [], {}, [], []
    for song, result in zip(songs, results, strict=True):
        truth = np.asarray([start for _, start, _ in song["words"]])
        linear.append(np.abs(linear_onsets(song) - truth))
        if not result.words:
            continue
        assert result.alignment is not None
        onsets = np.asarray([start for _, start, _ in result.words])
        errors.append(np.abs(onsets - truth))
        medians[song["id"]] = float(alignment.absolute_error(truth, onsets)[0])
        correct.append(alignment.percentage_correct(truth, onsets, window=0.3))
        adherence.append(result.alignment["adherence"])
    every = np.concatenate(errors) if errors else np.full(1, np.nan)
    even = np.concatenate(linear)
    return {
        "songs": len(songs),
        "aligned": len(errors),
        "median": float(np.median(every)),
        "p90": float(np.percentile(every, 90)),
        "within_0.3": float(np.mean(correct)) if correct else float("nan"),
        "worst_song_median": max(medians.values(), default=float("nan")),
        "linear_median": float(np.median(even)),
        "linear_p90": float(np.percentile(even, 90)),
        "least_adherence": min(adherence, default=None),
        "medians": medians,
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The table as Markdown."""
    head = ["condition", "aligned", "median s", "p90 s", "within 0.3 s", "worst song's median s"]
    head += ["linear: median s", "p90 s", "least adherence", "wrong lyrics taken"]
    rows = []
    for name, f in result["conditions"].items():
        least = f["least_adherence"]
        row = [name, f"{f['aligned']} of {f['songs']}", f"{f['median']:.3f}", f"{f['p90']:.3f}"]
        row += [f"{f['within_0.3']:.0%}", f"{f['worst_song_median']:.3f}"]
        row += [f"{f['linear_median']:.2f}", f"{f['linear_p90']:.2f}"]
        row += ["–" if least is None else f"{least:.2f}"]
        row += [f"{f['wrong_aligned']} of {f['wrong_songs']}"]
        rows.append(row)
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
