"""Writes one audio shard: a pure function of its songs, run in this or another process."""

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from data_pipeline import audio, records
from data_pipeline.contents import contents
from data_pipeline.plan import ShardTask
from jukejax.errors import DataError

IN_MEMORY = 64 << 20  # bytes of decoded sound: six minutes; longer songs wait in a file
_FRAME = 4  # bytes of a stereo sample


def build_shard(task: ShardTask, progress: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Decodes the songs of a shard and writes it, then its note; returns the note.

    Args:
      task: the shard.
      progress: called after each song.

    A song that cannot be decoded is listed in the note with the reason; the others are written.
    Songs that hold more than their headers declare are remarks of the note.
    """
    digest = task.digest  # of the files before they are read
    kept: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    remarks: list[str] = []

    def examples() -> Iterator[dict[str, Any]]:
        for song in task.songs:
            # Only the end of a song shows that it is good: until then it waits in memory, or in a
            # temporary file.
            with tempfile.SpooledTemporaryFile(IN_MEMORY, dir=str(task.out)) as file:
                try:
                    for block in audio.decode(song.audio, task.min_seconds, task.sample_rate):
                        file.write(block.tobytes())
                except DataError as error:
                    skipped.append({"id": song.id, "reason": str(error)})
                else:
                    if remark := contents(song.audio).note:
                        remarks.append(f"{song.id}: {remark}")
                    n_samples = file.tell() // _FRAME
                    kept.append({"id": song.id, "n_samples": n_samples})
                    file.seek(0)
                    for offset in range(0, n_samples, records.SEGMENT):
                        data = file.read(records.SEGMENT * _FRAME)
                        pcm = np.frombuffer(data, np.int16).reshape(-1, 2)
                        example = {"id": song.id, "offset": offset, "n_samples": n_samples}
                        yield example | {"audio": pcm}
            progress()

    records.write_shard(task.path, examples())
    more = {"remarks": remarks} if remarks else {}
    return task.write_note(digest, songs=kept, skipped=skipped, **more)
