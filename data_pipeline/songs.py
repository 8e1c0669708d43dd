"""`songs.jsonl` of a prepared data set: its songs, and which records are theirs."""

import dataclasses
import functools
import json
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from data_pipeline import lines
from data_pipeline.lines import Lines
from jukejax import files, stored
from jukejax.errors import DataError
from jukejax.label_kinds import KINDS
from jukejax.text.lyric_files import Section
from jukejax.text.word_times import Word
from jukejax.tracks import Event

NAME = "songs.jsonl"
SAMPLE_RATE = 44_100  # Hz, by default
_CRC = "crc32"
CODES = "codes.json"  # only codes data sets have it; songs.jsonl audio data sets have too


@dataclasses.dataclass(frozen=True)
class PreparedSong:
    """A song whose records are written; `index` is its row in `songs.jsonl`.

    Its records are `first_record .. first_record + records - 1` of its split, in shard `shard`.
    """

    index: int
    id: str
    split: str
    shard: int
    first_record: int
    records: int
    n_samples: int
    audio: str
    artist: str = ""
    album: str = ""
    genres: tuple[str, ...] = ()
    year: int | None = None
    tags: tuple[str, ...] = ()
    lyrics: str = ""
    words: tuple[Word, ...] = ()
    sections: tuple[Section, ...] = ()
    tracks: dict[str, tuple[Event, ...]] = dataclasses.field(default_factory=dict, hash=False)
    licence: str = ""
    group: str = ""
    alignment: dict[str, Any] | None = None  # how `words` were found
    sample_rate: int = SAMPLE_RATE


_FIELDS: dict[str, stored.Types] = {
    **dict.fromkeys(("index", "shard", "first_record", "records", "n_samples", "sample_rate"), int),
    **dict.fromkeys(("id", "split", "audio", "artist", "album", "lyrics", "licence", "group"), str),
}
_OPTIONAL: dict[str, stored.Types] = {"year": int, "alignment": dict}
# In memory for every song: 36 bytes, and 12 of its line's place in the file.
_COLUMNS = np.dtype(
    [
        ("n_samples", np.int64),
        ("first_record", np.int64),
        ("shard", np.int32),
        ("sample_rate", np.int32),
        ("index", np.int32),
        ("split", "S8"),
    ]
)


class PreparedSongs(Lines[PreparedSong]):
    """Songs of a prepared data set, read on demand; their numbers are columns in memory."""

    def __init__(
        self,
        path: Path,
        places: lines.Places,
        parse: Callable[[bytes], PreparedSong],
        file: IO[bytes] | None = None,
        columns: npt.NDArray[Any] | None = None,
    ) -> None:
        """Columns (n,) of the songs of `places`; read from all of them if not given.

        Raises:
          DataError: a line is damaged.
        """
        super().__init__(path, places, parse, file)
        self.columns = self._read_columns() if columns is None else columns

    def _read_columns(self) -> npt.NDArray[Any]:
        columns = np.zeros(len(self), _COLUMNS)
        for row in range(len(self)):
            where, remedy = f"line {row + 1} of {self.path}", "prepare the songs again"
            try:
                song = self[row]
                stored.check_fields(vars(song), _FIELDS, where, remedy, _OPTIONAL)
                columns[row] = tuple(getattr(song, str(name)) for name in _COLUMNS.names or ())
                lengths = song.n_samples, song.records, song.sample_rate
                if song.index != row or min(lengths) < 1 or min(song.first_record, song.shard) < 0:
                    raise ValueError("its index or lengths are not those of a song")
            except DataError:
                raise
            except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError,
                    RecursionError) as error:  # fmt: skip
                raise DataError(f"{where} is damaged ({error!s:.200}); {remedy}") from error
        return columns

    def column(self, name: str) -> npt.NDArray[Any]:
        """(n,) of `n_samples`, `first_record`, `shard`, `sample_rate`, `index`, or `split`."""
        return self.columns[name]

    def take(self, rows: lines.Rows | slice) -> "PreparedSongs":
        """The songs with these numbers, in the order given."""
        return PreparedSongs(
            self.path, self.places[rows], self.parse, self._file, self.columns[rows]
        )

    def of_split(self, split: str) -> "PreparedSongs":
        """The songs of one split."""
        return self.take(np.flatnonzero(self.columns["split"] == split.encode()))

    def by_shard(self) -> dict[int, "PreparedSongs"]:
        """The songs of each shard of one split, in order."""
        order = np.argsort(self.columns["shard"], kind="stable")
        shards, firsts = np.unique(self.columns["shard"][order], return_index=True)
        ends = np.append(firsts, len(order))[1:]
        found = zip(shards, firsts, ends, strict=True)
        return {int(shard): self.take(order[begin:end]) for shard, begin, end in found}


def write_songs(folder: Path, songs: Iterable[PreparedSong]) -> None:
    """Writes `songs.jsonl` atomically; each line ends with the CRC-32 of what is before it."""
    files.write_json_lines(folder / NAME, map(_row, songs))


def _row(song: PreparedSong) -> dict[str, Any]:
    row = dataclasses.asdict(song)
    text = json.dumps(row, ensure_ascii=False).removesuffix("}")
    return {**row, _CRC: zlib.crc32(text.encode())}


def prepared_songs(folder: str | Path) -> PreparedSongs:
    """The songs of a prepared audio or codes data set, in order of `index`.

    Raises:
      DataError: the folder has no `songs.jsonl`, or a damaged one.
    """
    return _read(*_state(folder))


def find_song(folder: str | Path, song_id: str) -> PreparedSong:
    """The song with this id.

    Raises:
      DataError: there is no such song.
    """
    songs = prepared_songs(folder)
    for row in np.flatnonzero(_id_hashes(*_state(folder)) == hash(song_id)):
        if songs[int(row)].id == song_id:
            return songs[int(row)]
    raise DataError(f"{folder} has no song {song_id!r}; its {NAME} lists its songs")


def require_audio(folder: str | Path) -> None:
    """Raises DataError if the folder is a codes data set."""
    if (Path(folder) / CODES).exists():
        raise DataError(
            f"{folder} holds codes, not songs; give the folder that `jukejax prepare build` wrote"
        )


def _state(folder: str | Path) -> tuple[Path, int]:
    """The path of `songs.jsonl` and its modification time, in nanoseconds."""
    path = Path(folder).resolve() / NAME
    try:
        return path, path.stat().st_mtime_ns
    except OSError as error:
        raise DataError(
            f"{folder} is not a prepared data set (no {NAME}); make it with "
            "`jukejax prepare build`, or finish the run that was interrupted"
        ) from error


@functools.lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> PreparedSongs:
    return PreparedSongs(path, lines.read_places(path), _parse)


def _parse(line: bytes) -> PreparedSong:
    row = json.loads(line)
    crc = row.pop(_CRC, None)  # earlier versions wrote none, and editors may remove it
    if crc is not None and crc != zlib.crc32(line.rpartition(f', "{_CRC}"'.encode())[0]):
        raise ValueError(f"its CRC-32 differs; edited lines must not have the field {_CRC!r}")
    row |= {kind.field: _texts(row[kind.field]) for kind in KINDS if kind.most}
    row["words"] = tuple((_text(text), a + 0, b + 0) for text, a, b in row["words"])
    row["sections"] = tuple((_text(name), a, b) for name, a, b in row.get("sections", ()))
    row["tracks"] = {
        name: tuple((_text(what), a + 0, b + 0) for what, a, b in events)
        for name, events in row.get("tracks", {}).items()
    }
    return PreparedSong(**row)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.60} is not a list")
    return tuple(map(_text, value))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is not text")
    return value


@functools.lru_cache(maxsize=4)
def _id_hashes(path: Path, changed: int) -> npt.NDArray[np.int64]:
    """Hashes (n,) of the songs' ids, of this process."""
    return np.fromiter((hash(song.id) for song in _read(path, changed)), np.int64)
