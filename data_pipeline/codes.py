"""The codes data set: an audio data set encoded by a VQ-VAE, in the same shards.

A record has the codes of all levels of one part of a song, as uint16. `codes.json` has the VQ-VAE's
fingerprint, hops and number of codes, so that a prior is never trained on codes of another VQ-VAE.
Level 0 is the bottom (smallest hop). Songs are padded with silence to whole blocks,
so level l has ceil(n_samples / block) * block / hop_l codes.

The codes are those of the mean of left and right. A training song may be encoded in further passes,
as m * left + (1 - m) * right with m drawn from (seed, song, pass). Each pass is a song of its own,
with the id `song#1`, `song#2` ... and the same labels.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from data_pipeline import records, songs
from data_pipeline.songs import PreparedSong, prepared_songs
from jukejax import files, stored
from jukejax.config import from_dict
from jukejax.errors import DataError

Codes = npt.NDArray[np.uint16]
Count = TypeVar("Count", int, npt.NDArray[np.int64])
NAME = songs.CODES
_MOST_CODES = 65_536  # of uint16
_SEGMENT = 262_144  # samples of a record, about; 86 kB of codes at the published hops


@dataclasses.dataclass(frozen=True)
class CodesInfo:
    """Content of `codes.json`.

    Attributes:
      fingerprint: of the VQ-VAE.
      hops: samples a code, by level.
      segment: samples a record.
      codes: codes a level.
      passes: how often a training song is encoded.
      seed: of the downmixes of further passes.
      groups: codes per encoder output of the VQ-VAE.
    """

    fingerprint: str
    hops: tuple[int, ...]
    segment: int
    codes: int
    passes: int = 1
    seed: int = 0
    groups: int = 1

    @property
    def block(self) -> int:
        """Samples per encoder output of the top level; songs are padded to whole blocks."""
        return self.hops[-1] * self.groups

    def to_json(self) -> dict[str, Any]:
        """The fields; passes and seed, and groups, only where they matter, as in older versions."""
        fields = dataclasses.asdict(self)
        left_out = ["passes", "seed"] * (self.passes == 1) + ["groups"] * (self.groups == 1)
        return {name: value for name, value in fields.items() if name not in left_out}


@dataclasses.dataclass(frozen=True)
class CodesShard(records.Shard):
    """A shard to encode and its songs, in order."""

    songs: Sequence[PreparedSong]
    digest: str


def codes_length(n_samples: Count, hop: int, block: int) -> Count:
    """Codes of a song (or of songs) of `n_samples` at the level of `hop`."""
    return -(-n_samples // block) * (block // hop)


def codes_info(codes_dir: str | Path, expect_fingerprint: str | None = None) -> CodesInfo:
    """Reads `codes.json`.

    Raises:
      DataError: the folder has no codes, or those of another VQ-VAE than expected.
    """
    path, remedy = Path(codes_dir) / NAME, "encode the songs again"
    fields = {"fingerprint": str, "hops": list, "segment": int}
    try:
        value = stored.read_object(path, fields, remedy)
    except FileNotFoundError as error:
        if (Path(codes_dir) / songs.NAME).is_file():
            what = f"{codes_dir} holds songs, not codes (no {NAME}); encode them"
        else:
            what = f"{codes_dir} is not a codes data set (no {NAME}); make it"
        raise DataError(f"{what} with `jukejax encode`") from error
    if "codes" not in value:
        raise DataError(
            f"{codes_dir}/{NAME} has no number of codes a level: an older version wrote "
            "it; encode the songs again, to another folder"
        )
    info = from_dict(CodesInfo, value, str(path))
    numbers = (*info.hops, info.segment, info.codes, info.passes, info.groups)
    if min(numbers) < 1 or info.codes > _MOST_CODES or not info.hops:
        raise DataError(
            f"{path} is damaged: hops, segment, codes, passes and groups must be 1 or more, and "
            f"codes at most {_MOST_CODES}; {remedy}"
        )
    if expect_fingerprint is not None and info.fingerprint != expect_fingerprint:
        raise DataError(
            f"{codes_dir} holds codes of VQ-VAE {info.fingerprint!r}, not of "
            f"{expect_fingerprint!r}; encode the songs with the VQ-VAE this prior is for"
        )
    return info


def read_song_codes(codes_dir: str | Path, song_id: str) -> list[Codes]:
    """All codes of a song: a list of (length,) uint16, level 0 first.

    Raises:
      DataError: there is no such song.
    """
    info = codes_info(codes_dir)
    song = songs.find_song(codes_dir, song_id)
    source = records.open_split(codes_dir, song.split)
    rows = source.read(range(song.first_record, song.first_record + song.records))
    names = [f"codes_{level}" for level in range(len(info.hops))]
    codes = [np.concatenate([row[name] for row in rows]) for name in names]
    for level, array in enumerate(codes):
        where = f"{codes_dir}: song {song_id!r}, level {level}"
        stored.check_codes(array, info.codes, where, "encode the songs again")
    return codes


class CodesWriter:
    """Writes a codes data set shard by shard; an interrupted run continues with missing shards."""

    def __init__(
        self,
        data_dir: str | Path,
        out_dir: str | Path,
        hops: Sequence[int],
        fingerprint: str,
        *,
        codes: int,
        passes: int = 1,
        seed: int = 0,
        groups: int = 1,
        splits: Sequence[str] = records.SPLITS,
    ) -> None:
        """Opens or creates `out_dir` for the songs of `data_dir` and a VQ-VAE.

        Args:
          data_dir, out_dir: the songs, and the folder for their codes.
          hops, fingerprint, codes: of the VQ-VAE; codes a level.
          passes: how often a training song is encoded; the first pass is the mean downmix.
          seed: of the downmixes of further passes.
          groups: codes per encoder output of the VQ-VAE.
          splits: splits whose songs are encoded.

        Raises:
          DataError: the hops do not nest, `data_dir` has no songs, or `out_dir` has songs or the
            codes of another VQ-VAE; nothing has been written.
        """
        self.data_dir, self.out_dir = Path(data_dir).resolve(), Path(out_dir).resolve()
        self.hops = tuple(int(hop) for hop in hops)
        nested = all(big % small == 0 for small, big in zip(self.hops, self.hops[1:], strict=False))
        if not self.hops or min(self.hops) < 1 or not nested:
            raise DataError(f"hops are {self.hops}; each must divide the next, bottom level first")
        if not 1 <= codes <= _MOST_CODES:
            raise DataError(f"a level has {codes} codes; records take 1 to {_MOST_CODES}")
        if passes < 1:
            raise DataError(f"--passes is {passes}; give 1 (the mean downmix alone) or more")
        seed = seed if passes > 1 else 0  # a single pass does not depend on it
        block = self.hops[-1] * groups
        segment = max(1, _SEGMENT // block) * block
        self.info = CodesInfo(fingerprint, self.hops, segment, codes, passes, seed, groups)
        self.splits = tuple(splits)
        self._check_folders()
        self._check_names()
        self.shards = self._shards()
        if (self.out_dir / NAME).is_file():
            earlier = codes_info(self.out_dir, fingerprint)
            if earlier != self.info:
                raise DataError(
                    f"{out_dir} was written with {earlier}, not {self.info}; encode to another "
                    "folder"
                )
        else:
            files.write_json(self.out_dir / NAME, self.info.to_json())
        (self.out_dir / "shards").mkdir(exist_ok=True)

    def _check_folders(self) -> None:
        """DataError if there are no songs to read, or songs would be overwritten."""
        songs.require_audio(self.data_dir)
        if self.out_dir == self.data_dir:
            raise DataError(
                f"{self.out_dir} holds the songs, which their codes would overwrite; give another "
                "folder for the codes"
            )
        of_songs = [self.out_dir / name for name in (songs.NAME, "plan.json")]
        of_songs += sorted(self.out_dir.glob(f"{records.DATASET}-*.array_record-*"))
        present = [path.name for path in of_songs if path.exists()]
        if present and not (self.out_dir / NAME).is_file():
            raise DataError(
                f"{self.out_dir} holds songs or a part of them ({present[0]}), which codes would "
                "overwrite; give another folder for the codes"
            )

    def _shards(self) -> list[CodesShard]:
        """Shards as those of the audio data set, each with a digest of all it depends on."""
        listed = prepared_songs(self.data_dir)
        by_split = {name: listed.of_split(name).by_shard() for name in self.splits}
        shards = []
        for path in sorted((self.data_dir / "shards").glob("*-of-*.json")):
            split, index, _, count = path.stem.split("-")
            if split not in by_split:
                continue
            inside = by_split[split].get(int(index), listed.take(slice(0)))
            audio = (files.read_json(path) or {}).get("digest")
            state = [audio, self.info.to_json(), [song.id for song in inside]]
            digest = hashlib.sha256(json.dumps(state).encode()).hexdigest()
            place = (self.out_dir, split, int(index), int(count))
            shards.append(CodesShard(*place, inside, digest))
        if not shards:
            raise DataError(f"{self.data_dir} has no shards; prepare the songs first")
        return shards

    def mixes(self, shard: CodesShard) -> Iterator[tuple[PreparedSong, float]]:
        """The songs of a shard, each with the weight of the left channel in its downmix.

        The mean downmix (0.5) of all songs, then the further passes of training songs.
        """
        yield from ((song, 0.5) for song in shard.songs)
        if shard.split == "train":
            for number in range(1, self.info.passes):
                for song, copy in zip(shard.songs, self._copies(shard.songs, number), strict=True):
                    yield copy, _left(self.info.seed, song.id, number)

    def _copies(self, train: Sequence[PreparedSong], number: int) -> Iterator[PreparedSong]:
        """A further pass of training songs.

        Their indices follow those of all songs, which so keep the index of the audio data set.
        """
        count, every = self._training
        for song in train:
            index = count + (number - 1) * len(every) + np.searchsorted(every, song.index)
            yield dataclasses.replace(song, id=f"{song.id}#{number}", index=int(index))

    @functools.cached_property
    def _training(self) -> tuple[int, npt.NDArray[np.int32]]:
        """The number of all songs, and the indices of those that train."""
        listed = prepared_songs(self.data_dir)
        return len(listed), listed.of_split("train").column("index")

    def _check_names(self) -> None:
        """DataError if a song has the id that a further pass of another would get."""
        for song in prepared_songs(self.data_dir) if self.info.passes > 1 else ():
            name, mark, number = song.id.rpartition("#")
            if mark and number in map(str, range(1, self.info.passes)):
                raise DataError(
                    f"{self.data_dir} has a song {song.id!r}, the id of pass {number} of a song "
                    f"{name!r}; rename it, or leave out --passes"
                )

    def pending_shards(self) -> list[CodesShard]:
        """Shards with songs that are not written yet."""
        return [x for x in self.shards if len(x.songs) and x.read_note(x.digest) is None]

    def write_shard(
        self, shard: CodesShard, encoded: Sequence[tuple[PreparedSong, Sequence[npt.ArrayLike]]]
    ) -> None:
        """Writes one shard atomically.

        Args:
          shard: one of `pending_shards()`.
          encoded: its songs as of `mixes`, each with its codes by level, level 0 first:
            `codes_length` integers from 0 to `info.codes` - 1.

        Raises:
          DataError: the songs are not the shard's, or codes have another length or range.
        """
        ids = [song.id for song, _ in self.mixes(shard)]
        if [song.id for song, _ in encoded] != ids:
            raise DataError(
                f"shard {shard.path.name} takes the songs {ids} in this "
                "order; give the codes of all of them"
            )
        checked = [(song, self._check(song, codes)) for song, codes in encoded]
        (self.out_dir / "dataset_info.json").unlink(missing_ok=True)  # incomplete from here on
        examples = (row for song, codes in checked for row in self._examples(song, codes))
        size = sum(level.nbytes for _, codes in checked for level in codes)
        shard.write_note(shard.digest, records=records.write_shard(shard.path, examples, size))

    def _check(self, song: PreparedSong, codes: Sequence[npt.ArrayLike]) -> list[Codes]:
        lengths = [codes_length(song.n_samples, hop, self.info.block) for hop in self.hops]
        arrays = [np.asarray(level) for level in codes]
        if [array.shape for array in arrays] != [(length,) for length in lengths]:
            raise DataError(
                f"the codes of song {song.id!r} have shapes {[a.shape for a in arrays]}, but "
                f"{song.n_samples} samples make {lengths}; pad songs to whole blocks"
            )
        for array in arrays:
            if array.size and (array.min() < 0 or array.max() >= self.info.codes):
                raise DataError(
                    f"the codes of song {song.id!r} are in {array.min()}..{array.max()}, but the "
                    f"VQ-VAE has 0..{self.info.codes - 1}; encode with the VQ-VAE named"
                )
        return [array.astype(np.uint16) for array in arrays]

    def _examples(self, song: PreparedSong, codes: list[Codes]) -> Iterator[dict[str, Any]]:
        for offset in range(0, song.n_samples, self.info.segment):
            example = {"id": song.id, "offset": offset, "n_samples": song.n_samples}
            for level, (hop, array) in enumerate(zip(self.hops, codes, strict=True)):
                begin = offset // hop
                example[f"codes_{level}"] = array[begin : begin + self.info.segment // hop]
            yield example

    def finish(self) -> Sequence[PreparedSong]:
        """Writes songs, labels and TFDS metadata once all shards are written; returns the songs.

        Raises:
          DataError: shards are missing.
        """
        missing = self.pending_shards()
        if missing:
            raise DataError(
                f"{len(missing)} shards are not encoded yet ({missing[0].path.name} ...); run again"
            )
        lengths: dict[str, list[int]] = {split: [] for split in records.SPLITS}
        for shard in sorted(self.shards, key=lambda s: (records.SPLITS.index(s.split), s.index)):
            if not len(shard.songs):
                self.write_shard(shard, [])
            lengths[shard.split].append(sum(self._records(song) for song, _ in self.mixes(shard)))
        records.remove_leftovers(self.out_dir, {x.split: x.count for x in self.shards})
        songs.write_songs(self.out_dir, self._placed(lengths))
        labels = (self.data_dir / "labels.json").read_text(encoding="utf-8")
        files.write_text(self.out_dir / "labels.json", labels)
        description = f"VQ-VAE codes ({self.info.fingerprint}) of songs."
        arrays = {f"codes_{level}": ((None,), np.uint16) for level in range(len(self.hops))}
        records.write_metadata(self.out_dir, records.features(**arrays), lengths, description)
        return prepared_songs(self.out_dir)

    def _records(self, song: PreparedSong) -> int:
        return -(-song.n_samples // self.info.segment)

    def _placed(self, lengths: dict[str, list[int]]) -> Iterator[PreparedSong]:
        """The songs and further passes with the places of their records, by index.

        In memory are 8 bytes a song (its first record), and one song at a time.
        """
        listed = prepared_songs(self.data_dir)
        kept = listed.take(
            np.flatnonzero(np.isin(listed.column("split"), np.array(self.splits, "S8")))
        )
        train = kept.of_split("train")
        first = np.zeros(len(listed) + len(train) * (self.info.passes - 1), np.int64)
        before = {split: np.cumsum([0, *each]) for split, each in lengths.items()}
        for shard in self.shards:
            place = int(before[shard.split][shard.index])
            for song, _ in self.mixes(shard):
                first[song.index] = place
                place += self._records(song)

        copies = (self._copies(train, number) for number in range(1, self.info.passes))
        for row, song in enumerate(itertools.chain(kept, *copies)):
            place, count = int(first[song.index]), self._records(song)
            yield dataclasses.replace(song, index=row, first_record=place, records=count)


def _left(seed: int, song_id: str, number: int) -> float:
    """Weight of the left channel in a pass of a song: uniform in [0, 1), by SHA-256."""
    digest = hashlib.sha256(json.dumps([seed, song_id, number]).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
