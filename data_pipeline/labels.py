"""Artist and genre names as ids; id 0 is "unknown".

A vocabulary looks names up by one of three rules:

  names  for one's own songs: NFC, case folded, white space collapsed; a genre is one name.
  v2     of the published upsamplers and 5B priors: lower case, every run of what is not a-z or 0-9
         one "_", none at the ends; genres are split at "_" into a bag of words.
  v3     of the published 1B prior: lower case and nothing else; a genre is one name.

The published lists are read from the files of `name;id` lines that belong to the checkpoints.
"""

import dataclasses
import difflib
import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data_pipeline import files
from data_pipeline.errors import DataError

UNKNOWN = "unknown"
RULES = ("names", "v2", "v3")
_SHAPE = (
    "labels must be {'artists': [names], 'genres': [names]}, with 'rule' one of "
    f"{', '.join(RULES)} and 'artist_aliases', 'genre_aliases' as {{name: id}} where there are any"
)

Ids = npt.NDArray[np.int32]


def normalise(name: str, rule: str = "names") -> str:
    """The spelling of a name under which a vocabulary of that rule looks it up."""
    if rule == "v2":
        return re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")
    if rule == "v3":
        return name.lower()
    folded = unicodedata.normalize("NFC", name).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Names by id; entry 0 of both is "unknown", an id that nothing has is "".

    The aliases are the names whose id the lists do not tell: a second name of an id, and a name
    that stands at several ids. Without an alias the first place counts.
    """

    artists: tuple[str, ...]
    genres: tuple[str, ...]
    rule: str = "names"
    artist_aliases: Mapping[str, int] = dataclasses.field(default_factory=dict)
    genre_aliases: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @classmethod
    def build(cls, artists: Iterable[str], genres: Iterable[str]) -> "Vocabulary":
        """The sorted distinct names after "unknown"."""
        return cls(_names(artists), _names(genres))

    @classmethod
    def placeholder(cls, artists: int, genres: int) -> "Vocabulary":
        """For a model whose names are not at hand: "artist 1", "genre 1" and so on.

        Args:
          artists, genres: rows of the model's tables, "unknown" among them.
        """
        return cls(_numbered("artist", artists), _numbered("genre", genres))

    @classmethod
    def from_id_files(
        cls,
        artists_path: str | Path,
        genres_path: str | Path,
        rule: Literal["v2", "v3"],
        artists: int,
        genres: int,
    ) -> "Vocabulary":
        """Reads two files of `name;id` lines, names as they stand.

        Several names may have one id: the first names it, the others find it. Of several ids of
        one name the last line's is found, as in the published code.

        Args:
          artists_path, genres_path: UTF-8 text.
          rule: of the model that the files belong to.
          artists, genres: rows of the model's tables.

        Raises:
          DataError: a file that cannot be read, a line that is no `name;id` (with its number), an
            id outside its table, or names for less than nine tenths of a table.
        """
        artist_pairs = _read_ids(Path(artists_path), artists)
        genre_pairs = _read_ids(Path(genres_path), genres)
        paths = Path(artists_path), Path(genres_path)
        return cls.from_pairs((artist_pairs, genre_pairs), (artists, genres), rule, paths)

    @classmethod
    def from_pairs(
        cls,
        pairs: tuple[Iterable[tuple[str, int]], Iterable[tuple[str, int]]],
        sizes: tuple[int, int],
        rule: Literal["v2", "v3"],
        where: tuple[Path, Path],
    ) -> "Vocabulary":
        """`from_id_files`, of names with ids inside their tables, artists first, then genres.

        Args:
          where: what they were read from, for the error.
        """
        artists, artist_aliases = _by_id(pairs[0], sizes[0], where[0])
        genres, genre_aliases = _by_id(pairs[1], sizes[1], where[1])
        return cls(artists, genres, rule, artist_aliases, genre_aliases)

    @functools.cached_property
    def _artist_index(self) -> dict[str, int]:
        return _index(self.artists) | dict(self.artist_aliases)

    @functools.cached_property
    def _genre_index(self) -> dict[str, int]:
        return _index(self.genres) | dict(self.genre_aliases)

    def _genre_keys(self, names: Sequence[str]) -> list[str]:
        if self.rule == "v2" and names:
            return normalise(" ".join(names), "v2").split("_")
        return [normalise(name, self.rule) for name in names]

    def artist_id(self, name: str) -> int:
        """The artist's id, 0 when the name is not known."""
        return self._artist_index.get(normalise(name, self.rule), 0)

    def genre_ids(self, names: Sequence[str], max_genres: int) -> Ids:
        """(max_genres,) int32: ids in the order given, padded with -1.

        An unknown name is 0, and so is the first entry when no genre is given. What is more than
        max_genres is cut off, where the published code stops: one song must not end a training.
        """
        ids = [self._genre_index.get(key, 0) for key in self._genre_keys(names)] or [0]
        padded = ids[:max_genres] + [-1] * max(0, max_genres - len(ids))
        return np.asarray(padded, np.int32)

    def require_artist(self, name: str) -> int:
        """The artist's id.

        Raises:
          DataError: the name is not known; names the nearest ones.
        """
        _require(normalise(name, self.rule), self._artist_index, f"artist {name!r}")
        return self.artist_id(name)

    def require_genres(self, names: Sequence[str], max_genres: int) -> Ids:
        """`genre_ids`.

        Raises:
          DataError: a name is not known (names the nearest ones), or there are too many.
        """
        keys = self._genre_keys(names)
        for key in keys:
            _require(key, self._genre_index, f"genre {key!r}")
        if len(keys) > max_genres:
            raise DataError(
                f"{', '.join(map(repr, keys))} are {len(keys)} genres, but the model takes at most "
                f"{max_genres}; leave some out"
            )
        return self.genre_ids(names, max_genres)

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        value: dict[str, Any] = {"artists": list(self.artists), "genres": list(self.genres)}
        if self.rule != "names":
            value["rule"] = self.rule
        for name in ("artist_aliases", "genre_aliases"):
            if aliases := getattr(self, name):
                value[name] = dict(aliases)
        return value

    @classmethod
    def from_json(cls, value: Any) -> "Vocabulary":
        """Reads what `to_json` gave; raises DataError when it is something else."""
        try:
            found = cls(**value)
            tables = (found.artists, found.artist_aliases), (found.genres, found.genre_aliases)
            good = found.rule in RULES and all(
                isinstance(names, list)
                and all(isinstance(name, str) for name in names)
                and all(i in range(len(names)) for i in aliases.values())
                for names, aliases in tables
            )
        except (AttributeError, TypeError):
            good = False
        if not good:
            raise DataError(f"{_SHAPE}; prepare or import again")
        return dataclasses.replace(found, artists=tuple(found.artists), genres=tuple(found.genres))

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


def _numbered(kind: str, count: int) -> tuple[str, ...]:
    return (UNKNOWN, *(f"{kind} {i}" for i in range(1, count)))


def _index(names: Sequence[str]) -> dict[str, int]:
    return {name: i for i, name in reversed(list(enumerate(names))) if name}


def _require(key: str, index: dict[str, int], what: str) -> None:
    if key not in index:
        near = difflib.get_close_matches(key, index, n=3, cutoff=0.0)
        raise DataError(
            f"the {what} is not among the {len(index)} known ones; the nearest are "
            f"{', '.join(map(repr, near))}; choose one, or {UNKNOWN!r}"
        )


def _read_ids(path: Path, count: int) -> list[tuple[str, int]]:
    """The names and ids of a file's lines."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error})") from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        found = re.fullmatch(r"(.*);\s*(\d+)\s*", line)
        if found and int(found[2]) < count:
            pairs.append((found[1], int(found[2])))
        elif line.strip():
            raise DataError(
                f"{path}, line {number}: {line!r} is no name;id with an id below {count}, the "
                "size of the model's table; see whether the file is this model's"
            )
    return pairs


def _by_id(
    pairs: Iterable[tuple[str, int]], count: int, where: Path
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names by id, and the aliases."""
    names, ids = [UNKNOWN] + [""] * (count - 1), dict[str, int]()
    for name, i in pairs:
        names[i] = names[i] or name
        ids[name] = i
    named = sum(map(bool, names))
    if 10 * named < 9 * count:
        raise DataError(
            f"{where} has names for {named} of the model's {count} ids; see whether the file is "
            "this model's"
        )
    index = _index(names)
    return tuple(names), {name: i for name, i in ids.items() if index.get(name) != i}
