"""Figures of all songs of a data set, from the file of figures of each."""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np

from data_pipeline.report import duplicates

MOST_CLIPPED = 1e-4  # share of samples; songs with more are listed
MOSTLY_SILENT = 0.5
_TOP = 20  # artists and genres that are named, and songs that are listed of each kind

# Scale and edges of each column's histogram; the first and last bars include values beyond.
_HISTOGRAMS: dict[str, tuple[float, list[float]]] = {
    "seconds": (1 / 60, [x / 2 for x in range(0, 21)]),  # minutes
    "loudness": (1.0, [float(x) for x in range(-40, 1, 2)]),  # LUFS
    "silence": (100.0, [0, 0.5, 1, 2, 5, 10, 20, 50, 100]),  # per cent of the time
    "score": (1.0, []),
    "adherence": (1.0, []),
}


def summarise(database: sqlite3.Connection) -> dict[str, Any]:
    """Content of `report.json`: figures, the commonest labels, songs to look at."""
    seconds = _one(database, "select sum(seconds) from songs") or 0.0
    sung = _one(database, "select sum(seconds) from songs where lyrics > 0") or 0.0
    silent = _one(database, "select sum(silence * seconds) from songs") or 0.0
    splits = _rows(
        database, "select split, count(*), sum(seconds) from songs group by split order by 2 desc"
    )
    silence = _over(database, "silence", MOSTLY_SILENT)
    return {
        "songs": _count(database, "songs"),
        "hours": seconds / 3600,
        "splits": {name: {"songs": n, "hours": length / 3600} for name, n, length in splits},
        "artists": _labels(
            database, "artist", "songs where artist != ''", "songs where artist = ''"
        ),
        "genres": _labels(
            database,
            "genre",
            "genres join songs on songs.id = genres.song",
            "songs where id not in (select song from genres)",
        ),
        "minutes": _spread(database, "seconds"),
        "loudness_lufs": _spread(database, "loudness"),
        "silence_percent": _spread(database, "silence")
        | {
            "of_all_time": 100 * silent / seconds if seconds else None,
            "songs_mostly_silent": silence["songs"],
            "most": silence["most"],
        },
        "clipping": _over(database, "clipped", MOST_CLIPPED),
        "duplicates": _duplicates(database),
        "lyrics": {
            "songs": _count(database, "songs where lyrics > 0"),
            "share_of_time": sung / seconds if seconds else None,
            "words": _one(database, "select coalesce(sum(lyrics), 0) from songs"),
        },
        "alignment": _alignment(database, sung),
    }


def _duplicates(database: sqlite3.Connection) -> dict[str, Any]:
    exact, near = duplicates.exact(database), duplicates.near(database)
    copies = [*exact, *(pair["songs"] for pair in near)]
    across = duplicates.across_splits(database, copies)
    return {"exact": exact, "near": near, "across_splits": across}


def _one(database: sqlite3.Connection, query: str) -> Any:
    return database.execute(query).fetchone()[0]


def _count(database: sqlite3.Connection, rows: str) -> int:
    return int(_one(database, f"select count(*) from {rows}"))


def _rows(database: sqlite3.Connection, query: str) -> list[list[Any]]:
    return [list(row) for row in database.execute(query)]


def _over(database: sqlite3.Connection, column: str, limit: float) -> dict[str, Any]:
    """Number of songs with a share over `limit`, and those with most, in percent."""
    over = f"songs where {column} > {limit}"
    most = f"select id, 100 * {column} from {over} order by 2 desc, id limit {_TOP}"
    return {"songs": _count(database, over), "most": _rows(database, most)}


def _labels(
    database: sqlite3.Connection, label: str, labelled: str, unlabelled: str
) -> dict[str, Any]:
    """Number of labels, of songs without any, and the labels of most songs, with hours."""
    most = (
        f"select {label} as name, count(*), sum(seconds) / 3600 from {labelled}"
        f" group by name order by 2 desc, name limit {_TOP}"
    )
    return {
        "count": _one(database, f"select count(distinct {label}) from {labelled}"),
        "songs_without": _count(database, unlabelled),
        "most": _rows(database, most),
    }


def _alignment(database: sqlite3.Connection, sung: float) -> dict[str, Any]:
    """Songs with word times, their share of the seconds that have lyrics, methods and scores."""
    timed = _one(database, "select coalesce(sum(seconds), 0) from songs where words > 0")
    methods = _rows(
        database,
        "select method, count(*) from songs where method is not null"
        " group by method order by 2 desc",
    )
    return {
        "songs": _count(database, "songs where words > 0"),
        "share_of_sung_time": timed / sung if sung else None,
        "methods": {name: songs for name, songs in methods},
        "score": _spread(database, "score"),
        "adherence": _spread(database, "adherence"),
    }


def _spread(database: sqlite3.Connection, column: str) -> dict[str, Any]:
    """Songs that have the figure, min, p10, median, p90, max, and a histogram (edges, counts)."""
    scale, edges = _HISTOGRAMS[column]
    known = f"from songs where {column} is not null"
    (count,) = database.execute(f"select count(*) {known}").fetchone()
    if not count:
        return {"songs": 0}

    def at(part: float) -> float:
        place = round(part * (count - 1))
        query = f"select {column} {known} order by {column} limit 1 offset ?"
        return scale * float(database.execute(query, (place,)).fetchone()[0])

    names = {"min": 0.0, "p10": 0.1, "median": 0.5, "p90": 0.9, "max": 1.0}
    quantiles = {name: at(part) for name, part in names.items()}
    if not edges:  # of no fixed range
        low, high = quantiles["min"], quantiles["max"]
        edges = np.linspace(low, high if high > low else low + 1.0, 21).tolist()
    counts = np.zeros(len(edges) - 1, np.int64)
    cursor = database.execute(f"select {column} {known}")
    while rows := cursor.fetchmany(10_000):
        values = np.clip(scale * np.array(rows, np.float64)[:, 0], edges[0], edges[-1])
        counts += np.histogram(values, edges)[0]
    histogram = {"edges": list(edges), "counts": counts.tolist()}
    return {"songs": count, **quantiles, "histogram": histogram}
