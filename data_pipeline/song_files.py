"""Audio read straight from the sound files of a manifest, without records.

Splits and the order of songs are those of `prepare`, so batches are the same. Files are decoded in
parts: a silent song, or damage in a part that is not read, goes unnoticed.
"""

import functools
import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_pipeline import audio
from data_pipeline.manifest import read_manifest
from data_pipeline.plan import Options, make_plan
from data_pipeline.windows import Ints
from jukejax.errors import DataError

_LOG = logging.getLogger(__name__)
_LENGTHS_KEPT = 4096  # lengths cached by file: many songs may name the same one
_TRIES = 32  # songs tried in place of a bad one


class SongFiles:
    """The songs of a manifest by split; `audio_batches` takes it as its data."""

    def __init__(self, manifest: str | Path, options: Options | None = None) -> None:
        """Validates all of the manifest (problems are in `listed`) and plans its splits.

        Raises:
          DataError: the manifest cannot be read.
        """
        self.path, self.options = Path(manifest), options or Options()
        self.listed = read_manifest(self.path)
        self.plan = make_plan(self.listed, self.path.parent, self.options)

    def reader(self, split: str, samples: int) -> "FileReader":
        """A reader of chunks of `samples` samples of a split."""
        return FileReader(self, split, samples)


class FileReader:
    """Chunks of PCM of one split by (song, start), decoded on demand.

    Attributes:
      lengths: (n,) int64 samples of every song with a readable header and enough seconds.
      indices: (n,) int32 rows of these songs among the split's, sorted by id.
      skipped: why a song cannot be decoded, by row.
    """

    def __init__(self, files: SongFiles, split: str, samples: int) -> None:
        self.samples, self.rate = samples, files.options.sample_rate
        self.songs = files.plan.splits[split].songs
        self.skipped: dict[int, str] = {}
        lengths = np.zeros(len(self.songs), np.int64)
        length = functools.lru_cache(_LENGTHS_KEPT)(audio.length)
        for row, song in enumerate(self.songs):
            try:
                lengths[row] = length(song.audio, self.rate)
            except DataError as error:
                self._skip(row, song.id, error)
        kept = np.flatnonzero(lengths >= max(1, files.options.min_seconds * self.rate))
        if not len(kept):
            raise DataError(
                f"{files.path} has no songs in the split {split!r}; give another test fraction, "
                "or 'split' in the manifest"
            )
        self.indices, self.lengths = kept.astype(np.int32), lengths[kept]
        self._checked = np.zeros(len(kept), bool)

    def _skip(self, row: int, name: str, error: DataError) -> None:
        if row not in self.skipped:
            self.skipped[row] = str(error)
            _LOG.warning("song %r is skipped: %s", name, error)

    def read(self, song: Ints, start: Ints) -> npt.NDArray[np.int16]:
        """Chunks (n, samples, 2) int16 at songs and starts (n,), silent past a song's end.

        A song that cannot be decoded is replaced by the first chunk of the next good one.

        Raises:
          DataError: 32 songs in a row cannot be decoded.
        """
        out = np.zeros((len(song), self.samples, 2), np.int16)
        for row, (number, begin) in enumerate(zip(song.tolist(), start.tolist(), strict=True)):
            chunk = self._chunk(number, begin)
            out[row, : len(chunk)] = chunk
        return out

    def _chunk(self, number: int, begin: int) -> audio.Pcm:
        for trial in range(number, number + _TRIES):
            place = trial % len(self.indices)
            row = int(self.indices[place])
            if row in self.skipped:
                continue
            song = self.songs[row]
            first = begin if place == number else 0
            stop = min(first + self.samples, int(self.lengths[place]))
            try:
                if not self._checked[place]:
                    audio.check(song.audio)
                    self._checked[place] = True
                return audio.decode_part(song.audio, first, stop, self.rate)
            except DataError as error:
                self._skip(row, song.id, error)
        raise DataError(f"{_TRIES} songs in a row cannot be decoded; the last: {self.skipped[row]}")
