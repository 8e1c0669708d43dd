"""Artists, genres, years and tags as ids; id 0 is "unknown".

A vocabulary looks names up by one of three rules:

  names  for one's own songs: NFC, case folded, white space collapsed; a genre is one name.
  v2     of the published upsamplers and 5B priors: lower case, every run of what is not a-z or 0-9
         one "_", none at the ends; genres are split at "_" into a bag of words.
  v3     of the published 1B prior: lower case and nothing else; a genre is one name.

Years fall into decades ("1960s"); a vocabulary made by hand may name single years too. Tags (moods,
keywords of playlists) are looked up as one's own names are, whatever the rule.

The published lists are read from the files of `name;id` lines that belong to the checkpoints.
"""

import collections
import dataclasses
import difflib
import functools
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from jukejax import files
from jukejax.config import LabelsConfig
from jukejax.errors import DataError
from jukejax.text.label_files import read_ids

UNKNOWN = "unknown"
RULES = ("names", "v2", "v3")
TABLES = ("artists", "genres", "years", "tags")
_SHAPE = (
    "labels must be {'artists': [names], 'genres': [names]}, with lists of 'years' and 'tags', a "
    f"'rule' that is one of {', '.join(RULES)}, and 'artist_aliases', 'genre_aliases' as "
    "{name: id} where there are any"
)

Ids = npt.NDArray[np.int32]


class Labelled(Protocol):
    """A song, as far as labels go: of a manifest or of a prepared data set."""

    @property
    def artist(self) -> str: ...
    @property
    def genres(self) -> tuple[str, ...]: ...
    @property
    def year(self) -> int | None: ...
    @property
    def tags(self) -> tuple[str, ...]: ...


def song_labels(songs: Iterable[Labelled]) -> dict[str, Any]:
    """What `Vocabulary.build` and `grown` count: every label of every song, by table."""
    counts = {name: collections.Counter[Any]() for name in TABLES}
    for song in songs:
        counts["artists"][song.artist] += 1
        counts["genres"].update(set(song.genres))
        counts["years"][song.year] += 1
        counts["tags"].update(set(song.tags))
    return {name: found.elements() for name, found in counts.items()}


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
    """Names by id; entry 0 of a table is "unknown", an id that nothing has is "".

    A table without entries is one that the songs say nothing of.

    The aliases are the names whose id the lists do not tell: a second name of an id, and a name
    that stands at several ids. Without an alias the first place counts.
    """

    artists: tuple[str, ...]
    genres: tuple[str, ...]
    rule: str = "names"
    artist_aliases: Mapping[str, int] = dataclasses.field(default_factory=dict)
    genre_aliases: Mapping[str, int] = dataclasses.field(default_factory=dict)
    years: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    @classmethod
    def build(
        cls,
        artists: Iterable[str],
        genres: Iterable[str],
        years: Iterable[int | None] = (),
        tags: Iterable[str] = (),
        min_count: int = 1,
    ) -> "Vocabulary":
        """The sorted distinct names after "unknown".

        Args:
          artists, genres, years, tags: a name for each time that a song has it.
          min_count: names that come less often are left out, and so are unknown.
        """
        empty = cls((UNKNOWN,), (UNKNOWN,))
        return empty.grown(artists, genres, years, tags, min_count)

    def grown(
        self,
        artists: Iterable[str],
        genres: Iterable[str],
        years: Iterable[int | None] = (),
        tags: Iterable[str] = (),
        min_count: int = 1,
    ) -> "Vocabulary":
        """This vocabulary and, after its names, those that it does not know yet, sorted.

        Every name that was there keeps its id. New names are spelled by the vocabulary's rule.

        Args:
          artists, genres, years, tags, min_count: as for `build`.
        """
        keys = {
            "artists": (normalise(name, self.rule) for name in artists),
            "genres": (key for name in genres for key in self._genre_keys([name])),
            "years": (_decade(year) for year in years if self.year_id(year) == 0),
            "tags": map(normalise, tags),
        }
        known = {"artists": self._artist_index, "genres": self._genre_index}
        tables: dict[str, Any] = {}
        for name, found in keys.items():
            counts = collections.Counter(found)
            old = getattr(self, name)
            dull = {"", UNKNOWN, *old, *known.get(name, ())}
            new = sorted(key for key, n in counts.items() if n >= min_count and key not in dull)
            tables[name] = (*(old or ((UNKNOWN,) if new else ())), *new)
        return dataclasses.replace(self, **tables)

    def first(self, **sizes: int) -> "Vocabulary":
        """With so many entries of the tables named: what was there before it was grown."""
        cut: dict[str, Any] = {name: getattr(self, name)[:n] for name, n in sizes.items()}
        return dataclasses.replace(self, **cut)

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
        artist_pairs = read_ids(Path(artists_path), artists)
        genre_pairs = read_ids(Path(genres_path), genres)
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

    @functools.cached_property
    def _year_index(self) -> dict[str, int]:
        return _index(self.years)

    @functools.cached_property
    def _tag_index(self) -> dict[str, int]:
        return _index(self.tags)

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
        _most(keys, max_genres, "genres")
        return self.genre_ids(names, max_genres)

    def year_id(self, year: int | None) -> int:
        """The id of a year, or else of its decade; 0 when neither is known."""
        index = self._year_index
        return 0 if year is None else index.get(str(year)) or index.get(_decade(year), 0)

    def tag_ids(self, names: Sequence[str], max_tags: int) -> Ids:
        """(max_tags,) int32: ids in the order given, padded with -1.

        Tags that are not known are left out, and those past max_tags cut off. The first entry is 0
        when none is left.
        """
        found = (self._tag_index.get(normalise(name), 0) for name in names)
        ids = list(dict.fromkeys(i for i in found if i)) or [0]
        return np.asarray(ids[:max_tags] + [-1] * max(0, max_tags - len(ids)), np.int32)

    def require_year(self, year: int | None) -> int:
        """`year_id`; None is unknown.

        Raises:
          DataError: neither the year nor its decade is known.
        """
        if year is not None and not self.year_id(year):
            _require(_decade(year), self._year_index, f"year {year}")
        return self.year_id(year)

    def require_tags(self, names: Sequence[str], max_tags: int) -> Ids:
        """`tag_ids`.

        Raises:
          DataError: a tag is not known (names the nearest ones), or there are too many.
        """
        for name in names:
            _require(normalise(name), self._tag_index, f"tag {name!r}")
        _most(names, max_tags, "tags")
        return self.tag_ids(names, max_tags)

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        value: dict[str, Any] = {"artists": list(self.artists), "genres": list(self.genres)}
        if self.rule != "names":
            value["rule"] = self.rule
        for name in ("artist_aliases", "genre_aliases"):
            if aliases := getattr(self, name):
                value[name] = dict(aliases)
        value |= {name: list(table) for name in TABLES[2:] if (table := getattr(self, name))}
        return value

    @classmethod
    def from_json(cls, value: Any) -> "Vocabulary":
        """Reads what `to_json` gave; raises DataError when it is something else."""
        try:
            found = cls(**value)
            tables = [
                (found.artists, found.artist_aliases),
                (found.genres, found.genre_aliases),
                (found.years, {}),
                (found.tags, {}),
            ]
            good = found.rule in RULES and all(
                isinstance(names, list | tuple)
                and all(isinstance(name, str) for name in names)
                and all(i in range(len(names)) for i in aliases.values())
                for names, aliases in tables
            )
        except (AttributeError, TypeError):
            good = False
        if not good:
            raise DataError(f"{_SHAPE}; prepare or import again")
        lists: dict[str, Any] = {name: tuple(getattr(found, name)) for name in TABLES}
        return dataclasses.replace(found, **lists)

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


def _decade(year: int | None) -> str:
    """ "1960s" of 1969; nothing of no year."""
    return "" if year is None else f"{year // 10 * 10}s"


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


def _most(names: Sequence[str], most: int, kind: str) -> None:
    if len(names) > most:
        raise DataError(
            f"{', '.join(map(repr, names))} are {len(names)} {kind}, but the model takes at most "
            f"{most}; leave some out"
        )


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


def used_names(vocabulary: Vocabulary, labels: LabelsConfig | None) -> Vocabulary:
    """A vocabulary without the tables that a prior does not read."""
    used = labels.tables if labels else {}
    return vocabulary.first(**{name: 0 for name in ("years", "tags") if name not in used})


def labels_digest(vocabulary: Vocabulary, labels: LabelsConfig | None = None) -> str:
    """16 hexadecimal digits that change when a label's name or place does.

    Of a prior with `labels` (None: without) they tell what it reads: names of years and tags that
    songs have gained since do not matter to one without.
    """
    vocabulary = used_names(vocabulary, labels)
    names = json.dumps(vocabulary.to_json(), ensure_ascii=False)
    return hashlib.sha256(names.encode()).hexdigest()[:16]
