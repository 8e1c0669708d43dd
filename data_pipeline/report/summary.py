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

    def one(query: str, *values: Any) -> Any:
        return database.execute(query, values).fetchone()[0]

    def rows(query: str, *values: Any) -> list[list[Any]]:
        return [list(row) for row in database.execute(query, values)]

    songs, seconds = one("select count(*) from songs"), one("select sum(seconds) from songs") or 0.0
    timed = one("select coalesce(sum(seconds), 0) from songs where words > 0")
    sung = one("select coalesce(sum(seconds), 0) from songs where lyrics > 0")
    top = "group by name order by 2 desc, name limit ?"
    return {
        "songs": songs,
        "hours": seconds / 3600,
        "splits": {
            name: {"songs": count, "hours": length / 3600}
            for name, count, length in rows(
                "select split, count(*), sum(seconds) from songs group by split order by 2 desc"
            )
        },
        "artists": {
            "count": one("select count(distinct artist) from songs where artist != ''"),
            "songs_without": one("select count(*) from songs where artist = ''"),
            "most": rows(
                "select artist as name, count(*), sum(seconds) / 3600 from songs"
                f" where artist != '' {top}",
                _TOP,
            ),
        },
        "genres": {
            "count": one("select count(distinct genre) from genres"),
            "songs_without": one(
                "select count(*) from songs where id not in (select song from genres)"
            ),
            "most": rows(
                "select genre as name, count(*), sum(seconds) / 3600 from genres"
                f" join songs on songs.id = genres.song {top}",
                _TOP,
            ),
        },
        "minutes": _spread(database, "seconds"),
        "loudness_lufs": _spread(database, "loudness"),
        "silence_percent": _spread(database, "silence")
        | {
            "of_all_time": 100 * (one("select sum(silence * seconds) from songs") or 0) / seconds
            if seconds
            else None,
            "songs_mostly_silent": one(
                "select count(*) from songs where silence > ?", MOSTLY_SILENT
            ),
            "most": rows(
                "select id, 100 * silence from songs where silence > ? order by 2 desc, id limit ?",
                MOSTLY_SILENT,
                _TOP,
            ),
        },
        "clipping": {
            "songs": one("select count(*) from songs where clipped > ?", MOST_CLIPPED),
            "most": rows(
                "select id, 100 * clipped from songs where clipped > ? order by 2 desc, id limit ?",
                MOST_CLIPPED,
                _TOP,
            ),
        },
        "duplicates": {"exact": duplicates.exact(database), "near": duplicates.near(database)},
        "lyrics": {
            "songs": one("select count(*) from songs where lyrics > 0"),
            "share_of_time": sung / seconds if seconds else None,
            "words": one("select coalesce(sum(lyrics), 0) from songs"),
        },
        "alignment": {
            "songs": one("select count(*) from songs where words > 0"),
            "share_of_sung_time": timed / sung if sung else None,
            "methods": dict(
                rows(
                    "select method, count(*) from songs where method is not null"
                    " group by method order by 2 desc"
                )
            ),
            "score": _spread(database, "score"),
            "adherence": _spread(database, "adherence"),
        },
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
