"""What imports have in common: the checked models become one model directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jukejax import files
from jukejax.config import ConfigError, PriorConfig, PriorExperiment
from jukejax.errors import InteropError
from jukejax.interop import importing, torch_files
from jukejax.interop.importing import Opened
from jukejax.model_dir import NAME, write_model_dir
from jukejax.text.labels import Vocabulary, labels_digest


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
    names: Mapping[int, Vocabulary],
) -> None:
    """Writes runs, labels and model.json; `out` appears when all of it is there.

    Args:
      origins: format and digest of the VQ-VAE, then of each prior.
      names: label names of the priors that have labels, by level.
    """
    with files.atomic_folder(out) as place:
        mark = importing.save_vqvae(vqvae, place / "vqvae", origins[0])
        print(f"vqvae: codes {mark}. Loudness is not in the file; it is set to 1.")
        runs: dict[int, str | Path] = {}
        labels: dict[int, str | Path] = {}
        for opened, origin in zip(priors, origins[1:], strict=True):
            level, note = prior_config(opened).level, {"fingerprint": mark}
            if level in names:
                note["labels"] = labels_digest(names[level])
                labels[level] = place / f"labels_{level}.json"
                names[level].save(labels[level])
            runs[level] = place / f"prior_level_{level}"
            importing.save_prior(opened, runs[level], origin, note)
            print(f"prior_level_{level}: {len(opened.file.tensors)} tensors")
        write_model_dir(place, place / "vqvae", runs, labels)
    print(f"Model: {out / NAME}")
