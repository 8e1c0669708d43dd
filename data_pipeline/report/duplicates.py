"""Songs that occur more than once: the same samples, or nearly the same sound."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from typing import Any

_SHARED = 5  # values two songs have at one distance in time, at least, and
_SHARE = 0.02  # of those of the song that has fewer
_COMMON = 200  # a value in more places than this (a drone, a tone) tells nothing
_SLACK = 1  # frames that two distances may differ by


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
    """Pairs {"songs": [a, b], "matches", "shift_frames"}: one recording, coded, cut or moved.

    Pairs with the same PCM are left out. Memory grows with the pairs found, not with the songs.
    """
    found = []
    for song, digest in database.execute("select id, digest from songs order by id"):
        for other, (matches, shift) in sorted(_alike(database, song)):
            same = database.execute("select digest from songs where id = ?", (other,)).fetchone()
            if same != (digest,):
                found.append({"songs": [song, other], "matches": matches, "shift_frames": shift})
    return found


def _alike(database: sqlite3.Connection, song: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Songs after this one that sound like it, with (matches, frames that they come later)."""
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
