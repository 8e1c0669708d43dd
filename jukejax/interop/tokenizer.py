"""Label names in the files of transformers' JukeboxTokenizer.

One file has the names of both published sets: those of v2 end in ".v2". Its `version` gives the set
of each prior, highest level first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jukejax import alphabets
from jukejax.config import PriorConfig
from jukejax.errors import DataError
from jukejax.interop.importing import Rule
from jukejax.text.labels import Vocabulary

ARTISTS, GENRES, LYRICS = "artists.json", "genres.json", "lyrics.json"
SETTINGS = "tokenizer_config.json"
_VERSIONS = ["v3", "v2", "v2"]  # the tokenizer's own default
_V2 = ".v2"


def read(folder: Path, priors: Sequence[PriorConfig]) -> dict[int, Vocabulary] | None:
    """Label names by level; None where the folder has none.

    Args:
      priors: highest level first.

    Raises:
      DataError: a file is damaged, or does not fit these priors.
    """
    paths = folder / ARTISTS, folder / GENRES
    if not all(path.exists() for path in paths):
        return None
    versions = _object(folder / SETTINGS).get("version", _VERSIONS)
    if not isinstance(versions, list) or len(versions) < len(priors):
        raise DataError(f"{folder / SETTINGS}: version is {versions!r}, expected one a prior")
    names = {}
    for config, version in zip(priors, versions, strict=False):
        if config.labels:
            sizes = config.labels.artists, config.labels.genres
            rule: Rule = "v2" if version == "v2" else "v3"
            artists, genres = (_pairs(path, n, rule) for path, n in zip(paths, sizes, strict=True))
            names[config.level] = Vocabulary.from_pairs((artists, genres), sizes, rule, paths)
    return names


def _object(path: Path) -> dict[str, Any]:
    """A file's JSON object; empty where there is no file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON ({error}); download it again or remove it") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} has no JSON object; download it again or remove it")
    return value


def _pairs(path: Path, size: int, rule: Rule) -> list[tuple[str, int]]:
    pairs = []
    for name, i in _object(path).items():
        if name.endswith(_V2) != (rule == "v2"):
            continue
        if type(i) is not int or i not in range(size):
            raise DataError(f"{path}: {name!r} has the id {i!r}, expected a number below {size}")
        pairs.append((name.removesuffix(_V2), i))
    return pairs


def files(names: Mapping[int, Vocabulary], priors: Mapping[int, PriorConfig]) -> dict[str, Any]:
    """What the tokenizer reads, by file name; nothing where its format does not support the names.

    It lowers the case of names that are not of v2, which is close to the rule of a model's own.
    """
    if not names:
        return {}
    by_version: dict[str, Vocabulary] = {}
    versions = {level: "v2" if v.rule == "v2" else "v3" for level, v in names.items()}
    for level, v in names.items():
        placeholder = Vocabulary.placeholder(len(v.artists), len(v.genres))
        if v == placeholder or by_version.setdefault(versions[level], v) != v:
            print("No files for a tokenizer: labels have no names, or priors of one rule differ.")
            return {}
    artists: dict[str, int] = {}
    genres: dict[str, int] = {}
    for version, v in by_version.items():
        end = _V2 if version == "v2" else ""
        for into, table, aliases in (
            (artists, v.artists, v.artist_aliases),
            (genres, v.genres, v.genre_aliases),
        ):
            ids = {name: i for i, name in reversed(list(enumerate(table))) if name}
            into |= {name + end: i for name, i in (ids | dict(aliases)).items()}
    top = priors[max(priors)]
    alphabet = alphabets.PUBLISHED[top.lyrics.alphabet if top.lyrics else "v2"]
    return {
        ARTISTS: artists,
        GENRES: genres,
        LYRICS: {character: i for i, character in enumerate(alphabet, start=1)},
        SETTINGS: {
            "tokenizer_class": "JukeboxTokenizer",
            "version": [versions[level] for level in sorted(names, reverse=True)],
            "n_genres": max(c.labels.max_genres for c in priors.values() if c.labels),
            "max_n_lyric_tokens": top.lyrics.tokens if top.lyrics else 0,
        },
    }
