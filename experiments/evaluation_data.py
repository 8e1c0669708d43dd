"""Where evaluation meets the data pipeline: `jukejax.evaluation.data` over prepared data sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline import records
from data_pipeline.code_loader import code_token_counts, code_windows
from data_pipeline.codes import codes_info, codes_length, read_song_codes
from data_pipeline.records import read_audio
from data_pipeline.songs import PreparedSong, PreparedSongs, prepared_songs
from experiments.codes import Encoding, write_codes
from experiments.data import prior_inputs
from jukejax.config import PriorConfig
from jukejax.evaluation.data import Song, Songs
from jukejax.evaluation.subject import digest_files
from jukejax.model_dir import LoadedVQVAE
from jukejax.text.labels import Vocabulary


class _Prepared:
    """A folder that `jukejax prepare` or `jukejax encode` wrote; read when asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def listed(self) -> PreparedSongs:
        return prepared_songs(self.folder)

    def split(self, name: str) -> PreparedSongs:
        return records.split_songs(self.folder, name)

    def digest(self) -> str:
        self.listed()  # a folder that holds no songs is an error in a sentence
        shards = sorted((self.folder / "shards").glob("*.json"))  # with digests of the records
        return digest_files([self.folder / "songs.jsonl", *shards])


class PreparedAudio(_Prepared):
    """`evaluation.data.Songs` of a prepared data set."""

    def audio(self, song: Song, start: int, stop: int) -> NDArray[np.float32]:
        assert isinstance(song, PreparedSong)
        pcm = read_audio(self.folder, song, start, stop)
        return pcm.mean(axis=1, dtype=np.float32) / np.float32(32768.0)


class PreparedCodes(_Prepared):
    """`evaluation.data.Codes` of an encoded data set."""

    @property
    def fingerprint(self) -> str:
        return codes_info(self.folder).fingerprint

    def length(self, song: Song, level: int) -> int:
        info = codes_info(self.folder)
        return codes_length(song.n_samples, info.hops[level], info.block)

    def read(self, song: Song) -> list[NDArray[np.uint16]]:
        return read_song_codes(self.folder, song.id)

    def windows(
        self,
        config: PriorConfig,
        names: Vocabulary | None,
        split: str,
        batch: int,
        most: int | None = None,
    ) -> Iterator[dict[str, NDArray[Any]]]:
        reads = code_windows(self.folder, config, names, split=split, batch_size=batch, most=most)
        for read in reads:
            beside = {name: read[name] for name in ("valid", "song")}
            beside["place"] = read["offset"] / read["total_length"]
            yield prior_inputs(config, read) | beside

    def token_counts(self, level: int, codes: int) -> tuple[list[str], NDArray[np.int64]]:
        songs = self.listed()
        splits = [split for split in records.SPLITS if len(songs.of_split(split))]
        counts = [code_token_counts(self.folder, split, level, codes) for split in splits]
        return splits, np.sum(counts, axis=0)


def encode_test_split(vqvae: LoadedVQVAE, songs: Songs, out: Path) -> PreparedCodes:
    """The codes of the held-out songs, and no others, written to `out`."""
    assert isinstance(songs, PreparedAudio)
    write_codes(vqvae, Encoding(songs.folder, out), splits=("test",))
    return PreparedCodes(out)
