"""What evaluation needs of a data set, as protocols: the caller hands in an implementation.

The library reads no records itself; `experiments.evaluation_data` implements these protocols over
`data_pipeline`. `str(data)` is where the data is, for messages. S samples, T codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jukejax.config import PriorConfig
from jukejax.text.labels import Vocabulary
from jukejax.tracks import Tracks


class Song(Protocol):
    """A song of a data set: its labels, lyrics, the times of its words, and its tracks."""

    @property
    def index(self) -> int: ...  # row in the data set
    @property
    def id(self) -> str: ...
    @property
    def n_samples(self) -> int: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def artist(self) -> str: ...
    @property
    def genres(self) -> tuple[str, ...]: ...
    @property
    def year(self) -> int | None: ...
    @property
    def tags(self) -> tuple[str, ...]: ...
    @property
    def lyrics(self) -> str: ...
    @property
    def words(self) -> Sequence[tuple[str, float, float]]: ...  # text, start and end in seconds
    @property
    def tracks(self) -> Tracks: ...
    @property
    def group(self) -> str: ...  # songs of one group are versions of each other; "" for none


class Songs(Protocol):
    """Prepared songs with their sound."""

    def listed(self) -> Sequence[Song]:
        """All songs, in order of `index`; DataError where the folder holds none."""
        ...

    def split(self, name: str) -> Sequence[Song]:
        """The songs of "train" or "test"; DataError where there are none."""
        ...

    def digest(self) -> str:
        """A short digest that changes with the songs and their records."""
        ...

    def audio(self, song: Song, start: int, stop: int) -> NDArray[np.float32]:
        """Samples start..stop of a song, mean of both channels: (stop - start,) in [-1, 1)."""
        ...


class Codes(Protocol):
    """Songs as the codes of a VQ-VAE; `listed`, `split` and `digest` as of `Songs`."""

    @property
    def fingerprint(self) -> str:
        """Of the VQ-VAE that encoded them; DataError where the folder holds no codes."""
        ...

    def listed(self) -> Sequence[Song]: ...
    def split(self, name: str) -> Sequence[Song]: ...
    def digest(self) -> str: ...

    def length(self, song: Song, level: int) -> int:
        """Codes of a song at a level."""
        ...

    def read(self, song: Song) -> list[NDArray[np.uint16]]:
        """The codes (T,) of a whole song by level, bottom first."""
        ...

    def windows(
        self,
        config: PriorConfig,
        names: Vocabulary | None,
        split: str,
        batch: int,
        most: int | None = None,
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Batches of the whole windows of a split, in order and without overlap.

        They hold what the prior reads, and "valid" (B,) bool (False for rows that fill up the last
        batch), "song" (B,) int, the song's `index`, and "place" (B,), where in its song a window
        begins, in 0..1. With `most`, at most that many windows, evenly over the split.
        """
        ...

    def token_counts(self, level: int, codes: int) -> tuple[list[str], NDArray[np.int64]]:
        """The splits that there are, and how often each of `codes` codes occurs in them, (K,)."""
        ...
