"""Batches of audio by step: `batch = f(seed, step, rows)`, read by index inside tf.data."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline import records, windows
from data_pipeline.song_files import FileReader, SongFiles
from data_pipeline.songs import require_audio
from data_pipeline.windows import Ints, Windows
from jukejax.config import RendererExperiment, VQVAEExperiment
from jukejax.errors import DataError

Batch = dict[str, npt.NDArray[Any]]
DOWNMIXES = ("random", "mean")


def audio_batches(
    data_dir: str | Path | SongFiles,
    experiment: VQVAEExperiment | RendererExperiment,
    *,
    split: str,
    start_step: int = 0,
    rows: Sequence[int] | None = None,
) -> Iterator[Batch]:
    """Endless batches {"audio": (len(rows), samples, 1) float32 in [-1, 1)}.

    The batch of a step depends on (data, seed, step) alone, however hosts share its rows. Every
    epoch cuts each song into about length / samples chunks, shifted at random and never crossing
    songs; a song shorter than a chunk is padded with silence at its end.

    Args:
      data_dir: a prepared data set, or the songs of a manifest, which are decoded on demand.
      experiment: its chunk, global batch, seed and downmix: "random" is m * left + (1 - m) * right,
        m uniform in [0, 1) for each example; "mean" is m = 0.5, as always of the test split.
      split: "train" or "test".
      start_step: step of the first batch.
      rows: rows of the global batch that this host reads; None: all.

    Raises:
      DataError: the data set has no such split, or an argument is out of range.
    """
    if experiment.downmix not in DOWNMIXES:
        raise DataError(f"downmix is {experiment.downmix!r}; choose one of {DOWNMIXES}")
    downmix = experiment.downmix if split == "train" else "mean"
    samples, train = experiment.samples, experiment.train
    tf = records.tensorflow()
    reader = _open(data_dir, split, samples)
    plan = Windows(reader.lengths, samples)
    own = windows.host_rows(train.batch, rows)

    def read(items: Ints, uniforms: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
        return reader.read(*plan.locate(items, uniforms[:, windows.SHIFT]))

    def batch(pcm: Any, uniforms: Any) -> dict[str, Any]:
        pcm = tf.ensure_shape(pcm, (len(own), samples, 2))
        left = uniforms[:, windows.DOWNMIX, None]
        left = left if downmix == "random" else tf.fill([len(own), 1], 0.5)
        return {"audio": mix(tf, pcm, left)}

    steps = windows.schedule(tf, plan.total, train.batch, own, train.seed, start_step)
    return windows.read_ahead(tf, steps, read, tf.int16, batch)


def mix(tf: Any, pcm: Any, left: Any) -> Any:
    """(b, samples, 2) int16, weights of the left channel (b, 1) -> (b, samples, 1) float32."""
    scale = left / 32768.0, (1.0 - left) / 32768.0
    channels = tf.cast(pcm[..., 0], tf.float32), tf.cast(pcm[..., 1], tf.float32)
    return (scale[0] * channels[0] + scale[1] * channels[1])[..., None]


def _open(data: str | Path | SongFiles, split: str, samples: int) -> "AudioReader | FileReader":
    """A reader of chunks from records, or from sound files."""
    if samples < 1:
        raise DataError(f"samples is {samples}; a chunk has 1 or more")
    if isinstance(data, SongFiles):
        return data.reader(split, samples)
    return AudioReader(data, split, samples)


class AudioReader:
    """Chunks of PCM by (song, start) of one split."""

    def __init__(self, data_dir: str | Path, split: str, samples: int) -> None:
        require_audio(data_dir)
        songs = records.split_songs(data_dir, split)
        self.source = records.open_split(data_dir, split)
        self.samples = samples
        self.lengths, self.firsts = songs.column("n_samples"), songs.column("first_record")

    def read(self, song: Ints, start: Ints) -> npt.NDArray[np.int16]:
        """(n, samples, 2) int16 for songs and starts of (n,), silent past a song's end."""
        stop = np.minimum(start + self.samples, self.lengths[song])
        gathered = windows.gather(self.source, self.firsts[song], start, stop, records.SEGMENT)
        out = np.empty((len(song), self.samples, 2), np.int16)
        for row, (begin, rows) in enumerate(zip(start, gathered, strict=True)):
            skip, done = int(begin) % records.SEGMENT, 0
            for part in rows:  # copied once, straight into the batch
                piece = part["audio"][skip : skip + self.samples - done]
                out[row, done : done + len(piece)] = piece
                skip, done = 0, done + len(piece)
            out[row, done:] = 0
        return out
