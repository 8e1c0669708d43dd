"""What a sound file holds, where its header says less: counted, and read with a corrected header.

libsndfile reads as much as a header declares. The header of a file that was written to a pipe, or
joined to another, declares too little; the rest of the sound would be lost silently.
"""

import bisect
import functools
import io
import itertools
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from data_pipeline import ffmpeg, flac, mpeg, ogg, riff
from jukejax.errors import DataError

_LOG = logging.getLogger(__name__)
_KEPT = 4096  # files whose contents are kept in memory

Piece = bytes | range
"""Bytes, or a range of places in a file."""


@dataclass(frozen=True)
class Contents:
    """The sound in a file.

    Attributes:
      pieces: what libsndfile is given in place of the file; empty: the file as it is.
      note: how the file differs from its header; "" if it does not, or declares no length.
      demuxer: FFmpeg's name of the container, of a file that libsndfile cannot read; else "".
    """

    pieces: tuple[Piece, ...] = ()
    note: str = ""
    demuxer: str = ""


def contents(path: Path) -> Contents:
    """Counts what a file holds; logs its note once.

    WAV chunks, FLAC samples and MPEG frames are counted. Other kinds of file are read as they are.

    Raises:
      DataError: the file is cut short, or its parts cannot be read as one sound.
      OSError: the file cannot be read.
    """
    stat = os.stat(path)
    return _contents(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(_KEPT)
def _contents(path: Path, size: int, _modified: int) -> Contents:
    with open(path, "rb") as file:
        start = skip_id3(file)
        magic = file.read(12)
        if magic[:4] in riff.ORDERS and magic[8:] == b"WAVE":
            pieces, note, problem = riff.count(file, size)
        elif magic[:4] == flac.MAGIC:
            pieces, note, problem = flac.count(file, start, size)
        elif magic[:4] == ogg.MAGIC:
            return Contents()  # its pages are checked when it is read
        elif container := ffmpeg.demuxer(magic):
            return Contents(demuxer=container)
        elif mpeg.is_frame(magic) or start or path.suffix.lower() == ".mp3":
            pieces, note, problem = mpeg.count(file, start, size)
        else:
            return Contents()
    if problem:
        raise DataError(f"{path} {problem}; copy or encode it again, or remove it")
    if note:
        _LOG.warning("%s %s", path, note)
    return Contents(tuple(pieces), note)


def problem(path: Path) -> str:
    """Damage or joined parts of an Ogg or FLAC file that libsndfile does not report; reads it all.

    Raises:
      OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        start = skip_id3(file)
        magic = file.read(4)
        if magic == flac.MAGIC:
            return flac.problem(file, start)
        return ogg.problem(path) if magic == ogg.MAGIC and not start else ""


def skip_id3(file: BinaryIO) -> int:
    """Moves to the end of the ID3v2 tags at the start of a file, and returns the place."""
    place = 0
    while (size := mpeg.id3_size(file.read(10))) > 0:
        place += size
        file.seek(place)
    file.seek(place)
    return place


class PiecedFile(io.RawIOBase):
    """A read-only file of pieces: bytes, and ranges of another file."""

    def __init__(self, path: Path, pieces: tuple[Piece, ...]) -> None:
        self._file, self._pieces, self._place = io.FileIO(path), pieces, 0
        self._ends = [*itertools.accumulate(map(len, pieces))]

    def readinto(self, buffer: Any) -> int:
        """Reads up to len(buffer) bytes, those of one piece; returns how many."""
        index = bisect.bisect_right(self._ends, self._place)
        if index == len(self._pieces):
            return 0
        piece, offset = self._pieces[index], self._place - (self._ends[index - 1] if index else 0)
        size = min(len(buffer), len(piece) - offset)
        if isinstance(piece, range):
            self._file.seek(piece.start + offset)
            data = self._file.read(size)
        else:
            data = piece[offset : offset + size]
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Moves to a place, and returns it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._ends[-1]}
        self._place = max(0, base[whence] + offset)
        return self._place

    def tell(self) -> int:
        """The place."""
        return self._place

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def close(self) -> None:
        """Closes the file as well."""
        self._file.close()
        super().close()
