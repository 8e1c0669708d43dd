"""A folder of sound files as a manifest: labels from tags, lyrics from files beside them."""

import collections
import logging
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import mutagen
import soundfile

from data_pipeline.errors import DataError
from data_pipeline.manifest import Song, read_lyrics

_LOG = logging.getLogger(__name__)
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus")
# Sound in other containers or codecs, which is not read.
_OTHERS = (
    *(".aac", ".ac3", ".aif", ".aifc", ".aiff", ".alac", ".amr", ".ape", ".au", ".caf", ".dff"),
    *(".dsf", ".m4a", ".m4b", ".mka", ".mp2", ".mp4", ".mpc", ".oga", ".ra", ".snd", ".spx"),
    *(".tak", ".tta", ".w64", ".webm", ".wma", ".wv"),
)
_KEYS = ("artist", "album", "genre", "date")


def scan_folder(folder: str | Path) -> list[Song]:
    """The sound files below `folder`, sorted by path, as songs.

    The id is the path inside the folder without its suffix. Artist, album, genre and year come
    from the tags; lyrics from a file of the same name ending in .txt or .lrc. Hidden files and
    what lies in hidden folders are left out.

    Raises:
      DataError: the folder does not exist or holds no sound file.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        is_file = f"{folder} is a file, not a folder"
        what = is_file if folder.is_file() else f"the folder {folder} does not exist"
        raise DataError(f"{what}; give the folder with the songs")
    found = list(_visible(folder, SUFFIXES))
    unwritable = [path for path in found if not _is_unicode(path)]
    for path in unwritable:
        _LOG.warning("%r has a name that is not UTF-8 and is left out; rename it", str(path))
    found = [path for path in found if path not in unwritable]
    if not found:
        kinds = ", ".join(SUFFIXES)
        others = other_kinds(folder)
        remedy = f"convert those of other kinds ({', '.join(others)}) or " if others else ""
        raise DataError(f"{folder} holds no sound file ({kinds}); {remedy}give another folder")
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in found]
    twice = {name for name, count in collections.Counter(names).items() if count > 1}
    return [
        _song(path, path.relative_to(folder).as_posix() if name in twice else name)
        for path, name in zip(found, names, strict=True)
    ]


def other_kinds(folder: str | Path) -> dict[str, int]:
    """How many sound files of each suffix `scan_folder` leaves out because it cannot read them."""
    found = (path.suffix.lower() for path in _visible(Path(folder).resolve(), _OTHERS))
    return dict(sorted(collections.Counter(found).items()))


def _visible(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """Files of these kinds below the folder, sorted, none hidden or in a hidden folder."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in suffixes and not hidden and path.is_file():
            yield path


def _is_unicode(path: Path) -> bool:
    """Whether a path can be written in a manifest."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _song(path: Path, name: str) -> Song:
    lyrics_file, lyrics = _lyrics_beside(path)
    return Song(id=name, audio=path, lyrics_file=lyrics_file, lyrics=lyrics, **_labels(path))


def _lyrics_beside(path: Path) -> tuple[Path | None, str]:
    for suffix in (".txt", ".lrc"):
        beside = path.with_suffix(suffix)
        if beside.is_file():
            try:
                return beside, read_lyrics(beside)
            except DataError as error:
                _LOG.warning("%s; the song is listed without lyrics", error)
    return None, ""


def _labels(path: Path) -> dict[str, Any]:
    """artist, album, genres and year from the tags, as far as they are there."""
    tags = _tags(path)
    labels: dict[str, Any] = {}
    if tags.get("artist"):
        labels["artist"] = tags["artist"][0]
    if tags.get("album"):
        labels["album"] = tags["album"][0]
    genres = [part.strip() for genre in tags.get("genre", []) for part in genre.split(";")]
    labels["genres"] = tuple(genre for genre in genres if genre)
    year = re.search(r"\d{4}", " ".join(tags.get("date", [])))
    if year:
        labels["year"] = int(year[0])
    return labels


def _tags(path: Path) -> dict[str, list[str]]:
    """Tags by mutagen; a WAV's own INFO chunk by libsndfile."""
    try:
        tagged = mutagen.File(path, easy=True)
        tags = {key: list(map(str, tagged[key])) for key in tagged or () if key in _KEYS}
    except Exception:  # mutagen raises many kinds; decoding says what is wrong
        tags = {}
    if not tags and path.suffix.lower() == ".wav":
        try:
            with soundfile.SoundFile(path) as sound:
                tags = {key: [value] for key, value in sound.copy_metadata().items()}
        except soundfile.LibsndfileError:
            pass
    return tags
