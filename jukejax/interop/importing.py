"""Checkpoints of other projects as model directories of ours, bit for bit.

An imported run can be sampled from, measured and fine-tuned: it has the averaged weights (`ema`;
the published weights are averages), `extra` and `config`. Its note keeps under "origin" what our
trees do not store: the file's settings, which tensors were float16, its SHA-256. Leaves keep the
file's dtype and are gathered in memory maps, so a model may be larger than memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jukejax import files, presets
from jukejax.config import (
    ConfigError,
    PriorConfig,
    PriorExperiment,
    VQVAEConfig,
    VQVAEExperiment,
    to_dict,
)
from jukejax.errors import InteropError
from jukejax.interop import openai, openai_settings, torch_files
from jukejax.interop.openai import BOOKS, Entry, Published
from jukejax.interop.tensors import Checkpoint
from jukejax.model_dir import NAME, fingerprint, write_model_dir
from jukejax.models.bottleneck import restored_book
from jukejax.text.labels import Vocabulary, labels_digest
from jukejax.training import checkpoint
from jukejax.training.losses import Bandwidth
from jukejax.training.tasks import VQVAEExtra

Rule = Literal["v2", "v3"]
IdFiles = Mapping[Rule, tuple[Path, Path]]  # files of artists and of genres, lines of name;id
_DTYPES = (np.dtype(np.float32), np.dtype(np.float16))


# --- one model ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """A checked file: its model, and the table that reads it."""

    file: Checkpoint
    experiment: Published
    entries: list[Entry]

    @property
    def prior(self) -> PriorConfig:
        assert isinstance(self.experiment, PriorExperiment)
        return self.experiment.model


def open_vqvae(file: Checkpoint, experiment: VQVAEExperiment | None = None) -> Opened:
    """A VQ-VAE's file, checked; `experiment` where the file has no settings.

    Raises:
      InteropError: it is not the VQ-VAE that its settings describe.
    """
    if experiment is None:
        experiment = openai_settings.vqvae_experiment(_settings(file), str(file.path))
    return _opened(file, experiment)


def open_prior(
    file: Checkpoint, vqvae: VQVAEExperiment, experiment: PriorExperiment | None = None
) -> Opened:
    """A prior's file, checked; `experiment` where the file has no settings.

    Raises:
      InteropError: it is not the prior that its settings describe.
    """
    if experiment is None:
        hps = _settings(file)
        table = file.tensors.get("prior.x_emb.weight")
        rows = table.shape[0] if table and table.shape else 0
        config = openai_settings.prior_config(hps, vqvae.model, rows, str(file.path))
        experiment = PriorExperiment(config)
    return _opened(file, experiment)


def _settings(file: Checkpoint) -> dict[str, Any]:
    if file.hps is not None:
        return file.hps
    tensors = {name: tensor.shape for name, tensor in file.tensors.items()}
    known = {name: presets.get(name) for name in presets.PRESETS}
    sized = [
        name for name, e in known.items() if isinstance(e, Published) and openai.has_sizes(e.model)
    ]
    alike = [name for name in sized if openai.preset_tensors(name) == tensors]
    hint = f"its tensors match {' or '.join(alike)}" if alike else "its tensors match no preset"
    raise InteropError(f"{file.path} has no settings; name its preset ({hint}).")


def shapes(
    config: VQVAEConfig | PriorConfig, where: str, blocks: str = "blocks"
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model that settings from outside describe.

    Args:
      blocks: as in `openai.prior_entries`.

    Raises:
      InteropError: the settings describe no model: a number is negative, or far too large.
    """
    try:
        return openai.expected(config, openai.table(config, blocks))
    except (ArithmeticError, TypeError, ValueError) as error:  # of JAX, which traces the model
        first = str(error).split("\n")[0]
        raise InteropError(f"The settings in {where} describe no model: {first}") from error


def _opened(file: Checkpoint, experiment: Published) -> Opened:
    config, blocks = experiment.model, openai_settings.blocks_name(file.hps or {})
    tensors = {name: tensor.shape for name, tensor in file.tensors.items()}
    openai.check(str(file.path), shapes(config, str(file.path), blocks), tensors)
    odd = [n for n, t in file.tensors.items() if t.dtype not in _DTYPES]
    if odd:
        raise InteropError(f"{file.path}: {', '.join(odd)} are neither float32 nor float16.")
    for name, other in openai.shared(config).items():
        a, b = file.tensors[name], file.tensors[other]
        if a != b and not np.array_equal(a.read(), b.read()):
            raise InteropError(
                f"{file.path}: {name} differs from {other}, but by its settings they are the same "
                "tensor; the file is damaged, or its merged_decoder is wrong."
            )
    return Opened(file, experiment, openai.table(config, blocks))


def vqvae_trees(opened: Opened) -> tuple[Any, VQVAEExtra]:
    """Parameters and state of a VQ-VAE. Its loudness is not in the file and becomes 1."""
    experiment = opened.experiment
    assert isinstance(experiment, VQVAEExperiment)
    leaves = {entry.path: openai.gather(entry, opened.file.tensors) for entry in opened.entries}
    books = []
    for level, hop in enumerate(experiment.model.hops):
        tokens = experiment.samples // hop * experiment.train.batch
        books.append(restored_book(jnp.asarray(leaves.pop((BOOKS, str(level)))), tokens))
    unknown = jnp.ones((), jnp.float32)
    return openai.nested(leaves), VQVAEExtra(tuple(books), Bandwidth(unknown, unknown, unknown))


def prior_params(opened: Opened, scratch: Path | None = None) -> Any:
    """Parameters of a prior; `scratch` as in `openai.gather`."""
    tensors = opened.file.tensors
    entries = tqdm(opened.entries, desc=f"read {opened.file.path.name}", unit="leaf")
    return openai.nested({e.path: openai.gather(e, tensors, scratch) for e in entries})


# --- a model directory ----------------------------------------------------------------------------


def import_openai(
    paths: Sequence[Path],
    out: Path,
    preset_names: Sequence[str] = (),
    sha256: Sequence[str] = (),
    ids: IdFiles | None = None,
) -> None:
    """Writes a model directory from OpenAI's files. All are checked before anything is written.

    Args:
      paths: vqvae.pth.tar, then prior_level_N.pth.tar in any order.
      preset_names: of the models, in the same order, where the files have no settings ("" where
        one has; the priors' may be left out).
      sha256: digests that the files must have, in the same order.
      ids: names of the artists and genres that the priors were trained with; numbers without.

    Raises:
      InteropError, ConfigError, DataError: a file is damaged, does not match its settings, or the
        files do not belong together.
    """
    check_out(out)
    if len(preset_names) < 2:
        preset_names = [*preset_names, *[""] * (len(paths) - len(preset_names))]
    if len(preset_names) != len(paths):
        raise ConfigError("Give --prior-preset one name a prior, in the order of --prior.")
    digests = check_digests(paths, sha256, "the VQ-VAE, then the priors")
    tensors = [torch_files.read(path) for path in paths]
    given = presets.get(preset_names[0]) if preset_names[0] else None
    if given is not None and not isinstance(given, VQVAEExperiment):
        raise ConfigError(f"The preset {preset_names[0]} is no VQ-VAE.")
    vqvae = open_vqvae(tensors[0], given)
    assert isinstance(vqvae.experiment, VQVAEExperiment)
    priors = []
    for file, name in zip(tensors[1:], preset_names[1:], strict=True):
        preset = _preset_of(file, name) if name else None
        priors.append(open_prior(file, vqvae.experiment, preset))
        levels = [prior.prior.level for prior in priors]
        if levels[-1] in levels[:-1]:
            raise InteropError(
                f"{file.path} is a second prior of level {levels[-1]}; give one of each level."
            )
    origins = [{"format": "openai", "sha256": digest} for digest in digests]
    write_model(out, [vqvae, *priors], origins, label_names(priors, ids or {}))


def _preset_of(file: Checkpoint, name: str) -> PriorExperiment:
    """A prior's preset, compared with the level in its file's settings."""
    preset = presets.get(name)
    if not isinstance(preset, PriorExperiment):
        raise ConfigError(f"The preset {name} is no prior.")
    wanted, level = preset.model.level, (file.hps or {}).get("level")
    if level is None:
        print(
            f"warning: {file.path} does not say its level. The two upsamplers' files have the same "
            f"names and shapes, so level {wanted} is not verified."
        )
    elif level != wanted:
        raise InteropError(
            f"{file.path} says that it is of level {level}, but its preset is of level {wanted}; "
            "name the priors and their presets in the same order."
        )
    return preset


def check_out(out: Path) -> None:
    """Raises InteropError where something would be overwritten."""
    if out.exists() and any(out.iterdir()):
        raise InteropError(f"{out} is not empty; choose another --out.")


def check_digests(paths: Sequence[Path], wanted: Sequence[str], order: str) -> list[str]:
    """The files' SHA-256, printed.

    Args:
      wanted: what they must be, or nothing.
      order: of the files, in words.

    Raises:
      InteropError: a file has another digest.
      ConfigError: there are not as many digests as files.
    """
    if wanted and len(wanted) != len(paths):
        raise ConfigError(
            f"--sha256 has {len(wanted)} digests for {len(paths)} files; give one for each of "
            f"{order}."
        )
    digests = [torch_files.sha256(path) for path in paths]
    for i, (path, digest) in enumerate(zip(paths, digests, strict=True)):
        print(f"{path}: sha256 {digest}")
        if wanted and wanted[i].lower() != digest:
            raise InteropError(f"{path} has SHA-256 {digest}, not {wanted[i]}; download it again.")
    return digests


def rule_of(opened: Opened) -> Rule:
    """How a prior's names are looked up: as its settings say; without, v3 has one genre a song."""
    labels = opened.prior.labels
    v3 = labels is not None and labels.max_genres == 1
    return "v3" if (opened.file.hps or {}).get("labels_v3", v3) else "v2"


def label_names(priors: Sequence[Opened], ids: IdFiles) -> dict[int, Vocabulary]:
    """Label names by level of the priors that have labels; numbers where no files are given.

    Raises:
      ConfigError: files are given, but none for a prior's rule.
      DataError: a file does not fit the prior's tables.
    """
    names = {}
    for opened in priors:
        config, rule = opened.prior, rule_of(opened)
        if (labels := config.labels) is None:
            continue
        sizes = (labels.artists, labels.genres)
        if rule in ids:
            names[config.level] = Vocabulary.from_id_files(*ids[rule], rule, *sizes)
        elif ids:
            raise ConfigError(
                f"{opened.file.path} was trained with label names of {rule}; give --{rule}-ids "
                "with its files of artists and genres too."
            )
        else:
            names[config.level] = Vocabulary.placeholder(*sizes)
    if names and not ids:
        print("No --v2-ids or --v3-ids: labels are named 'artist 1', 'genre 1' and so on.")
    return names


def write_model(
    out: Path,
    models: Sequence[Opened],
    origins: Sequence[Mapping[str, Any]],
    names: Mapping[int, Vocabulary],
) -> None:
    """Writes runs, label names and model.json; `out` appears when all of it is complete.

    Args:
      models: the VQ-VAE, then the priors.
      origins: format and digest of each, kept in the runs' notes.
      names: label names of the priors that have labels, by level.
    """
    vqvae, *priors = models
    config = vqvae.experiment.model
    assert isinstance(config, VQVAEConfig)
    with files.atomic_folder(out) as folder:
        params, extra = vqvae_trees(vqvae)
        trees = {"ema": params, "extra": extra}
        _save(vqvae, folder / "vqvae", trees, origins[0], {"loudness": "unknown"})
        codes = fingerprint(config, openai.as_float32(params), extra.books)
        print(f"vqvae: codes {codes}. Loudness is not in the file; it is set to 1.")
        runs: dict[int, str | Path] = {}
        labels: dict[int, str | Path] = {}
        for opened, origin in zip(priors, origins[1:], strict=True):
            level, note = opened.prior.level, {"fingerprint": codes}
            if level in names:
                note["labels"] = labels_digest(names[level])
                labels[level] = folder / f"labels_{level}.json"
                names[level].save(labels[level])
            runs[level] = folder / f"prior_level_{level}"
            with tempfile.TemporaryDirectory(prefix="scratch-", dir=folder) as scratch:
                _save(
                    opened, runs[level], {"ema": prior_params(opened, Path(scratch))}, origin, note
                )
            print(f"prior_level_{level}: {len(opened.file.tensors)} tensors")
        write_model_dir(folder, folder / "vqvae", runs, labels)
    print(f"Model: {out / NAME}")


def _save(
    opened: Opened,
    workdir: str | Path,
    trees: dict[str, Any],
    origin: Mapping[str, Any],
    note: Mapping[str, Any],
) -> None:
    """Writes a run; its note says what it came from, and `note`."""
    half = sorted(n for n, t in opened.file.tensors.items() if t.dtype == np.float16)
    origin = {**origin, "hps": opened.file.hps, "float16": half}
    config = {"experiment": to_dict(opened.experiment), "origin": origin, **note}
    checkpoint.save_mapped(workdir, opened.file.step, trees, config)
