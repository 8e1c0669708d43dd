"""What imports have in common: the checked models become one model directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.errors import DataError
from data_pipeline.labels import UNKNOWN, Vocabulary, normalise
from jukejax import atomic
from jukejax.config import ConfigError, LabelsConfig, PriorConfig, PriorExperiment
from jukejax.interop import importing, torch_files
from jukejax.interop.errors import InteropError
from jukejax.interop.importing import Opened
from jukejax.model_dir import NAME, write_model_dir


def prior_config(opened: Opened) -> PriorConfig:
    """The config of an opened prior."""
    assert isinstance(opened.experiment, PriorExperiment)
    return opened.experiment.model


def check_levels(priors: Sequence[Opened]) -> None:
    """Raises InteropError where two priors are of one level."""
    seen: set[int] = set()
    for opened in priors:
        level = prior_config(opened).level
        if level in seen:
            raise InteropError(
                f"{opened.file.path} is a second prior of level {level}; give one a level."
            )
        seen.add(level)


def check_out(out: Path) -> None:
    """Raises InteropError where something would be written over."""
    if out.exists() and any(out.iterdir()):
        raise InteropError(f"{out} is not empty; choose another --out.")


def check_digests(paths: Sequence[Path], wanted: Sequence[str], order: str) -> list[str]:
    """The files' SHA-256, printed.

    Args:
      wanted: what they must be, or nothing.
      order: of the files, in words.

    Raises:
      InteropError: a file has another; ConfigError: there are not as many.
    """
    if wanted and len(wanted) != len(paths):
        raise ConfigError(
            f"--sha256 has {len(wanted)} digests for {len(paths)} files; give one for each of "
            f"{order}."
        )
    digests = []
    for i, path in enumerate(paths):
        digest = torch_files.sha256(path)
        print(f"{path}: sha256 {digest}")
        if wanted and wanted[i].lower() != digest:
            raise InteropError(f"{path} has SHA-256 {digest}, not {wanted[i]}; download it again.")
        digests.append(digest)
    return digests


def write_model(
    out: Path,
    vqvae: Opened,
    priors: Sequence[Opened],
    origins: Sequence[Mapping[str, Any]],
    vocabulary: Vocabulary,
) -> None:
    """Writes runs, labels and model.json; `out` appears when all of it is there.

    Args:
      origins: format and digest of the VQ-VAE, then of each prior.
    """
    with atomic.atomic_folder(out) as place:
        mark = importing.save_vqvae(vqvae, place / "vqvae", origins[0])
        print(f"vqvae: codes {mark}. Loudness is not in the file; it is set to 1.")
        places: dict[int, str | Path] = {}
        for opened, origin in zip(priors, origins[1:], strict=True):
            level = prior_config(opened).level
            places[level] = place / f"prior_level_{level}"
            importing.save_prior(opened, places[level], origin, mark)
            print(f"prior_level_{level}: {len(opened.file.tensors)} tensors")
        vocabulary.save(place / "labels.json")
        write_model_dir(place, place / "vqvae", places, place / "labels.json")
    print(f"Model: {out / NAME}")


def read_ids(path: Path | None, kind: str, count: int) -> tuple[str, ...]:
    """`count` names by id, out of lines of name;id; where none is given, the kind and the id."""
    names = [UNKNOWN] + [f"{kind} {i}" for i in range(1, count)]
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    seen: set[int] = set()
    for line in lines:
        name, _, number = line.rpartition(";")
        if not number.strip().isdigit() or int(number) >= count:
            raise DataError(f"{path}: {line!r} is no name;id with an id under {count}")
        if (i := int(number)) and i not in seen:
            names[i] = normalise(name)
            seen.add(i)
    if count > 1 and not path:
        print(f"No --{kind}-ids: the {count} {kind}s are called '{kind} 1', '{kind} 2' and so on.")
    return tuple(names)


def vocabulary(
    priors: Sequence[Opened], artist_ids: Path | None, genre_ids: Path | None
) -> Vocabulary:
    """Names of the artists and genres of the highest prior."""
    configs = sorted(map(prior_config, priors), key=lambda c: c.level, reverse=True)
    tables = [config.labels for config in configs if config.labels]
    if len({(t.artists, t.genres) for t in tables}) > 1:
        print(
            "warning: the priors have artist and genre tables of different sizes. labels.json "
            "names the highest prior's; the same ids mean other artists to the others."
        )
    top = tables[0] if tables else LabelsConfig(artists=1, genres=1)
    artists = read_ids(artist_ids, "artist", top.artists)
    return Vocabulary(artists, read_ids(genre_ids, "genre", top.genres))
