"""Figures of every song of a data set in an SQLite file, measured by worker processes.

A song with the same sound is not measured again: an interrupted report continues, and that of a
grown data set measures the new songs. Memory does not grow with the number of songs.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipeline.report.measure import VERSION, measure
from data_pipeline.songs import PreparedSong, prepared_songs, require_audio
from data_pipeline.workers import results
from jukejax import files
from jukejax.errors import DataError

NAME = "measures.sqlite"
_COMMIT = 64  # songs measured between commits
_TABLES = """
create table if not exists songs (
    id text primary key, state text, pass integer, split text, seconds real, artist text,
    loudness real, peak_db real, silence real, clipped real, digest text,
    lyrics integer, words integer, method text, score real, adherence real);
create table if not exists genres (song text, genre text);
create table if not exists prints (value integer, frame integer, song text);
create index if not exists genres_by_song on genres(song);
create index if not exists prints_by_song on prints(song);
create index if not exists prints_by_value on prints(value);
create index if not exists songs_by_digest on songs(digest);
"""


@contextlib.contextmanager
def opened(out: Path) -> Iterator[sqlite3.Connection]:
    """The file of figures in `out`, created if it does not exist.

    Raises:
      DataError: it is not a file of figures.
    """
    out.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(out / NAME)
    try:
        database.executescript(_TABLES)
        yield database
    except sqlite3.DatabaseError as error:
        raise DataError(
            f"{out / NAME} cannot be used ({error}); remove it, and the songs are measured again"
        ) from error
    finally:
        database.close()


def collect(data_dir: Path, database: sqlite3.Connection, workers: int, show: bool = True) -> int:
    """Measures the songs that are not in the file yet; returns their number.

    Raises:
      DataError: the folder has no prepared songs, or a worker died.
    """
    require_audio(data_dir)
    if workers < 1:
        raise DataError(f"--workers is {workers}; give 1 or more")
    listed = prepared_songs(data_dir)
    states = _States(data_dir)
    (number,) = database.execute("select coalesce(max(pass), 0) + 1 from songs").fetchone()
    done = 0
    with tqdm(total=len(listed), unit="song", desc="measure", disable=not show) as bar:

        def pending() -> Iterator[PreparedSong]:
            for song in listed:
                state = states.of(song)
                # labels may have changed though the sound has not
                row = database.execute("select state from songs where id = ?", (song.id,))
                if row.fetchone() == (state,):
                    _store(database, song, _labels(song, number))
                    bar.update()
                else:
                    yield song

        for song, figures in _measured(data_dir, pending(), workers):
            prints = figures.pop("prints")
            columns = {"state": states.of(song), **figures, **_labels(song, number)}
            _store_figures(database, song, columns, prints)
            done += 1
            bar.update()
            if done % _COMMIT == 0:
                database.commit()
    for table, column in (("genres", "song"), ("prints", "song")):
        database.execute(
            f"delete from {table} where {column} in (select id from songs where pass < ?)",
            (number,),
        )
    database.execute("delete from songs where pass < ?", (number,))  # no longer in the data set
    database.commit()
    return done


class _States:
    """Changes with a song's sound: its shard's digest, its place, the version of the figures."""

    def __init__(self, data_dir: Path) -> None:
        self.digests: dict[tuple[str, int], str] = {}
        for path in sorted((data_dir / "shards").glob("*-of-*.json")):
            split, index, *_ = path.stem.split("-")
            self.digests[split, int(index)] = (files.read_json(path) or {}).get("digest", "")

    def of(self, song: PreparedSong) -> str:
        place = [VERSION, self.digests.get((song.split, song.shard)), song.n_samples]
        return json.dumps([*place, song.first_record])


def _measured(
    data_dir: Path, songs: Iterator[PreparedSong], workers: int
) -> Iterable[tuple[PreparedSong, dict[str, Any]]]:
    """Songs with their figures, in order."""
    of_song = functools.partial(measure, data_dir)
    if workers == 1:
        return ((song, of_song(song)) for song in songs)
    return results(of_song, songs, workers)


def _labels(song: PreparedSong, number: int) -> dict[str, Any]:
    """Columns that do not depend on a song's sound; `number` is that of this pass."""
    alignment = song.alignment or {}
    scores = {name: alignment.get(name) for name in ("score", "adherence")}
    return {
        "pass": number,
        "split": song.split,
        "artist": song.artist,
        "lyrics": len(song.lyrics.split()),
        "words": len(song.words),
        "method": alignment.get("method") or ("given" if song.words else None),
        **{name: float(x) if isinstance(x, int | float) else None for name, x in scores.items()},
    }


def _store(database: sqlite3.Connection, song: PreparedSong, columns: dict[str, Any]) -> None:
    """Writes columns of a song, leaving its others, and its genres."""
    names = ", ".join(columns)
    marks = ", ".join("?" * len(columns))
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns)
    database.execute(
        f"insert into songs (id, {names}) values (?, {marks})"
        f" on conflict(id) do update set {changes}",
        [song.id, *columns.values()],
    )
    database.execute("delete from genres where song = ?", (song.id,))
    rows = [(song.id, genre) for genre in dict.fromkeys(song.genres)]
    database.executemany("insert into genres values (?, ?)", rows)


def _store_figures(
    database: sqlite3.Connection, song: PreparedSong, columns: dict[str, Any], prints: Any
) -> None:
    """Writes all columns of a song, and its fingerprint."""
    seconds = song.n_samples / song.sample_rate
    _store(database, song, {"seconds": seconds, **columns})
    database.execute("delete from prints where song = ?", (song.id,))
    rows = [(value, frame, song.id) for value, frame in prints]
    database.executemany("insert into prints values (?, ?, ?)", rows)
