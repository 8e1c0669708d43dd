"""Artist and genre names as ids; id 0 is "unknown"."""

import dataclasses
import difflib
import functools
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline import files
from data_pipeline.errors import DataError

UNKNOWN = "unknown"


def normalise(name: str) -> str:
    """One spelling for a name: NFC, case folded, white space collapsed."""
    folded = unicodedata.normalize("NFC", name).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Normalised names by id; entry 0 of both is "unknown"."""

    artists: tuple[str, ...]
    genres: tuple[str, ...]

    @classmethod
    def build(cls, artists: Iterable[str], genres: Iterable[str]) -> "Vocabulary":
        """The sorted distinct names after "unknown"."""
        return cls(_names(artists), _names(genres))

    @functools.cached_property
    def _artist_index(self) -> dict[str, int]:
        return {name: index for index, name in reversed(list(enumerate(self.artists)))}

    @functools.cached_property
    def _genre_index(self) -> dict[str, int]:
        return {name: index for index, name in reversed(list(enumerate(self.genres)))}

    def artist_id(self, name: str) -> int:
        """The artist's id, 0 when the name is not known."""
        return self._artist_index.get(normalise(name), 0)

    def genre_ids(self, names: Sequence[str], max_genres: int) -> npt.NDArray[np.int32]:
        """(max_genres,) int32: ids in the order given, cut to max_genres, padded with -1.

        An unknown name is 0, and so is the first entry when no genre is given.
        """
        ids = [self._genre_index.get(normalise(name), 0) for name in names] or [0]
        padded = ids[:max_genres] + [-1] * max(0, max_genres - len(ids))
        return np.asarray(padded, np.int32)

    def require_artist(self, name: str) -> int:
        """The artist's id.

        Raises:
          DataError: the name is not known; names the nearest ones.
        """
        return _require(name, self._artist_index, "artist")

    def require_genre(self, name: str) -> int:
        """The genre's id; raises DataError like `require_artist`."""
        return _require(name, self._genre_index, "genre")

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {"artists": list(self.artists), "genres": list(self.genres)}

    @classmethod
    def from_json(cls, value: Any) -> "Vocabulary":
        """Reads what `to_json` gave; raises DataError when it is something else."""
        try:
            lists = value["artists"], value["genres"]
            good = all(isinstance(name, str) for names in lists for name in names)
        except (KeyError, TypeError):
            good = False
        if not good:
            raise DataError("labels must be {'artists': [names], 'genres': [names]}; prepare again")
        return cls(tuple(lists[0]), tuple(lists[1]))

    def save(self, path: str | Path) -> None:
        """Writes the vocabulary as JSON, atomically."""
        files.write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Reads `labels.json`; raises DataError when it is missing or something else."""
        value = files.read_json(Path(path))
        if value is None:
            raise DataError(f"{path} is missing or is not JSON; prepare the songs again")
        return cls.from_json(value)


def _names(names: Iterable[str]) -> tuple[str, ...]:
    distinct = {normalise(name) for name in names} - {"", UNKNOWN}
    return (UNKNOWN, *sorted(distinct))


def _require(name: str, index: dict[str, int], kind: str) -> int:
    key = normalise(name)
    if key not in index:
        near = difflib.get_close_matches(key, index, n=3, cutoff=0.0)
        raise DataError(
            f"the {kind} {name!r} is not among the {len(index)} known ones; the nearest are "
            f"{', '.join(map(repr, near))}; choose one, or {UNKNOWN!r}"
        )
    return index[key]
