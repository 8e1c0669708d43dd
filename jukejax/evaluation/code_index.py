"""An index on disk of songs' codes that finds the longest runs shared with other codes.

A shard is the codes of several songs, concatenated with a separator, and the order of all their
suffixes (a suffix array, Manber and Myers 1993). The longest run that begins at a code of a query
is next to the place where the query's suffix would be sorted in, so a search is exact, however much
the songs repeat. A code takes 6 bytes (2 for itself, 4 for its place in the order), mapped into
memory rather than read. n codes of a query, m queries, depth codes compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jukejax import files
from jukejax.config import ConfigError

END = 65_535  # separator after each song; not a code
SHARD = 2**25  # codes of a shard, about: building it takes 60 bytes each, 2 GiB
NAME = "index.json"
_DEPTH = 32  # codes of a run compared in the first pass
_COMPARED = 2**22  # codes compared at once: bounds the memory of a search

Codes = NDArray[np.uint16]
Read = Callable[[], NDArray[Any]]


class Runs(NamedTuple):
    """For each code of a query (n,): the longest shared run that begins there, and its place."""

    length: NDArray[np.int64]
    song: NDArray[np.int64]  # number in `CodeIndex.songs`; -1 where the length is 0
    place: NDArray[np.int64]  # first code of the run in that song


def suffix_order(codes: NDArray[Any]) -> NDArray[np.uint32]:
    """The order (n,) of the suffixes of codes (n,), by prefix doubling."""
    n = len(codes)
    rank = np.unique(codes, return_inverse=True)[1].astype(np.int64)
    width = 1
    while True:
        after = np.zeros(n, np.int64)  # the end sorts before every code
        after[: -width or None] = rank[width:] + 1
        key = rank * (n + 1) + after
        order = np.argsort(key, kind="stable")
        ordered = key[order]
        new = np.empty(n, np.int64)
        new[order] = np.concatenate([[0], np.cumsum(ordered[1:] != ordered[:-1])])
        rank, width = new, 2 * width
        if width >= n or rank[order[-1]] == n - 1:
            return order.astype(np.uint32)


class Shard:
    """The codes of several songs in one file, and the order of its suffixes in another."""

    def __init__(self, path: Path) -> None:
        self.codes: Codes = np.load(path / "codes.npy", mmap_mode="r")
        self.order: NDArray[np.uint32] = np.load(path / "order.npy", mmap_mode="r")
        self.starts: NDArray[np.int64] = np.load(path / "starts.npy")
        self.songs: list[str] = json.loads((path / "songs.json").read_text("utf-8"))

    @staticmethod
    def write(path: Path, songs: list[tuple[str, Codes]]) -> None:
        parts = [part for _, codes in songs for part in (codes, np.array([END], np.uint16))]
        codes = np.concatenate(parts)
        lengths = np.array([len(codes) + 1 for _, codes in songs])
        with files.atomic_folder(path) as folder:
            np.save(folder / "codes.npy", codes)
            np.save(folder / "order.npy", suffix_order(codes))
            np.save(folder / "starts.npy", np.cumsum(lengths) - lengths)
            names = json.dumps([name for name, _ in songs], ensure_ascii=False)
            (folder / "songs.json").write_text(names, "utf-8")

    def _window(self, places: NDArray[np.int64], depth: int) -> NDArray[np.int32]:
        """Codes (m, depth) from places on; -2 after the end."""
        at = places[:, None] + np.arange(depth)
        window = self.codes[np.minimum(at, len(self.codes) - 1)].astype(np.int32)
        window[at >= len(self.codes)] = -2
        return window

    def longest(self, query: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Length and place in the shard (n,) of the longest run from each code of a query (n,)."""
        n = len(query)
        length, place = np.zeros(n, np.int64), np.zeros(n, np.int64)
        todo, depth = np.arange(n), _DEPTH
        while len(todo):
            padded = np.concatenate([query, np.full(depth, -1, np.int32)])
            for part in np.array_split(todo, -(-len(todo) * depth // _COMPARED)):
                wanted = padded[part[:, None] + np.arange(depth)]
                length[part], place[part] = self._search(wanted)
            todo, depth = todo[length[todo] == depth], 4 * depth
        return length, place

    def _search(self, wanted: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As `longest`, of the beginnings (m, depth) of suffixes; runs of `depth` codes at most."""
        m, depth = wanted.shape
        low, high = np.zeros(m, np.int64), np.full(m, len(self.order), np.int64)
        while (low < high).any():
            open_ = np.flatnonzero(low < high)
            middle = (low[open_] + high[open_]) // 2
            window = self._window(self.order[middle].astype(np.int64), depth)
            differ = window != wanted[open_]
            first = np.where(differ.any(1), differ.argmax(1), depth - 1)[:, None]
            pair = (np.take_along_axis(x, first, 1)[:, 0] for x in (window, wanted[open_]))
            below = np.less(*pair)
            low[open_[below]] = middle[below] + 1
            high[open_[~below]] = middle[~below]
        length, place = np.zeros(m, np.int64), np.zeros(m, np.int64)
        for neighbour in (low, low - 1):
            at = self.order[np.clip(neighbour, 0, len(self.order) - 1)].astype(np.int64)
            same = self._window(at, depth) == wanted
            shared = np.where(same.all(1), depth, np.argmin(same, axis=1))
            longer = shared > length
            length[longer], place[longer] = shared[longer], at[longer]
        return length, place


class CodeIndex:
    """An index in a folder, which songs can be added to."""

    def __init__(self, folder: str | Path, source: str) -> None:
        """Opens or creates an index.

        Args:
          source: what the codes are: a level of a VQ-VAE.

        Raises:
          ConfigError: the folder has an index of another source.
        """
        self.folder = Path(folder)
        note = self.folder / NAME
        if not note.exists():
            files.write_json(note, {"source": source})
        if (indexed := json.loads(note.read_text("utf-8"))["source"]) != source:
            raise ConfigError(
                f"{folder} holds an index of {indexed}, not of {source}; remove it, or choose "
                "another folder."
            )
        self.shards = [Shard(path) for path in sorted(self.folder.glob("shard_*"))]
        self.songs = [song for shard in self.shards for song in shard.songs]

    def add(self, songs: Iterable[tuple[str, Read]], shard: int = SHARD) -> None:
        """Adds songs (id, a function that reads its codes (n,)) that the index does not have yet.

        Each shard is written when it is full: an interrupted run continues from there, and memory
        does not grow with the number of songs.

        Raises:
          ConfigError: a code is not below 65,535.
        """
        present, pending, size = set(self.songs), list[tuple[str, Codes]](), 0
        for name, read in songs:
            if name in present:
                continue
            codes = np.asarray(read())
            if codes.size and not 0 <= codes.min() <= codes.max() < END:
                raise ConfigError(f"song {name!r} has codes outside 0..{END - 1}.")
            pending.append((name, codes.astype(np.uint16)))
            size += len(codes) + 1
            if size >= shard:
                self._write(pending)
                pending, size = [], 0
        if pending:
            self._write(pending)

    def _write(self, songs: list[tuple[str, Codes]]) -> None:
        path = self.folder / f"shard_{len(self.shards):06d}"
        Shard.write(path, songs)
        self.shards.append(Shard(path))
        self.songs += self.shards[-1].songs

    @property
    def codes(self) -> int:
        """Codes of all songs."""
        return sum(len(shard.codes) - len(shard.songs) for shard in self.shards)

    @property
    def bytes(self) -> int:
        """On disk."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def longest(self, query: NDArray[Any]) -> Runs:
        """The longest run that each code of a query (n,) begins, over all songs."""
        query = np.asarray(query).astype(np.int32)
        best = Runs(*(np.zeros(len(query), np.int64) for _ in range(3)))
        best.song[:] = -1
        before = 0
        for shard in self.shards:
            length, at = shard.longest(query)
            song = np.searchsorted(shard.starts, at, side="right") - 1
            longer = length > best.length
            best.length[longer] = length[longer]
            best.song[longer] = before + song[longer]
            best.place[longer] = (at - shard.starts[song])[longer]
            before += len(shard.songs)
        return best

    def song(self, number: int) -> Codes:
        """The codes (n,) of a song by number."""
        for shard in self.shards:
            if number < len(shard.songs):
                ends = np.append(shard.starts[1:], len(shard.codes)) - 1
                return shard.codes[shard.starts[number] : ends[number]]
            number -= len(shard.songs)
        raise IndexError(number)


class Near(NamedTuple):
    """The stretch of a song that shares the most codes with a window, code by code."""

    share: float  # of the window's codes, at the same places
    song: int
    start: int  # of the window in that song; may be before its first code


def nearest(index: CodeIndex, window: NDArray[Any], runs: Runs, seeds: int = 16) -> Near | None:
    """The nearest stretch among those that share one of a window's longest runs; None without one.

    Runs are seeds that are extended without gaps (as in BLAST, Altschul et al. 1990): each places
    the window in a song, and the codes that agree there are counted.
    """
    best: Near | None = None
    for song, start in _placed(runs, seeds):
        codes = index.song(song)
        low, high = max(start, 0), min(start + len(window), len(codes))
        agree = np.count_nonzero(codes[low:high] == window[low - start : high - start])
        near = Near(agree / len(window), song, start)
        if best is None or near.share > best.share:
            best = near
    return best


def _placed(runs: Runs, seeds: int) -> Iterator[tuple[int, int]]:
    """Distinct (song, start of the window in it), longest runs first."""
    seen: set[tuple[int, int]] = set()
    for i in np.argsort(-runs.length, kind="stable"):
        if not runs.length[i] or len(seen) == seeds:
            return
        placed = (int(runs.song[i]), int(runs.place[i] - i))
        if placed not in seen:
            seen.add(placed)
            yield placed
