"""Which songs are held out for testing."""

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data_pipeline.manifest import Song
from jukejax.text.labels import normalise

_ASKED = {"": 0, "train": 1, "test": 2}  # codes of the split that the manifest gives
_HASHES_KEPT = 4096

Bools = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint64]


def in_test(songs: Sequence[Song], test_fraction: float, seed: int = 0) -> Bools:
    """Which songs, sorted by id, are in the test split: (n,) bool.

    All songs of a group get the same split. A split given in the manifest decides for its group (if
    they differ, that of the first song by id). The other groups are sorted by artist and then by a
    hash of (seed, group), and every 1/test_fraction-th group is a test group: each artist has its
    share of test groups, to within one. With a fraction inside (0, 1) a single group goes to
    "train", and two or more groups leave neither split empty.

    Groups and artists are represented by 64-bit hashes, about 60 bytes a song. Two groups with the
    same hash (once in 10^7 sets of a million songs) get the same split; nothing else happens.
    """
    if not len(songs):
        return np.zeros(0, bool)
    group, artist, asked = _columns(songs, seed)
    order = np.argsort(group, kind="stable")  # inside a group by id
    group = group[order]
    first = np.flatnonzero(np.diff(group, prepend=~group[:1]))  # of each group
    group, artist = group[first], artist[order[first]]
    test = np.zeros(len(group), bool)
    free = np.ones(len(group), bool)
    given = np.flatnonzero(asked[order])
    decided, place = np.unique(np.searchsorted(first, given, side="right") - 1, return_index=True)
    free[decided] = False
    test[decided] = asked[order[given[place]]] == _ASKED["test"]
    rows = np.flatnonzero(free)
    rows = rows[np.lexsort((group[rows], artist[rows]))]
    phase = int(_hash(seed, "phase", "")[:8], 16) / 2**32
    shares = (np.arange(len(rows) + 1) * test_fraction + phase).astype(np.int64)
    test[rows] = shares[1:] > shares[:-1]
    _keep_both(rows, test, test_fraction)
    of_song = np.empty(len(order), bool)
    of_song[order] = np.repeat(test, np.diff(first, append=len(order)))
    return of_song


def _columns(songs: Sequence[Song], seed: int) -> tuple[Hashes, Hashes, npt.NDArray[np.uint8]]:
    """Hashes of group and artist, and the given split, of every song: (n,) each."""
    group, artist = np.zeros(len(songs), np.uint64), np.zeros(len(songs), np.uint64)
    asked = np.zeros(len(songs), np.uint8)
    short = functools.lru_cache(_HASHES_KEPT)(lambda name: _short(seed, "artist", normalise(name)))
    for row, song in enumerate(songs):
        group[row] = _short(seed, "group", song.group or f"id:{song.id}")
        artist[row] = short(song.artist)
        asked[row] = _ASKED[song.split]
    return group, artist, asked


def conflicts(songs: Sequence[Song]) -> list[str]:
    """Remarks about groups whose songs have different splits in the manifest; two passes."""
    asked = (
        _short(0, "asked", song.group) & ~1 | (song.split == "test")
        for song in songs
        if song.group and song.split
    )
    groups = np.unique(np.fromiter(asked, np.uint64)) >> np.uint64(1)  # sorted; twice: both splits
    both = set(groups[1:][groups[1:] == groups[:-1]].tolist())
    names = {
        song.group
        for song in (songs if both else ())
        if song.group and _short(0, "asked", song.group) >> 1 in both
    }
    return [
        f"songs of group {group!r} have both splits; that of its first song by id is used for all"
        for group in sorted(names)
    ]


def _keep_both(free: npt.NDArray[np.intp], test: Bools, test_fraction: float) -> None:
    """Moves one group when a split is empty by chance; a single group is for training."""
    if not 0 < test_fraction < 1 or not len(free):
        return
    if len(test) == 1:
        test[free[0]] = False
    elif test.all() or not test.any():
        test[free[0]] = not test[0]


def _short(seed: int, what: str, text: str) -> int:
    """The first 64 bits of `_hash`."""
    return int(_hash(seed, what, text)[:16], 16)


def _hash(seed: int, what: str, text: str) -> str:
    return hashlib.sha256(f"{seed}\0{what}\0{text}".encode()).hexdigest()
