"""Rows of a file of JSON lines, read on demand: 12 bytes of memory a row, whatever its length."""

import heapq
import itertools
import os
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

from jukejax.errors import DataError

PLACE = np.dtype([("offset", np.int64), ("length", np.int32)])  # of a line in its file, in bytes
_SORTED_AT_ONCE, _READ_AT_ONCE = 20_000, 100  # texts sorted in memory; texts read of a sorted run

Places = npt.NDArray[Any]
Rows = npt.NDArray[np.integer[Any]]
Row = TypeVar("Row")
Other = TypeVar("Other")


class Lines(Sequence[Row], Generic[Row]):
    """A selection of a file's lines, in any order, as rows.

    The file stays open, so replacing it by another of its name does no harm; a copy pickled to
    another process opens it again. Threads may read in parallel.
    """

    def __init__(
        self,
        path: Path,
        places: Places,
        parse: Callable[[bytes], Row],
        file: IO[bytes] | None = None,
    ) -> None:
        """Places (n,) of `PLACE`; `parse` makes a row of a line's bytes; `file`: `path`, opened."""
        self.path, self.places, self.parse = path, places, parse
        self._file = file or open(path, "rb", buffering=0)  # noqa: SIM115

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.places, self.parse)

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "Lines[Row]": ...
    def __getitem__(self, index: int | slice) -> "Row | Lines[Row]":
        if isinstance(index, slice):
            return self.take(index)
        return self.parse(self.text(index))

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(a == b for a, b in zip(self, other, strict=True))

    def text(self, index: int) -> bytes:
        """The bytes of a line.

        Raises:
          DataError: the file was cut short after it was opened.
        """
        offset, length = self.places[index].item()
        data = os.pread(self._file.fileno(), length, offset)
        if len(data) != length:
            raise DataError(f"{self.path} was changed while it was read; run again")
        return data

    def take(self, rows: Rows | slice) -> "Lines[Row]":
        """The rows with these numbers, in the order given."""
        return type(self)(self.path, self.places[rows], self.parse, self._file)

    def parsed(self, parse: Callable[[bytes], Other]) -> "Lines[Other]":
        """The same lines, read by another `parse`."""
        return Lines(self.path, self.places, parse, self._file)


def read_places(path: Path, skip: int = 0) -> Places:
    """Places (n,) of a file's lines after its first `skip` bytes, blank lines included."""
    with open(path, "rb") as file:
        file.seek(skip)
        count = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        places = np.zeros(count + 1, PLACE)
        file.seek(skip)
        offset, number = skip, 0
        for number, line in enumerate(itertools.islice(file, count + 1), start=1):
            places[number - 1] = offset, len(line)
            offset += len(line)
    return places[:number]


def sorted_texts(texts: Iterable[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """Sorts (text, number) pairs in constant memory: an external merge sort in a temporary file."""
    pairs = iter(texts)
    with tempfile.TemporaryFile() as file:
        starts = []
        while run := sorted(itertools.islice(pairs, _SORTED_AT_ONCE)):
            starts.append(file.tell())
            for start in range(0, len(run), _READ_AT_ONCE):
                pickle.dump(run[start : start + _READ_AT_ONCE], file)
            pickle.dump([], file)
        yield from heapq.merge(*(_read_run(file, start) for start in starts))


def _read_run(file: IO[bytes], place: int) -> Iterator[tuple[str, int]]:
    while True:
        file.seek(place)
        part = pickle.load(file)  # trusted: `sorted_texts` wrote it
        if not part:
            return
        place = file.tell()
        yield from part
