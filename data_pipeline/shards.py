"""Writing one audio shard: a pure function of its songs, run in this or another process."""

import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np

from data_pipeline import audio, files, records
from data_pipeline.audio import Pcm
from data_pipeline.errors import DataError
from data_pipeline.files import file_size
from data_pipeline.manifest import Song
from data_pipeline.plan import ShardTask

_BYTES_PER_SAMPLE = 4  # two channels of int16
_IN_MEMORY = 32 << 20  # a song up to three minutes never touches the disk on its way


def build_shard(
    task: ShardTask, progress: Callable[[int], None] = lambda done: None
) -> dict[str, Any]:
    """Decodes the songs of a shard and writes it, then its note; returns the note.

    Args:
      task: the shard.
      progress: called with the bytes of sound file that were dealt with, song by song.

    A bad song is named in the note with its reason, and the others go on.
    """
    kept: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []

    def examples() -> Iterator[dict[str, Any]]:
        for song in task.songs:
            with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(task.out)) as spool:
                try:
                    n_samples = _spool(song, task.min_seconds, spool)
                except DataError as error:
                    skipped.append({"id": song.id, "reason": str(error)})
                else:
                    kept.append({"id": song.id, "n_samples": n_samples})
                    yield from records.segments(song.id, n_samples, _unspool(spool))
            progress(file_size(song.audio))

    records.write_shard(task.path, records.audio_features(), examples())
    size = file_size(task.path)
    note = {"digest": task.digest, "bytes": size, "songs": kept, "skipped": skipped}
    files.write_json(task.note, note)
    return note


def _spool(song: Song, min_seconds: float, spool: IO[bytes]) -> int:
    """Decodes a song into `spool`; returns its length in samples.

    A song is known to be good only at its end, and must not be half in a shard.
    """
    try:
        for block in audio.decode(song.audio, min_seconds):
            spool.write(block.tobytes())
    except MemoryError as error:
        raise DataError(f"{song.audio} asks for more memory than there is; remove it") from error
    return spool.tell() // _BYTES_PER_SAMPLE


def _unspool(spool: IO[bytes]) -> Iterator[Pcm]:
    """The spooled song as (n, 2) int16, n = SEGMENT but for the last."""
    spool.seek(0)
    while data := spool.read(records.SEGMENT * _BYTES_PER_SAMPLE):
        yield np.frombuffer(data, np.int16).reshape(-1, 2)
