"""Records on disk: ArrayRecord shards in TFDS layout, read by index.

An audio record has up to `SEGMENT` samples: song id, offset in samples, length of the song in
samples and the int16 stereo bytes. 16,384 samples (0.4 s) make both short and long reads fast.
"""

import contextlib
import dataclasses
import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline.audio import Pcm
from data_pipeline.songs import CODES, PreparedSong, PreparedSongs, prepared_songs, require_audio
from jukejax import files
from jukejax.errors import DataError
from jukejax.files import file_size
from jukejax.temporaries import remove_temporaries

SEGMENT = 16_384  # samples in an audio record
DATASET = "songs"
SPLITS = ("train", "test")
_PLACE = r"(\d{5,})-of-(\d{5,})"
_SHARD = re.compile(rf"{DATASET}-(train|test)\.array_record-{_PLACE}")
_NOTE = re.compile(rf"(train|test)-{_PLACE}\.json")  # of a shard, in shards/
_OPTIONS = "group_size:1,uncompressed"  # a record is one read; PCM hardly compresses
_BLOCK = 65_536  # bytes; ArrayRecord fills up the last block, and adds one with the index
_OPEN_SHARDS = 1024  # files that a split keeps open

Arrays = dict[str, npt.NDArray[Any]]


@functools.cache
def tensorflow() -> Any:
    """TensorFlow, imported on first use (seconds), quiet, and without access to accelerators."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # unused here, and logs at length
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    tf.config.set_visible_devices([], "TPU")
    return tf


def features(**arrays: Any) -> Any:
    """The TFDS features of a record: song id, offset and length of the song in samples, and arrays.

    Args:
      arrays: (shape, dtype) by name; a length that varies is None.
    """
    tfds = _tfds()
    tensor = functools.partial(tfds.features.Tensor, encoding=tfds.features.Encoding.BYTES)
    tensors = {name: tensor(shape=shape, dtype=dtype) for name, (shape, dtype) in arrays.items()}
    numbers = {"id": tfds.features.Text(), "offset": np.int64, "n_samples": np.int64}
    return tfds.features.FeaturesDict(numbers | tensors)


def _tfds() -> Any:
    """TFDS, imported on first use; the parts used here do not import TensorFlow."""
    import tensorflow_datasets as tfds

    return tfds


def shard_name(split: str, index: int, count: int) -> str:
    """The file name of a shard, as TFDS spells it."""
    return f"{DATASET}-{split}.array_record-{index:05d}-of-{count:05d}"


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard of the data set in `out`, and its note in `out/shards`, written after it."""

    out: Path
    split: str
    index: int
    count: int

    @property
    def path(self) -> Path:
        """The shard itself."""
        return self.out / shard_name(self.split, self.index, self.count)

    @property
    def note(self) -> Path:
        """The note: the digest of what the shard was made of, its size, and more."""
        return self.out / "shards" / f"{self.split}-{self.index:05d}-of-{self.count:05d}.json"

    def write_note(self, digest: str, **more: Any) -> dict[str, Any]:
        """Writes the note of a complete shard, atomically, and returns it."""
        note = {"digest": digest, "bytes": file_size(self.path), **more}
        files.write_json(self.note, note)
        return note

    def read_note(self, digest: str) -> dict[str, Any] | None:
        """The note, where the shard is complete and was made of what has this digest."""
        note = files.read_json(self.note)
        if not isinstance(note, dict) or not self.path.is_file():
            return None
        same = note.get("digest") == digest and note.get("bytes") == file_size(self.path)
        return note if same else None


def write_shard(path: Path, examples: Iterable[Mapping[str, Any]], size: int = 0) -> int:
    """Writes one shard atomically; returns its number of records.

    The bytes depend on the examples alone. Values are as in `features`: text, integers, and arrays
    stored as their bytes. They are encoded here because TFDS' encoder takes four times as long.
    `size` are the bytes of all arrays, if known.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    count = 0
    on_disk = (size // _BLOCK + 2) * _BLOCK if size else 0
    with files.atomic_path(path, on_disk) as temporary:
        writer = ArrayRecordWriter(os.fspath(temporary), _OPTIONS)
        try:
            for example in examples:
                writer.write(_serialized(example))
                count += 1
        finally:
            writer.close()
    return count


def _serialized(values: Mapping[str, Any]) -> bytes:
    example = _example()()
    features = example.features.feature
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            features[name].bytes_list.value.append(value.tobytes())
        elif isinstance(value, str):
            features[name].bytes_list.value.append(value.encode())
        else:
            features[name].int64_list.value.append(value)
    return bytes(example.SerializeToString(deterministic=True))


def write_metadata(
    folder: Path, features: Any, shard_lengths: Mapping[str, Sequence[int]], description: str
) -> None:
    """Writes `dataset_info.json` and `features.json`, so that TFDS opens the folder."""
    tfds = _tfds()
    infos = []
    for split, lengths in shard_lengths.items():
        if not lengths:
            continue
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=DATASET, split=split, filetype_suffix="array_record"
        )
        names = (shard_name(split, index, len(lengths)) for index in range(len(lengths)))
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=list(lengths),
                num_bytes=sum((folder / name).stat().st_size for name in names),
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=infos,
        description=description,
        check_data=False,  # the check needs as_dataset, which ArrayRecord does not support
    )


def remove_leftovers(out: Path, shards: Mapping[str, int]) -> None:
    """Removes shards and notes of earlier plans, and partial files of killed runs.

    Only files named as a shard or a note are removed; other files are the user's.

    Args:
      shards: how many each split has now.
    """
    for folder, own in ((out, _SHARD), (out / "shards", _NOTE)):
        for path in folder.glob("*-of-*"):
            match = own.fullmatch(path.name)
            if match and path.is_file():
                split, index, count = match[1], int(match[2]), int(match[3])
                if count != shards.get(split, 0) or index >= count:
                    os.unlink(path)
        remove_temporaries(folder)


class Source:
    """The records of one split by index, across its shards.

    Reads one record at a time, at a third of the cost of TFDS' `as_data_source`; tf.data runs many
    reads in parallel.
    """

    def __init__(self, folder: Path, split: str, lengths: Sequence[int]) -> None:
        self._folder, self._split = folder, split
        self._ends = np.cumsum(lengths)
        self._reader = functools.lru_cache(maxsize=_OPEN_SHARDS)(self._open)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, rows: Iterable[int]) -> list[Arrays]:
        """Arrays of the records `rows`: "audio" (n, 2) int16, or "codes_0" ... (n,) uint16."""
        return [self._record(int(row)) for row in rows]

    def _record(self, row: int) -> Arrays:
        shard = int(np.searchsorted(self._ends, row, side="right"))
        before = int(self._ends[shard - 1]) if shard else 0
        with _undamaged(self._path(shard)):
            data = self._reader(shard).read([row - before])[0]
            features = _example().FromString(data).features.feature
            return {
                name: np.frombuffer(features[name].bytes_list.value[0], dtype).reshape(shape)
                for name, dtype, shape in _arrays(tuple(sorted(features)))
            }

    def _path(self, shard: int) -> Path:
        return self._folder / shard_name(self._split, shard, len(self._ends))

    def _open(self, shard: int) -> Any:
        return _open_shard(self._path(shard))


def _open_shard(path: Path) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    return ArrayRecordReader(
        os.fspath(path),
        "readahead_buffer_size:0,max_parallelism:0",  # random access
        file_reader_buffer_size=32_768,
    )


@contextlib.contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    """Raises DataError, with the remedy, if reading a shard fails: its chunks have checksums."""
    try:
        yield
    except Exception as error:  # ArrayRecord's RuntimeError, protobuf's DecodeError, IndexError
        reason = str(error).split("; at byte")[0]
        remedy = "run `jukejax prepare build` with --verify and the options it was built with"
        if (path.parent / CODES).exists():
            remedy = "remove it and run the same `jukejax encode` again"
        raise DataError(f"{path} is missing or damaged ({reason}); {remedy}") from error


def shard_songs(path: Path) -> list[dict[str, Any]]:
    """The "id" and "n_samples" of each song of an audio shard, after reading all its records.

    Raises:
      DataError: it is damaged: a checksum differs, or records are missing.
    """
    listed: list[dict[str, Any]] = []
    with _undamaged(path):
        reader = _open_shard(path)
        for row in range(reader.num_records()):
            record = _example().FromString(reader.read([row])[0]).features.feature
            if record["offset"].int64_list.value[0] == 0:
                listed.append({"id": record["id"].bytes_list.value[0].decode(), "n_samples": 0})
            listed[-1]["n_samples"] += len(record["audio"].bytes_list.value[0]) // 4  # int16 stereo
    return listed


@functools.cache
def _example() -> Any:
    """The protobuf class of a serialized record."""
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example


@functools.cache
def _arrays(names: tuple[str, ...]) -> list[tuple[str, Any, tuple[int, ...]]]:
    """(name, dtype, shape) of the arrays among a record's features."""
    audio: list[tuple[str, Any, tuple[int, ...]]] = [("audio", np.int16, (-1, 2))]
    codes = [(name, np.uint16, (-1,)) for name in names if name.startswith("codes_")]
    return audio if "audio" in names else [*codes]


def open_split(folder: str | Path, split: str) -> Source:
    """The records of a split of a prepared audio or codes data set.

    Raises:
      DataError: the folder was not prepared, or has no such split.
    """
    folder = Path(folder).resolve()
    info = folder / "dataset_info.json"
    if not info.is_file():
        raise DataError(
            f"{folder} is not a prepared data set (no dataset_info.json); make it with "
            "`jukejax prepare build`, or finish the run that was interrupted"
        )
    return _open_split(folder, split, info.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _open_split(folder: Path, split: str, changed: int) -> Source:
    try:
        splits = _tfds().builder_from_directory(folder).info.splits
    except Exception as error:  # of protobuf, JSON and TFDS
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{folder}/dataset_info.json or features.json is damaged ({reason:.200}); run the "
            "command that wrote the folder again"
        ) from error
    if split not in splits:
        raise DataError(
            f"{folder} has no split {split!r}, only {sorted(splits)}; prepare it "
            "with another --test-fraction, or with 'split' in the manifest"
        )
    return Source(folder, split, splits[split].shard_lengths)


def split_songs(folder: str | Path, split: str) -> PreparedSongs:
    """The songs of one split; DataError if there are none."""
    songs = prepared_songs(folder).of_split(split)
    if not len(songs):
        raise DataError(
            f"{folder} has no songs in the split {split!r}; prepare it with another "
            "--test-fraction, or with 'split' in the manifest"
        )
    return songs


def read_audio(data_dir: str | Path, song: PreparedSong, start: int, stop: int) -> Pcm:
    """Samples start..stop of a prepared song: (stop - start, 2) int16.

    Raises:
      DataError: the range is not inside the song, or the folder holds codes.
    """
    require_audio(data_dir)
    if not 0 <= start <= stop <= song.n_samples:
        raise DataError(
            f"samples {start}..{stop} are not inside song {song.id!r}, which has "
            f"{song.n_samples}; ask for a range inside it"
        )
    source = open_split(data_dir, song.split)
    first, last = start // SEGMENT, -(-stop // SEGMENT)
    if start == stop:
        return np.zeros((0, 2), np.int16)
    rows = source.read(song.first_record + index for index in range(first, last))
    pcm = np.concatenate([row["audio"] for row in rows])
    return pcm[start - first * SEGMENT : stop - first * SEGMENT]
