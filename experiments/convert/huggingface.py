"""Directories of HuggingFace's port: config.json, weights and, where they are, label names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline import lyrics
from data_pipeline.errors import DataError
from data_pipeline.labels import UNKNOWN, Vocabulary, normalise
from experiments.convert.model import (
    check_digests,
    check_out,
    prior_config,
    vocabulary,
    write_model,
)
from jukejax import atomic
from jukejax.config import MeshConfig, PriorConfig
from jukejax.interop import exporting, huggingface, torch_files
from jukejax.interop.importing import Opened
from jukejax.model_dir import read_model_dir
from jukejax.parallel.mesh import make_mesh

ARTISTS, GENRES, TOKENIZER = "artists.json", "genres.json", "tokenizer_config.json"


@dataclass(frozen=True)
class Import:
    """Write a model directory from a directory of HuggingFace's Jukebox."""

    source: Path
    """A directory with config.json and weights: safetensors or PyTorch's, whole or in shards."""
    out: Path
    """The model directory; must not hold a model yet."""
    sha256: tuple[str, ...] = ()
    """Digests that the files of weights must have, in the order of their names."""
    artist_ids: Path | None = None
    """OpenAI's file of artists, lines of name;id; else the names in artists.json."""
    genre_ids: Path | None = None
    """OpenAI's file of genres, lines of name;id; else the names in genres.json."""


@dataclass(frozen=True)
class Export:
    """Write a model directory's VQ-VAE and priors as a directory of HuggingFace's Jukebox."""

    model: Path
    """A model directory (model.json)."""
    out: Path
    """Gets config.json and model.safetensors; and the tokenizer's files, if labels have names."""


def run_import(command: Import) -> None:
    """Reads, checks, then writes."""
    check_out(command.out)
    files = huggingface.find_weights(command.source).files
    order = "the files of weights, in the order of their names"
    digests = check_digests(files, command.sha256, order)
    source = huggingface.open_directory(command.source)
    for note in source.notes:
        print(f"warning: {note}")
    names = read_names(command, source.priors)
    origin = {
        "format": "huggingface",
        "sha256": {path.name: digest for path, digest in zip(files, digests, strict=True)},
    }
    origins = [origin | {"absent": absent} for absent in source.absent]
    write_model(command.out, source.vqvae, source.priors, origins, names)


def run_export(command: Export) -> None:
    """Writes all runs into one directory."""
    check_out(command.out)
    model, mesh = read_model_dir(command.model), make_mesh(MeshConfig())
    configs = {level: model.prior_config(level)[0] for level in model.priors}
    with ExitStack() as stack:
        vqvae = stack.enter_context(exporting.open_run(model.vqvae, mesh))
        priors = {
            level: stack.enter_context(exporting.open_run(path, mesh))
            for level, path in model.priors.items()
        }
        place = stack.enter_context(atomic.atomic_folder(command.out))
        huggingface.write(place, vqvae, priors)
        for name, value in tokenizer_files(Vocabulary.load(model.labels), configs).items():
            atomic.write_json(place / name, value)
    weights = command.out / huggingface.WEIGHTS
    print(f"{weights}: sha256 {torch_files.sha256(weights)}")


# --- label names ----------------------------------------------------------------------------------


def read_names(command: Import, priors: Sequence[Opened]) -> Vocabulary:
    """Names of the highest prior's labels: from the files given, else from the tokenizer's."""
    top = prior_config(priors[0]).labels
    folder, given = command.source, (command.artist_ids, command.genre_ids)
    if any(given) or not top or not (folder / ARTISTS).exists() or not (folder / GENRES).exists():
        return vocabulary(priors, *given)
    versions = _read_object(folder / TOKENIZER).get("version") or ["v3"]  # the tokenizer's default
    v2 = versions[:1] == ["v2"]
    return Vocabulary(
        _by_id(folder / ARTISTS, "artist", top.artists, v2),
        _by_id(folder / GENRES, "genre", top.genres, v2),
    )


def _read_object(path: Path) -> dict[str, Any]:
    """A file's JSON object; empty where there is no file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON ({error}); fetch it anew or remove it") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} holds no object; fetch it anew or remove it")
    return value


def _by_id(path: Path, kind: str, count: int, v2: bool) -> tuple[str, ...]:
    """`count` names; of the two sets of a file, the one of v2 has names that end in ".v2"."""
    names = [UNKNOWN] + [f"{kind} {i}" for i in range(1, count)]
    seen: set[int] = set()
    for name, i in _read_object(path).items():
        if name.endswith(".v2") != v2:
            continue
        if type(i) is not int or i not in range(count):
            raise DataError(f"{path}: {name!r} has the id {i!r}, expected a number under {count}")
        if i and i not in seen:
            names[i] = normalise(name.removesuffix(".v2"))
            seen.add(i)
    print(f"{path}: {len(seen)} of {count} {kind}s have names")
    return tuple(names)


def tokenizer_files(names: Vocabulary, priors: Mapping[int, PriorConfig]) -> dict[str, Any]:
    """What transformers' tokenizer reads, by file name; nothing where labels have no names.

    All levels look names up in the same way (lower case, "v3"), as ours do.
    """
    tables = [config.labels for config in priors.values() if config.labels]
    top = priors[max(priors)]
    numbered = all(name == f"artist {i}" for i, name in enumerate(names.artists) if i)
    if not tables or numbered or len({(t.artists, t.genres) for t in tables}) > 1:
        print("No files for a tokenizer: the labels have no names, or the priors' tables differ.")
        return {}
    alphabet = lyrics.ALPHABETS[top.lyrics.alphabet if top.lyrics else "v2"]
    return {
        ARTISTS: {name: i for i, name in enumerate(names.artists)},
        GENRES: {name: i for i, name in enumerate(names.genres)},
        "lyrics.json": {character: i for i, character in enumerate(alphabet, start=1)},
        TOKENIZER: {
            "tokenizer_class": "JukeboxTokenizer",
            "version": ["v3"] * 3,
            "n_genres": max(table.max_genres for table in tables),
            "max_n_lyric_tokens": top.lyrics.tokens if top.lyrics else 0,
        },
    }


COMMANDS = {"import": Import, "export": Export}
RUN = {"import": run_import, "export": run_export}
