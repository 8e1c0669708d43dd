"""Songs that occur more than once: the same samples, or nearly the same sound."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

_SHARED = 5  # values that two songs share at one distance in time, at least, and
_SHARE = 0.02  # of the values of the song that has fewer
_COMMON = 200  # a value in more places than this (a drone, a tone) is ignored
_SLACK = 1  # frames by which distances may differ


def exact(database: sqlite3.Connection) -> list[list[str]]:
    """Groups of songs with the same PCM."""
    rows = database.execute(
        "select digest, id from songs where digest in"
        " (select digest from songs group by digest having count(*) > 1) order by digest, id"
    )
    groups: dict[str, list[str]] = {}
    for digest, song in rows:
        groups.setdefault(digest, []).append(song)
    return sorted(groups.values())


def near(database: sqlite3.Connection) -> list[dict[str, Any]]:
    """Pairs {"songs": [a, b], "matches", "shift_frames"} of one recording, coded, cut or shifted.

    Without pairs of the same PCM. Memory grows with the pairs, not with the songs.
    """
    pairs = []
    for song, digest in database.execute("select id, digest from songs order by id"):
        for other, (matches, shift) in sorted(_alike(database, song)):
            same = database.execute("select digest from songs where id = ?", (other,)).fetchone()
            if same != (digest,):
                pairs.append({"songs": [song, other], "matches": matches, "shift_frames": shift})
    return pairs


def across_splits(database: sqlite3.Connection, copies: Sequence[list[str]]) -> list[list[str]]:
    """Those of the given lists of copies whose songs are in more than one split."""
    query = "select split from songs where id = ?"
    return [
        ids for ids in copies if len({database.execute(query, (x,)).fetchone() for x in ids}) > 1
    ]


def _alike(database: sqlite3.Connection, song: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Later songs that sound like this one, with (matches, frames by which they are later)."""
    rows = database.execute(
        "select b.song, b.frame - a.frame from prints a join prints b on b.value = a.value"
        " where a.song = ? and b.song > a.song"
        " and (select count(*) from (select 1 from prints c where c.value = a.value limit ?)) < ?",
        (song, _COMMON, _COMMON),
    )
    shifts: dict[str, Counter[int]] = {}
    for other, shift in rows:
        shifts.setdefault(other, Counter())[shift] += 1
    for other, counts in shifts.items():
        if counts.total() < _SHARED:
            continue
        near = range(-_SLACK, _SLACK + 1)
        matches, shift = max((sum(counts[x + d] for d in near), x) for x in list(counts))
        fewer = database.execute(
            "select min(n) from (select count(*) as n from prints where song in (?, ?)"
            " group by song)",
            (song, other),
        ).fetchone()[0]
        if matches >= max(_SHARED, _SHARE * fewer):
            yield other, (matches, shift)
