"""The plan of a prepare run: songs placed in shards, and digests that detect changes."""

import array
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline import records
from data_pipeline.lines import Lines
from data_pipeline.manifest import Manifest, Song, audio_state
from data_pipeline.songs import SAMPLE_RATE
from data_pipeline.splits import in_test

VERSION = 1  # of the records; a new version rebuilds prepared data
# Seconds of music in a shard, about: 1/32 of the data set, so that workers share small sets too, at
# least 2 minutes and at most 20 (210 MB of PCM).
_SHARDS, _SHORTEST, _LONGEST = 32, 120.0, 1200.0


@dataclasses.dataclass(frozen=True)
class Options:
    """What the prepared data depend on besides the songs."""

    min_seconds: float = 1.0
    """Shorter songs are skipped."""
    test_fraction: float = 0.1
    """Part of the songs without a given split that goes to the test split."""
    seed: int = 0
    """Of the split."""
    sample_rate: int = SAMPLE_RATE
    """Of the records, in Hz: that of the VQ-VAE to train."""


@dataclasses.dataclass(frozen=True)
class ShardTask(records.Shard):
    """One shard to write; its bytes are a function of its songs and the two options.

    Cheap to send to another process, which reads the songs from the manifest.
    """

    songs: Lines[Song]
    min_seconds: float
    sample_rate: int

    @functools.cached_property
    def digest(self) -> str:
        """Changes with the sound of a song, and with how it is decoded."""
        states = [audio_state(song) for song in self.songs]
        return _digest([VERSION, records.SEGMENT, [self.min_seconds, self.sample_rate, states]])

    def finished(self) -> dict[str, Any] | None:
        """The note, when the shard is complete and its songs have not changed since."""
        return self.read_note(self.digest)


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """The songs of one split, sorted by id, and where its shards begin.

    Attributes:
      songs: read on demand.
      seconds: (n,) float64 estimated lengths.
      starts: (shards + 1,) int32 rows; shard i has songs starts[i] .. starts[i + 1] - 1.
    """

    songs: Lines[Song]
    seconds: npt.NDArray[np.float64]
    starts: npt.NDArray[np.int32]

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self.starts) - 1


class Plan:
    """All shards in order, each made on demand; 20 bytes of memory a song."""

    def __init__(
        self, out: Path, splits: Mapping[str, SplitPlan], options: Options, digest: str
    ) -> None:
        """`digest` covers all songs and options."""
        self.out, self.splits, self.options, self.digest = out, splits, options, digest

    def __len__(self) -> int:
        return sum(split.shards for split in self.splits.values())

    def __iter__(self) -> Iterator[ShardTask]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> ShardTask:
        name, split, shard = self._place(index)
        decoding = (self.options.min_seconds, self.options.sample_rate)
        songs = split.songs[split.starts[shard] : split.starts[shard + 1]]
        return ShardTask(self.out, name, shard, split.shards, songs, *decoding)

    def songs(self, index: int) -> int:
        """How many songs a shard has."""
        _, split, shard = self._place(index)
        return int(split.starts[shard + 1] - split.starts[shard])

    def _place(self, index: int) -> tuple[str, SplitPlan, int]:
        """The name and plan of a shard's split, and the shard's number there."""
        for name, split in self.splits.items():
            if index < split.shards:
                return name, split, index
            index -= split.shards
        raise IndexError(index)


def make_plan(listed: Manifest, out: Path, options: Options) -> Plan:
    """Places the songs, sorted by id, in shards of similar length."""
    music = sum(map(float, listed.seconds))
    shard_seconds = min(max(music / _SHARDS, _SHORTEST), _LONGEST)
    test = in_test(listed.labels.take(listed.order), options.test_fraction, options.seed)
    splits = {}
    for name in records.SPLITS:
        rows = listed.order[test == (name == "test")]
        seconds = listed.seconds[rows]
        starts = _fill(seconds, shard_seconds)
        splits[name] = SplitPlan(listed.songs.take(rows), seconds, starts)
    everything = [VERSION, records.SEGMENT, dataclasses.asdict(options), listed.digest]
    return Plan(out, splits, options, _digest(everything))


def _fill(seconds: npt.NDArray[np.float64], shard_seconds: float) -> npt.NDArray[np.int32]:
    """Rows where runs of about `shard_seconds` of music begin, and where the last one ends."""
    starts = array.array("i")
    room = 0.0
    for row, length in enumerate(map(float, seconds)):
        if room <= 0:
            starts.append(row)
            room = shard_seconds
        room -= length
    starts.append(len(seconds))
    return np.array(starts, np.int32)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
