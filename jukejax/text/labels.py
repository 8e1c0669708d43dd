"""Artists, genres, years and tags as ids; id 0 is "unknown".

A vocabulary spells names, before looking them up, by one of three rules:

  names  for your own songs: NFC, case folded, white space collapsed; a genre is one name.
  v2     of the published upsamplers and 5B priors: lower case, each run of characters other than
         a-z and 0-9 becomes one "_", none at the ends; genres are split at "_" into a bag of words.
  v3     of the published 1B prior: lower case; a genre is one name.

Years are grouped into decades ("1960s"); a vocabulary written by hand may have single years too.
Tags (moods, keywords of playlists) are spelled by the rule "names" in every vocabulary.

The published lists are read from the `name;id` files that belong to the checkpoints.
"""

import collections
import dataclasses
import difflib
import functools
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from jukejax import files, stored
from jukejax.errors import DataError
from jukejax.label_kinds import KINDS, LabelKind, LabelsConfig
from jukejax.text.normal import nfc

UNKNOWN = "unknown"
RULES = ("names", "v2", "v3")
TABLES = tuple(kind.table for kind in KINDS)
_PUBLISHED = tuple(kind for kind in KINDS if not kind.optional)
_SHAPE = (
    "labels must be {'artists': [names], 'genres': [names]}, with lists of 'years' and 'tags', a "
    f"'rule' that is one of {', '.join(RULES)}, and 'artist_aliases', 'genre_aliases' as "
    "{name: id} where there are any"
)

Ids = npt.NDArray[np.int32]


def song_labels(songs: Iterable[Any]) -> list[Iterator[Any]]:
    """Every label of every song, kind by kind: what `Vocabulary.build` and `grown` count.

    Args:
      songs: of a manifest or of a prepared data set, with the fields of `KINDS`.
    """
    counts = {kind: collections.Counter[Any]() for kind in KINDS}
    for song in songs:
        for kind, counter in counts.items():
            label = getattr(song, kind.field)
            counter.update(set(label) if kind.most else [label])
    return [counter.elements() for counter in counts.values()]


def normalise(name: str, rule: str = "names") -> str:
    """The spelling of a name under which a vocabulary of this rule looks it up."""
    if rule == "v2":
        return re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")
    if rule == "v3":
        return name.lower()
    folded = nfc(name).casefold()
    return " ".join(nfc(folded).split())


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Names by id, a table for each of `KINDS`; entry 0 is "unknown", an id without a name is "".

    A table of an optional kind is empty where no song has such a label. Aliases are the names whose
    id the tables do not give: a second name of an id, and a name that stands at several ids; of
    these the first place counts where there is no alias.
    """

    artists: tuple[str, ...]
    genres: tuple[str, ...]
    rule: str = "names"
    artist_aliases: Mapping[str, int] = dataclasses.field(default_factory=dict)
    genre_aliases: Mapping[str, int] = dataclasses.field(default_factory=dict)
    years: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    @classmethod
    def build(cls, *labels: Iterable[Any], min_count: int = 1) -> "Vocabulary":
        """The sorted distinct names after "unknown".

        Args:
          labels: for each of `KINDS`, in order, a label for each time that a song has it (a year
            is a number or None); kinds at the end may be left out.
          min_count: rarer names are left out, and so are unknown.
        """
        return cls((UNKNOWN,), (UNKNOWN,)).grown(*labels, min_count=min_count)

    def grown(self, *labels: Iterable[Any], min_count: int = 1) -> "Vocabulary":
        """This vocabulary and, after its names, those that it does not know yet, sorted.

        Every name keeps its id. New names are spelled by the vocabulary's rule.

        Args:
          labels, min_count: as for `build`.
        """
        tables: dict[str, Any] = {}
        for kind, of_songs in zip(KINDS, labels, strict=False):
            if kind.decades:
                of_songs = (year for year in of_songs if self.ids(kind, year) == 0)
            keys = (self._keys(kind, [label] if kind.most else label) for label in of_songs)
            counts = collections.Counter(itertools.chain.from_iterable(keys))
            known = {"", UNKNOWN, *self.indices[kind.table]}
            new = sorted(key for key, n in counts.items() if n >= min_count and key not in known)
            old = getattr(self, kind.table) or ((UNKNOWN,) if new else ())
            tables[kind.table] = (*old, *new)
        return dataclasses.replace(self, **tables)

    def first(self, **sizes: int) -> "Vocabulary":
        """With the first entries of the given tables: the vocabulary before it was grown."""
        cut: dict[str, Any] = {name: getattr(self, name)[:n] for name, n in sizes.items()}
        return dataclasses.replace(self, **cut)

    @classmethod
    def placeholder(cls, artists: int, genres: int) -> "Vocabulary":
        """For a model without label names: "artist 1", "genre 1" and so on.

        Args:
          artists, genres: rows of the model's tables, "unknown" included.
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
        """Reads two files of `name;id` lines; names are not changed.

        An id with several names is called by the first, and the others are aliases. A name with
        several ids has that of its last line, as in the published code.

        Args:
          artists_path, genres_path: UTF-8 text.
          rule: of the model of the files.
          artists, genres: rows of the model's tables.

        Raises:
          DataError: a file cannot be read, a line is not `name;id`, an id is outside its table, or
            less than nine tenths of a table have names.
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
        """As `from_id_files`, of (name, id) pairs with valid ids: artists, then genres.

        Args:
          where: the files that they were read from, for errors.
        """
        artists, artist_aliases = _by_id(pairs[0], sizes[0], where[0])
        genres, genre_aliases = _by_id(pairs[1], sizes[1], where[1])
        return cls(artists, genres, rule, artist_aliases, genre_aliases)

    @functools.cached_property
    def indices(self) -> dict[str, dict[str, int]]:
        """Ids by spelled name, by table."""
        return {
            kind.table: _index(getattr(self, kind.table)) | self._aliases(kind) for kind in KINDS
        }

    def _aliases(self, kind: LabelKind) -> dict[str, int]:
        return dict(getattr(self, _alias_field(kind), {}))

    def _keys(self, kind: LabelKind, label: Any) -> list[str]:
        """The spellings that a song's label (of a bag: its labels) is looked up under."""
        if kind.decades:
            return [] if label is None else [f"{label // 10 * 10}s"]
        names, rule = label if kind.most else [label], "names" if kind.optional else self.rule
        if kind.most and rule == "v2" and names:
            return normalise(" ".join(names), rule).split("_")
        return [normalise(name, rule) for name in names]

    def ids(self, kind: LabelKind, label: Any, places: int = 0) -> Ids:
        """A song's ids of one kind, int32: () of a single label, or (places,) padded with -1.

        Unknown names are 0; unknown tags are left out. A year is looked up by itself, then by its
        decade. A bag is cut off at `places` (an error in the published code, but one song must not
        end a training); an empty one is 0.

        Args:
          label: the song's name or year, or the names of its bag.
        """
        index = self.indices[kind.table]
        keys = self._keys(kind, label)
        if kind.decades:
            keys = [str(label), *keys]
            return np.asarray(next((index[key] for key in keys if index.get(key)), 0), np.int32)
        ids = [index.get(key, 0) for key in keys]
        if not kind.most:
            return np.asarray(ids[0], np.int32)
        if kind.optional:
            ids = list(dict.fromkeys(i for i in ids if i))
        ids = ids or [0]
        return np.asarray(ids[:places] + [-1] * max(0, places - len(ids)), np.int32)

    def song_ids(self, labels: LabelsConfig, song: Any) -> dict[str, Ids]:
        """`ids` of the kinds that a prior is conditioned on, by name of the batch's array.

        Args:
          song: of a manifest or a data set, with the fields of `KINDS`.
        """
        return {
            kind.field: self.ids(kind, getattr(song, kind.field), *kind.shape(labels))
            for kind in labels.kinds
        }

    def require(self, kind: LabelKind, label: Any, places: int = 0) -> Ids:
        """`ids` of a label that must be known; of a bag, all must be, and fit into `places`.

        Raises:
          DataError: a name is not known (names the nearest ones), or there are too many.
        """
        index = self.indices[kind.table]
        ids, keys = self.ids(kind, label, places), self._keys(kind, label)
        if kind.optional and not label:
            return ids
        if kind.decades and ids:  # a vocabulary may have the year and not its decade
            return ids
        names = label if kind.most else [label]
        for key, name in zip(keys, names if len(names) == len(keys) else keys, strict=False):
            if key not in index:
                near = difflib.get_close_matches(key, index, n=3, cutoff=0.0)
                raise DataError(
                    f"the {kind.name} {name!r} is not among the {len(index)} known ones; the "
                    f"nearest are {', '.join(map(repr, near))}; choose one, or {UNKNOWN!r}"
                )
        if kind.most and len(keys) > places:
            raise DataError(
                f"{', '.join(map(repr, keys))} are {len(keys)} {kind.table}, but the model takes "
                f"at most {places}; leave some out"
            )
        return ids

    def to_json(self) -> dict[str, Any]:
        """A JSON value for `from_json`; empty tables of optional kinds are left out."""
        value: dict[str, Any] = {k.table: list(getattr(self, k.table)) for k in _PUBLISHED}
        if self.rule != "names":
            value["rule"] = self.rule
        value |= {_alias_field(k): ids for k in _PUBLISHED if (ids := self._aliases(k))}
        others = {k.table: list(getattr(self, k.table)) for k in KINDS if k.optional}
        return value | {name: table for name, table in others.items() if table}

    @classmethod
    def from_json(cls, value: Any) -> "Vocabulary":
        """The vocabulary of a `to_json` value; DataError if it is none."""
        try:
            read = cls(**value)
            tables: dict[str, Any] = {kind.table: getattr(read, kind.table) for kind in KINDS}
            good = read.rule in RULES and all(
                isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
                for names in tables.values()
            )
            for kind in _PUBLISHED:
                ids = range(len(tables[kind.table]))
                good = good and all(i in ids for i in getattr(read, _alias_field(kind)).values())
            json.dumps(value, ensure_ascii=False).encode()  # no half of a surrogate pair
        except (AttributeError, TypeError, UnicodeEncodeError):
            good = False
        if not good:
            raise DataError(f"{_SHAPE}; prepare or import again")
        lists: dict[str, Any] = {name: tuple(names) for name, names in tables.items()}
        return dataclasses.replace(read, **lists)

    def save(self, path: str | Path) -> None:
        """Writes the vocabulary as JSON, atomically."""
        files.write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Reads `labels.json`; DataError if it does not exist or is no vocabulary."""
        lists = {kind.table: list for kind in _PUBLISHED}
        try:
            value = stored.read_object(Path(path), lists, "prepare or import again")
            return cls.from_json(value)
        except FileNotFoundError as error:
            raise DataError(f"{path} does not exist; prepare the songs again") from error
        except DataError as error:
            where = "" if str(path) in str(error) else f"{path}: "
            raise DataError(f"{where}{error}") from error


def _alias_field(kind: LabelKind) -> str:
    return f"{kind.name}_aliases"


def _read_ids(path: Path, count: int) -> list[tuple[str, int]]:
    """The names and ids of a file of `name;id` lines."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error})") from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        match = re.fullmatch(r"(.*);\s*(\d+)\s*", line)
        if match and int(match[2]) < count:
            pairs.append((match[1], int(match[2])))
        elif line.strip():
            raise DataError(
                f"{path}, line {number}: {line!r:.80} is no name;id with an id below {count}, the "
                "size of the model's table; check that the file is this model's"
            )
    return pairs


def _numbered(kind: str, count: int) -> tuple[str, ...]:
    return (UNKNOWN, *(f"{kind} {i}" for i in range(1, count)))


def _index(names: Sequence[str]) -> dict[str, int]:
    return {name: i for i, name in reversed(list(enumerate(names))) if name}


def _by_id(
    pairs: Iterable[tuple[str, int]], count: int, where: Path
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names by id, and aliases; DataError if too few ids have names."""
    names, ids = [UNKNOWN] + [""] * (count - 1), dict[str, int]()
    for name, i in pairs:
        names[i] = names[i] or name
        ids[name] = i
    named = sum(map(bool, names))
    if 10 * named < 9 * count:
        raise DataError(
            f"{where} has names for {named} of the model's {count} ids; check that the file is "
            "this model's"
        )
    index = _index(names)
    return tuple(names), {name: i for name, i in ids.items() if index.get(name) != i}


def unknown_ids(labels: LabelsConfig) -> dict[str, Ids]:
    """Ids of a song without labels, by name of the batch's array: 0, or 0 and -1 in a bag."""
    return {
        kind.field: np.asarray([0, *[-1] * (size[0] - 1)] if size else 0, np.int32)
        for kind in labels.kinds
        for size in [kind.shape(labels)]
    }


def used_names(vocabulary: Vocabulary, labels: LabelsConfig | None) -> Vocabulary:
    """A vocabulary without the tables that a prior does not read."""
    used = labels.tables if labels else {}
    unused = [kind.table for kind in KINDS if kind.optional and kind.table not in used]
    return vocabulary.first(**dict.fromkeys(unused, 0))


def labels_digest(vocabulary: Vocabulary, labels: LabelsConfig | None = None) -> str:
    """16 hexadecimal digits that change with any name or its id.

    Only tables that a prior with `labels` reads count (None: artists and genres): years and tags of
    newer songs do not change the digest of a prior without them.
    """
    vocabulary = used_names(vocabulary, labels)
    names = json.dumps(vocabulary.to_json(), ensure_ascii=False)
    return hashlib.sha256(names.encode()).hexdigest()[:16]
