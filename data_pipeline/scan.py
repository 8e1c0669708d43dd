"""A folder of sound files as a manifest: labels from tags, lyrics from files of the same name."""

import collections
import dataclasses
import itertools
import logging
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import mutagen
import soundfile

from data_pipeline.manifest import Song
from jukejax.errors import DataError
from jukejax.label_kinds import KINDS
from jukejax.text.lyric_files import Lyrics, read_lyrics

_LOG = logging.getLogger(__name__)
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus")
# Other sound files, which are not supported.
_OTHERS = (
    *(".aac", ".ac3", ".aif", ".aifc", ".aiff", ".alac", ".amr", ".ape", ".au", ".caf", ".dff"),
    *(".dsf", ".m4a", ".m4b", ".mka", ".mp2", ".mp4", ".mpc", ".oga", ".ra", ".snd", ".spx"),
    *(".tak", ".tta", ".w64", ".webm", ".wma", ".wv"),
)
_KEYS = ("album", *(kind.tag for kind in KINDS if kind.tag))


def scan_folder(folder: str | Path) -> Iterator[Song]:
    """The sound files below `folder`, sorted by path, as songs; one folder's names in memory.

    A song's id is its path inside the folder without the suffix. Labels and album come from the
    file's tags, lyrics from a .txt or .lrc file of the same name. Hidden files and folders are left
    out.

    Raises:
      DataError: the folder does not exist or has no sound file (raised by the call itself).
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        is_file = f"{folder} is a file, not a folder"
        what = is_file if folder.is_file() else f"the folder {folder} does not exist"
        raise DataError(f"{what}; give the folder with the songs")
    songs = _songs(folder)
    first = next(songs, None)
    if first is None:
        kinds = ", ".join(SUFFIXES)
        others = other_kinds(folder)
        remedy = f"convert files of other kinds ({', '.join(others)}) or " if others else ""
        raise DataError(f"{folder} holds no sound file ({kinds}); {remedy}give another folder")
    return itertools.chain([first], songs)


def _songs(folder: Path) -> Iterator[Song]:
    for path, alone in _visible(folder, SUFFIXES):
        if _is_unicode(path):
            inside = path.relative_to(folder)
            yield _song(path, (inside.with_suffix("") if alone else inside).as_posix())
        else:
            _LOG.warning("%r has a name that is not UTF-8 and is left out; rename it", str(path))


def other_kinds(folder: str | Path) -> dict[str, int]:
    """Number of sound files by suffix that are not supported, so `scan_folder` leaves them out."""
    suffixes = (path.suffix.lower() for path, _ in _visible(Path(folder).resolve(), _OTHERS))
    return dict(sorted(collections.Counter(suffixes).items()))


def _visible(folder: Path, suffixes: Collection[str]) -> Iterator[tuple[Path, bool]]:
    """Files with these suffixes, sorted by path, none hidden or in a hidden folder.

    Each with whether no other file has its name with another of the suffixes.
    """
    try:
        entries = [x for x in os.scandir(folder) if not x.name.startswith(".")]
    except OSError as error:
        _LOG.warning("the folder %s cannot be read (%s) and is left out", folder, error.strerror)
        return
    names = {x.name for x in entries if Path(x.name).suffix.lower() in suffixes and x.is_file()}
    stems = collections.Counter(Path(name).stem for name in names)
    for entry in sorted(entries, key=lambda entry: entry.name):
        path = folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _visible(path, suffixes)
        elif entry.name in names:
            yield path, stems[path.stem] == 1


def _is_unicode(path: Path) -> bool:
    """Whether a path can be written to a manifest, which is UTF-8."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _song(path: Path, name: str) -> Song:
    lyrics_file, lyrics = _lyrics_beside(path)
    sung = {field.name: getattr(lyrics, field.name) for field in dataclasses.fields(lyrics)}
    sung["lyrics"] = sung.pop("text")
    return Song(id=name, audio=path, lyrics_file=lyrics_file, **sung, **_labels(path))


def _lyrics_beside(path: Path) -> tuple[Path | None, Lyrics]:
    for suffix in (".txt", ".lrc"):
        beside = path.with_suffix(suffix)
        if beside.is_file():
            try:
                return beside, read_lyrics(beside)
            except DataError as error:
                _LOG.warning("%s; the song is listed without lyrics", error)
    return None, Lyrics()


def _labels(path: Path) -> dict[str, Any]:
    """The album and the labels in a file's tags."""
    tags = _tags(path)
    labels: dict[str, Any] = {"album": tags["album"][0]} if tags.get("album") else {}
    for kind in KINDS:
        texts = tags.get(kind.tag, [])
        if kind.most:
            names = (part.strip() for text in texts for part in text.split(";"))
            labels[kind.field] = tuple(name for name in names if name)
        elif kind.decades:
            if year := re.search(r"\d{4}", " ".join(texts)):
                labels[kind.field] = int(year[0])
        elif texts:
            labels[kind.field] = texts[0]
    return labels


def _tags(path: Path) -> dict[str, list[str]]:
    """Tags, read by mutagen; those of a WAV's INFO chunk by libsndfile."""
    try:
        tagged = mutagen.File(path, easy=True)
        tags = {key: list(map(str, tagged[key])) for key in tagged or () if key in _KEYS}
    except Exception:  # mutagen raises many types; decoding reports what is wrong
        tags = {}
    if not tags and path.suffix.lower() == ".wav":
        try:
            with soundfile.SoundFile(path) as sound:
                tags = {key: [value] for key, value in sound.copy_metadata().items()}
        except soundfile.LibsndfileError:
            pass
    return tags
