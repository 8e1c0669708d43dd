"""Which stretch of which song is example i of a step: the data order, as a function.

Each song is cut into windows, and windows are numbered through all songs. The examples of a step
follow from (seed, step, row of the batch) alone: training continues from any step without saved
state of the loader, and any number of hosts reads the same global batches.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline.records import Arrays, Source
from jukejax.errors import DataError

Ints = npt.NDArray[np.int64]
UNIFORMS = SHIFT, DOWNMIX, DROPOUT = 0, 1, 2  # what each random number of an example decides


def host_rows(batch_size: int, rows: Sequence[int] | None) -> Ints:
    """The rows of a global batch that this host reads; all, where none are given.

    Raises:
      DataError: there are none, or one is not in the batch.
    """
    chosen = np.arange(batch_size) if rows is None else np.asarray(rows, int)
    if not len(chosen) or chosen.min() < 0 or chosen.max() >= batch_size:
        raise DataError(
            f"rows {chosen.tolist()} were asked for of a batch of {batch_size}; give "
            f"some of 0..{batch_size - 1}"
        )
    return chosen


class Windows:
    """Windows of `size` units over songs of `lengths` units, starting at multiples of `step`.

    A song has round(length / size) windows, at least one. Window i starts at i * size, shifted by
    up to half a window and clipped to the song: the first often starts at 0, and no window crosses
    two songs. A song shorter than a window has one, at 0.
    """

    def __init__(self, lengths: npt.ArrayLike, size: int, step: int = 1) -> None:
        self.lengths = np.asarray(lengths, np.int64)
        self.size, self.step = size, step
        counts = np.maximum(1, (self.lengths + size // 2) // size)
        self.ends = np.cumsum(counts)
        self.total = int(self.ends[-1])
        self.firsts = self.ends - counts

    def locate(self, items: Ints, uniforms: npt.NDArray[np.floating]) -> tuple[Ints, Ints]:
        """Songs and starts (n,) of window numbers `items` (n,).

        Uniforms (n,) in [0, 1) shift them by -size / 2 to size / 2.
        """
        song = np.searchsorted(self.ends, items, side="right")
        shift = np.floor((uniforms.astype(np.float64) - 0.5) * self.size).astype(np.int64)
        start = (items - self.firsts[song]) * self.size + shift
        last = np.maximum(0, self.lengths[song] - self.size)
        return song, np.clip(start, 0, last) // self.step * self.step


def schedule(
    tf: Any, total: int, batch: int, rows: Ints, seed: int, start_step: int, tracks: int = 0
) -> Any:
    """An endless tf.data.Dataset of a host's (window numbers (b,) int64, uniforms (b, U) float32).

    Every epoch is a permutation of all `total` windows (tf's stateless index shuffle), keyed by
    (seed, epoch); the uniforms are keyed by (seed, step). U is that of UNIFORMS, and one more for
    each of `tracks`.
    """
    if start_step < 0:
        raise DataError(f"start_step is {start_step}; give 0 or more")

    def examples(step: Any) -> tuple[Any, Any]:
        place = step * batch + tf.range(batch, dtype=tf.int64)
        epoch, items = place // total, place % total
        # index_shuffle's own op: its wrapper pads a batch of keys on the wrong side.
        key = tf.stack([tf.fill([batch], tf.constant(seed, tf.int64)), epoch, epoch * 0], 1)
        last = tf.constant(total - 1, tf.int64)
        items = tf.raw_ops.RandomIndexShuffle(index=items, seed=key, max_index=last, rounds=4)
        uniforms = tf.random.stateless_uniform(
            [batch, len(UNIFORMS)], tf.stack([tf.constant(seed, tf.int64), step])
        )
        if tracks:  # under a key of their own: the others are as without tracks
            more = tf.random.stateless_uniform(
                [batch, tracks], tf.stack([tf.constant(~seed, tf.int64), step])
            )
            uniforms = tf.concat([uniforms, more], 1)
        return tf.gather(items, rows), tf.gather(uniforms, rows)

    steps = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max // (batch + 1))
    return steps.map(examples, num_parallel_calls=1)


def read_ahead(
    tf: Any, steps: Any, read: Callable[..., Any], types: Any, batch: Callable[..., Any]
) -> Iterator[Any]:
    """NumPy batches in order, several read in parallel and ahead of time.

    Args:
      steps: of `schedule`.
      read: a NumPy function of a step's items and uniforms; what it reads has the dtypes `types`.
      batch: a TensorFlow function of what was read and of the uniforms.

    Raises:
      DataError: of `read`.
    """
    failures: list[DataError] = []

    def kept(items: Ints, uniforms: npt.NDArray[np.float32]) -> Any:
        try:
            return read(items, uniforms)
        except DataError as error:
            failures.append(error)  # TensorFlow would make a stack trace in text of it
            raise

    def example(items: Any, uniforms: Any) -> Any:
        return batch(tf.numpy_function(kept, [items, uniforms], types), uniforms)

    batches = steps.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    try:
        yield from batches.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()
    except tf.errors.OpError as error:
        if failures:
            raise failures[0] from error
        raise


def whole_pass(lengths: npt.ArrayLike, size: int) -> tuple[Ints, Ints]:
    """Songs and starts (n,) of windows that do not overlap; a shorter tail is left out."""
    counts = np.asarray(lengths, np.int64) // size
    song = np.repeat(np.arange(len(counts)), counts)
    return song, (np.arange(len(song)) - np.repeat(np.cumsum(counts) - counts, counts)) * size


def in_batches(count: int, batch_size: int) -> Iterator[tuple[Ints, npt.NDArray[np.bool_]]]:
    """Row numbers 0..count - 1 in batches (batch_size,), and which rows are valid.

    The last batch is filled up with row 0, marked as not valid.
    """
    for first in range(0, count, batch_size):
        rows = np.arange(first, first + batch_size)
        valid = rows < count
        yield np.where(valid, rows, 0), valid


def gather(
    source: Source, first_record: Ints, start: Ints, stop: Ints, per_record: int
) -> list[list[Arrays]]:
    """The records with units start..stop of each window's song, each record read once.

    Args:
      source: records by index.
      first_record: (n,) the first record of each window's song.
      start: (n,) units from the start of the song.
      stop: (n,) end of the window, inside the song.
      per_record: units in a full record.
    """
    low, high = first_record + start // per_record, first_record + -(-stop // per_record)
    rows = sorted({row for a, b in zip(low, high, strict=True) for row in range(a, b)})
    read = dict(zip(rows, source.read(rows), strict=True))
    return [[read[row] for row in range(a, b)] for a, b in zip(low, high, strict=True)]


def cut(rows: list[Arrays], key: str, start: int, size: int, per_record: int) -> npt.NDArray[Any]:
    """Units start..start + size of a song from its records of `gather`; may be shorter."""
    joined = rows[0][key] if len(rows) == 1 else np.concatenate([row[key] for row in rows])
    begin = start % per_record
    return joined[begin : begin + size]
