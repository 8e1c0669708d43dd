"""Writing one audio shard: a pure function of its songs, run in this or another process."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from data_pipeline import audio, records
from data_pipeline.audio import Pcm
from data_pipeline.manifest import guess_seconds
from data_pipeline.plan import ShardTask
from jukejax.errors import DataError

_IN_MEMORY = 64 << 20  # bytes; a song of up to six minutes never touches the disk on its way


def build_shard(
    task: ShardTask, progress: Callable[[float], object] = lambda done: None
) -> dict[str, Any]:
    """Decodes the songs of a shard and writes it, then its note; returns the note.

    Args:
      task: the shard.
      progress: called with the guessed seconds that were dealt with, song by song.

    A bad song is named in the note with its reason, and the others go on.
    """
    digest = task.digest  # of the files as they are before they are read
    kept: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []

    def examples() -> Iterator[dict[str, Any]]:
        for song in task.songs:
            held = _Held(task.out)
            try:
                for block in audio.decode(song.audio, task.min_seconds, task.sample_rate):
                    held.add(block)
            except DataError as error:
                skipped.append({"id": song.id, "reason": str(error)})
            else:
                kept.append({"id": song.id, "n_samples": held.samples})
                blocks = recut(held.blocks(), records.SEGMENT)
                yield from records.segments(song.id, held.samples, blocks)
            progress(guess_seconds(song))

    records.write_shard(task.path, examples())
    return task.write_note(digest, songs=kept, skipped=skipped)


def recut(blocks: Iterable[Pcm], size: int) -> Iterator[Pcm]:
    """Blocks of any length as blocks (size, 2), the last one shorter."""
    rest = np.zeros((0, 2), np.int16)
    for block in blocks:
        rest = np.concatenate([rest, block]) if len(rest) else block
        whole = len(rest) // size * size
        yield from (rest[start : start + size] for start in range(0, whole, size))
        rest = rest[whole:]
    if len(rest):
        yield rest


class _Held:
    """A song held back until its end is seen: only then is it known to be good.

    Up to `_IN_MEMORY` bytes stay in memory, the rest goes to a file that has no name.
    """

    def __init__(self, folder: Path) -> None:
        self.samples = 0
        self._folder = folder
        self._first: list[Pcm] = []
        self._file: IO[bytes] | None = None

    def add(self, block: Pcm) -> None:
        """Takes the next (n, 2) int16 of the song."""
        self.samples += len(block)
        if self._file is None and self.samples * block.strides[0] <= _IN_MEMORY:
            self._first.append(block)
        else:
            self._file = self._file or tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            self._file.write(block.tobytes())

    def blocks(self) -> Iterator[Pcm]:
        """Gives back what was taken, once."""
        while self._first:
            yield self._first.pop(0)
        if self._file is not None:
            with self._file as file:
                file.seek(0)
                while data := file.read(records.SEGMENT * 4):
                    yield np.frombuffer(data, np.int16).reshape(-1, 2)
