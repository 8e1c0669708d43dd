"""`songs.jsonl` of a prepared data set: its songs, and where their records are."""

import dataclasses
import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_pipeline import files
from data_pipeline.errors import DataError
from data_pipeline.manifest import Word

NAME = "songs.jsonl"
SAMPLE_RATE = 44_100  # Hz, where no other is asked for
CODES = "codes.json"  # tells a codes data set, which has a songs.jsonl too, from an audio one


@dataclasses.dataclass(frozen=True)
class PreparedSong:
    """A song whose records are written; `index` is its row in `songs.jsonl`.

    Records `first_record .. first_record + records - 1` of the split are its own, and lie in
    shard number `shard` of the split.
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
    licence: str = ""
    group: str = ""
    alignment: dict[str, Any] | None = None  # how `words` were found
    sample_rate: int = SAMPLE_RATE


def write_songs(folder: Path, songs: Iterable[PreparedSong]) -> None:
    """Writes `songs.jsonl` atomically."""
    files.write_json_lines(folder / NAME, [dataclasses.asdict(song) for song in songs])


def prepared_songs(folder: str | Path) -> list[PreparedSong]:
    """The songs of a prepared audio or codes data set, in order of `index`.

    Raises:
      DataError: the folder holds no `songs.jsonl`, or one that is damaged.
    """
    return list(_read(*_state(folder)))


def find_song(folder: str | Path, song_id: str) -> PreparedSong:
    """The song of that id.

    Raises:
      DataError: there is no such song.
    """
    song = _by_id(*_state(folder)).get(song_id)
    if song is None:
        raise DataError(f"{folder} has no song {song_id!r}; its {NAME} lists those it has")
    return song


def require_audio(folder: str | Path) -> None:
    """Raises DataError where the folder is a codes data set."""
    if (Path(folder) / CODES).exists():
        raise DataError(
            f"{folder} holds codes, not songs; give the folder that "
            "`python -m experiments.prepare build` wrote"
        )


def _state(folder: str | Path) -> tuple[Path, int]:
    """The path of `songs.jsonl` and its time of change."""
    path = Path(folder).resolve() / NAME
    try:
        return path, path.stat().st_mtime_ns
    except OSError as error:
        raise DataError(
            f"{folder} is not a prepared data set (no {NAME}); make it with "
            "`python -m experiments.prepare build`, or finish the run that was interrupted"
        ) from error


@functools.lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> tuple[PreparedSong, ...]:
    songs = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                row["genres"], row["tags"] = tuple(row["genres"]), tuple(row["tags"])
                row["words"] = tuple((text, a, b) for text, a, b in row["words"])
                songs.append(PreparedSong(**row))
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(
                    f"line {number} of {path} is damaged ({error}); prepare the songs again"
                ) from error
    return tuple(songs)


@functools.lru_cache(maxsize=4)
def _by_id(path: Path, changed: int) -> dict[str, PreparedSong]:
    return {song.id: song for song in _read(path, changed)}
