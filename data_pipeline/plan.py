"""What a prepare run has to write: songs placed in shards, and digests that notice changes."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_pipeline import files, records
from data_pipeline.files import file_size
from data_pipeline.manifest import Song, to_entry
from data_pipeline.songs import SAMPLE_RATE
from data_pipeline.splits import assign_splits

VERSION = 1  # of the records; a change makes prepared data be built again
# Seconds of music in one shard, about: a 32nd of the whole, so that workers share small sets too,
# but not more than 210 MB of PCM.
_SHARDS, _SHORTEST, _LONGEST = 32, 120.0, 1200.0
# Bytes a second by suffix, good enough to fill shards evenly without opening any file.
_BYTES_PER_SECOND = {".wav": 176_400, ".flac": 100_000}
_COMPRESSED = 20_000


@dataclasses.dataclass(frozen=True)
class Options:
    """What the result depends on beside the songs."""

    min_seconds: float = 1.0
    test_fraction: float = 0.1
    seed: int = 0
    sample_rate: int = SAMPLE_RATE


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to write; its bytes are a function of its songs and the two options."""

    out: Path
    split: str
    index: int
    count: int
    songs: tuple[Song, ...]
    min_seconds: float
    sample_rate: int
    digest: str

    @property
    def path(self) -> Path:
        """The shard itself."""
        return self.out / records.shard_name(self.split, self.index, self.count)

    @property
    def note(self) -> Path:
        """The note written after the shard: its digest, its songs and what was skipped."""
        return self.out / "shards" / f"{self.split}-{self.index:05d}-of-{self.count:05d}.json"

    def finished(self) -> dict[str, Any] | None:
        """The note, when the shard is whole and its songs have not changed since."""
        note = files.read_json(self.note)
        wanted = {"digest": self.digest, "bytes": file_size(self.path)}
        if isinstance(note, dict) and wanted.items() <= note.items() and self.path.is_file():
            return note
        return None

    @property
    def weight(self) -> int:
        """Bytes of sound files to decode."""
        return sum(file_size(song.audio) for song in self.songs)


@dataclasses.dataclass(frozen=True)
class Plan:
    """All shards in order, the split of every song and the digest of everything."""

    tasks: tuple[ShardTask, ...]
    splits: dict[str, str]
    digest: str


def make_plan(songs: Sequence[Song], out: Path, options: Options) -> Plan:
    """Places the songs, sorted by id, in shards of even length."""
    splits = assign_splits(songs, options.test_fraction, options.seed)
    ordered = sorted(songs, key=lambda song: song.id)
    music = sum(_guess_seconds(song) for song in songs)
    shard_seconds = min(max(music / _SHARDS, _SHORTEST), _LONGEST)
    tasks = []
    for split in records.SPLITS:
        inside = [song for song in ordered if splits[song.id] == split]
        shards = _fill(inside, shard_seconds)
        for index, shard in enumerate(shards):
            decoding = (options.min_seconds, options.sample_rate)
            state = [*decoding, [_audio_state(song) for song in shard]]
            digest = _digest([VERSION, records.SEGMENT, state])
            tasks.append(ShardTask(out, split, index, len(shards), shard, *decoding, digest))
    entries = [[to_entry(song, Path("/")), song.lyrics, _audio_state(song)] for song in ordered]
    everything = [VERSION, records.SEGMENT, dataclasses.asdict(options), entries]
    return Plan(tuple(tasks), splits, _digest(everything))


def _fill(songs: Sequence[Song], shard_seconds: float) -> list[tuple[Song, ...]]:
    """Cuts the songs into runs of about `shard_seconds` of music, as guessed."""
    shards: list[list[Song]] = []
    room = 0.0
    for song in songs:
        if room <= 0:
            shards.append([])
            room = shard_seconds
        shards[-1].append(song)
        room -= _guess_seconds(song)
    return [tuple(shard) for shard in shards]


def _guess_seconds(song: Song) -> float:
    """A song's length guessed from the size of its file."""
    rate = _BYTES_PER_SECOND.get(song.audio.suffix.lower(), _COMPRESSED)
    return file_size(song.audio) / rate


def _audio_state(song: Song) -> list[Any]:
    """What tells whether a song's sound has changed: id, name, size and time of change."""
    try:
        stat = song.audio.stat()
    except OSError:
        return [song.id, song.audio.name, 0, 0]
    return [song.id, song.audio.name, stat.st_size, stat.st_mtime_ns]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
