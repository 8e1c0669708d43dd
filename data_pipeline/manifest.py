"""The manifest `songs.jsonl`: a song a line, every line checked, every problem reported.

Only `id` and `audio` are required. Paths are relative to the manifest's folder.
"""

import codecs
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline import lines
from data_pipeline.lines import Lines
from data_pipeline.manifest_fields import entry_errors, escape_errors
from jukejax import files
from jukejax.errors import DataError
from jukejax.label_kinds import KINDS
from jukejax.text.lyric_files import Line, Lyrics, Section, parse_lyrics, read_lyrics
from jukejax.text.word_times import Word
from jukejax.tracks import Event, read_tracks

LONG_LYRICS = 50_000  # characters; longer lyrics are usually a wrong file: kept, with a remark


@dataclasses.dataclass(frozen=True)
class Song:
    """One song of a manifest, with the content of its lyrics and track files; absolute paths."""

    id: str
    audio: Path
    artist: str = ""
    album: str = ""
    genres: tuple[str, ...] = ()
    year: int | None = None
    tags: tuple[str, ...] = ()
    lyrics: str = ""
    lyrics_file: Path | None = None
    words: tuple[Word, ...] = ()
    lines: tuple[Line, ...] = ()
    sections: tuple[Section, ...] = ()
    stems: tuple[tuple[str, Path], ...] = ()
    tracks: dict[str, tuple[Event, ...]] = dataclasses.field(default_factory=dict, hash=False)
    tracks_file: Path | None = None
    midi: Path | None = None
    licence: str = ""
    group: str = ""
    split: str = ""
    alignment: dict[str, Any] | None = None  # how `words` were aligned (`align.songs`)


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is wrong with a line; `skipped`: the song was left out because of it."""

    line: int
    song: str
    text: str
    skipped: bool

    def __str__(self) -> str:
        where = f"line {self.line}" if self.line else "the manifest"
        name = f", song {self.song!r}" if self.song else ""
        return f"{where}{name}: {self.text}"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The valid songs in the order of the file, and every problem.

    Songs are read on demand; without the problems it takes 24 bytes of memory a song.

    Attributes:
      order: (n,) int32 rows of `songs` sorted by id.
      seconds: (n,) float64 lengths of the songs, estimated from the sizes of their files.
      digest: changes with any song or its sound file, not with the order of the lines.
    """

    songs: Lines[Song]
    problems: tuple[Problem, ...]
    order: npt.NDArray[np.int32] = dataclasses.field(compare=False)
    seconds: npt.NDArray[np.float64] = dataclasses.field(compare=False)
    digest: str

    @property
    def labels(self) -> Lines[Song]:
        """The songs with labels, group and split alone; no other file is read for them."""
        return self.songs.parsed(functools.partial(_labelled_song, self.songs.path.parent))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for the system, a folder without permission
        return False


def _make_song(entry: dict[str, Any], folder: Path) -> tuple[Song, list[str]]:
    """The song of a valid entry, and remarks about it.

    Raises:
      DataError: the file of lyrics or tracks cannot be read.
    """
    given = {key: value for key, value in entry.items() if value is not None}
    remarks = []
    lyrics_file = folder / given["lyrics_file"] if "lyrics_file" in given else None
    sung = read_lyrics(lyrics_file) if lyrics_file else parse_lyrics(given.get("lyrics", ""))
    lyrics = sung.text
    if len(lyrics) > LONG_LYRICS:
        remarks.append(
            f"the lyrics are {len(lyrics):,} characters long, more than {LONG_LYRICS:,}; "
            "kept in full, but check that they are the right text"
        )
    stems = tuple((name, folder / path) for name, path in sorted(given.get("stems", {}).items()))
    tracks_file = folder / given["tracks_file"] if "tracks_file" in given else None
    midi = folder / given["midi"] if "midi" in given else None
    for name, path in (*stems, *((("midi", midi),) if midi else ())):
        if not _is_file(path):
            remarks.append(f"the {name} file {path} does not exist; the song is kept without it")
    as_given = ("album", "licence", "alignment")
    plain: dict[str, Any] = {key: given[key] for key in as_given if key in given}
    song = dataclasses.replace(
        _labelled(given, folder),
        **plain,
        lyrics=lyrics,
        lyrics_file=lyrics_file,
        words=_seconds(given.get("words", sung.words)),
        lines=_seconds(given.get("lines", sung.lines)),
        sections=_seconds(given.get("sections", sung.sections)),
        stems=tuple((name, path) for name, path in stems if _is_file(path)),
        tracks=read_tracks(tracks_file) if tracks_file else {},
        tracks_file=tracks_file,
        midi=midi if midi and _is_file(midi) else None,
    )
    return song, remarks


def _seconds(rows: Iterable[Sequence[Any]]) -> tuple[Any, ...]:
    """Rows (text, seconds ...) as tuples, with seconds as floats."""
    return tuple((text, *(x if x is None else float(x) for x in times)) for text, *times in rows)


def _read_line(line: bytes, folder: Path) -> tuple[str, Song | None, list[str]]:
    """(song id, the song or None, errors or remarks) of one line."""
    try:
        entry = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return "", None, [f"byte {error.start} is not UTF-8; save the manifest as UTF-8"]
    except (ValueError, RecursionError) as error:
        return "", None, [f"not JSON ({error}); write one object a line"]
    errors = entry_errors(entry) + escape_errors(line, entry)
    name = entry.get("id", "") if isinstance(entry, dict) else ""
    name = name if isinstance(name, str) else ""
    if errors:
        return name, None, errors
    try:
        song, remarks = _make_song(entry, folder)
    except DataError as error:
        return name, None, [str(error)]
    if not _is_file(song.audio):
        lost = f"the file {song.audio} does not exist; mend 'audio' or remove the line"
        return name, None, [lost]
    return name, song, remarks


def _song_of_line(folder: Path, line: bytes) -> Song:
    """The song of a line that is known to be valid."""
    return _make_song(json.loads(line), folder)[0]


def _labelled_song(folder: Path, line: bytes) -> Song:
    """As `_song_of_line`, without lyrics, words and files beside the song's."""
    return _labelled(json.loads(line), folder)


def _labelled(entry: dict[str, Any], folder: Path) -> Song:
    """The song of a valid entry, with its labels, group and split alone."""
    names = [*(kind.field for kind in KINDS), "group", "split"]
    given = {name: entry[name] for name in names if entry.get(name) is not None}
    bags = [kind.field for kind in KINDS if kind.most and kind.field in given]
    given |= {name: tuple(given[name]) for name in bags}
    return Song(id=entry["id"], audio=folder / entry["audio"], **given)


def read_manifest(path: str | Path) -> Manifest:
    """Reads `songs.jsonl`; a bad line is listed among the problems and left out.

    Raises:
      DataError: the manifest itself cannot be read.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            marked = file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
        places = lines.read_places(path, len(codecs.BOM_UTF8) if marked else 0)
    except OSError as error:
        raise DataError(
            f"the manifest {path} cannot be read ({error.strerror}); give the path of a "
            "songs.jsonl, or make one with `jukejax prepare scan FOLDER`"
        ) from error
    parse = functools.partial(_song_of_line, path.resolve().parent)
    return _Validation(Lines(path.resolve(), places, parse)).manifest()


class _Validation:
    """One pass over all lines; then their ids sorted, where duplicates are neighbours."""

    def __init__(self, every: Lines[Song]) -> None:
        self.every, self.folder = every, every.path.parent
        self.seconds = np.full(len(every), np.nan)
        self.problems: list[Problem] = []
        self.digest = 0

    def manifest(self) -> Manifest:
        order = np.zeros(len(self.every), np.int32)
        before, first, count = None, 0, 0
        for name, row in lines.sorted_texts(self._good_lines()):
            if name == before:
                self._leave_out(row, name, first)
            else:
                before, first = name, row
                order[count] = row
                count += 1
        self.problems.sort(key=lambda problem: problem.line)  # stable: those of a line stay
        good = ~np.isnan(self.seconds)
        ranks = np.cumsum(good, dtype=np.int32) - 1
        order = ranks[order[:count]]
        songs, seconds = self.every.take(np.flatnonzero(good)), self.seconds[good]
        return Manifest(songs, tuple(self.problems), order, seconds, f"{self.digest:064x}")

    def _good_lines(self) -> Iterable[tuple[str, int]]:
        """(id, row) of every line that is valid by itself."""
        for row in range(len(self.every)):
            line = self.every.text(row)
            if line.strip():
                name, song, texts = _read_line(line, self.folder)
                self.problems += [Problem(row + 1, name, text, song is None) for text in texts]
                if song is not None:
                    self.seconds[row] = guess_seconds(song)
                    self._count(line, song, 1)
                    yield name, row

    def _leave_out(self, row: int, name: str, first: int) -> None:
        """Leaves out a line whose id is that of row `first`."""
        text = f"the id is taken by line {first + 1}; give each song its own id"
        self.problems = [problem for problem in self.problems if problem.line != row + 1]
        self.problems.append(Problem(row + 1, name, text, True))
        self.seconds[row] = np.nan
        self._count(self.every.text(row), self.every[row], -1)

    def _count(self, line: bytes, song: Song, times: int) -> None:
        """Adds a song's digest to the sum of all, which does not depend on their order."""
        aside: list[Any] = [song.lyrics if song.lyrics_file else "", song.stems, song.midi]
        aside += [song.words, song.lines] if song.lyrics_file and song.lines else []
        aside += [song.tracks] if song.tracks_file else []
        state = [line.strip(), str(self.folder), aside, audio_state(song)]
        one = int.from_bytes(hashlib.sha256(repr(state).encode()).digest(), "big")
        self.digest = (self.digest + times * one) % 2**256


# Bytes a second by suffix: good enough to fill shards evenly without opening a file.
_BYTES_PER_SECOND = {".wav": 176_400, ".flac": 100_000}
_COMPRESSED = 20_000


def guess_seconds(song: Song) -> float:
    """A song's length, estimated from the size of its file."""
    rate = _BYTES_PER_SECOND.get(song.audio.suffix.lower(), _COMPRESSED)
    return files.file_size(song.audio) / rate


def audio_state(song: Song) -> list[Any]:
    """Changes with a song's sound file: id, name, size and modification time."""
    try:
        stat = song.audio.stat()
    except OSError:
        return [song.id, song.audio.name, 0, 0]
    return [song.id, song.audio.name, stat.st_size, stat.st_mtime_ns]


def to_entry(song: Song, folder: Path) -> dict[str, Any]:
    """The manifest line of a song as a dict; paths inside `folder` are relative to it."""

    def relative(path: Path) -> str:
        inside = path.is_relative_to(folder)
        return path.relative_to(folder).as_posix() if inside else path.as_posix()

    in_file = read_lyrics(song.lyrics_file) if song.lyrics_file else Lyrics()
    entry: dict[str, Any] = {}
    for field in dataclasses.fields(song):
        value = getattr(song, field.name)
        if value in (None, "", ()) or field.name == "tracks":
            continue
        if field.name == "lyrics" and song.lyrics_file:
            continue
        if song.lyrics_file and value == getattr(in_file, field.name, None):
            continue  # read from there again
        if isinstance(value, Path):
            value = relative(value)
        elif field.name == "stems":
            value = {name: relative(path) for name, path in value}
        entry[field.name] = value
    return entry


def write_manifest(songs: Iterable[Song], path: str | Path) -> int:
    """Writes the songs as `songs.jsonl`, atomically; returns their number."""
    path = Path(path)
    folder = path.resolve().parent
    return files.write_json_lines(path, (to_entry(song, folder) for song in songs))
