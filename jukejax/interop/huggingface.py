"""Directories of HuggingFace's port of Jukebox: a `config.json` and one or more files of weights.

The port holds the published arrays as they are, under names of its own and with the priors counted
from the top. So a directory is read as one checkpoint a model under OpenAI's names, and written
from such; a tensor is read when its turn comes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jukejax import files
from jukejax.config import PriorConfig, PriorExperiment, VQVAEConfig, VQVAEExperiment
from jukejax.errors import InteropError
from jukejax.interop import (
    huggingface_settings,
    importing,
    openai,
    safetensors_files,
    torch_files,
)
from jukejax.interop.exporting import Exported
from jukejax.interop.importing import Opened
from jukejax.interop.tensors import Checkpoint, Source, Tensor

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_READERS: dict[str, Callable[[Path], Mapping[str, Tensor]]] = {
    WEIGHTS: safetensors_files.read,
    "pytorch_model.bin": lambda path: torch_files.read(path).tensors,
}


# --- names ----------------------------------------------------------------------------------------

_BLOCK = r"^((?:encoders|decoders)\.\d+\.level_blocks\.\d+|conditioner_blocks\.upsampler)\.model"


def _stage(match: re.Match[str]) -> str:
    """A strided convolution or a chain of residual blocks, which the port puts in one list."""
    side, first = ("down", 0) if match[1].startswith("encoders") else ("up", 1)
    return f"{match[1]}.{side}sample_block.{2 * (int(match[2]) - first) + int(match[3])}."


def _end(match: re.Match[str]) -> str:
    """The convolution that ends an encoder's block or begins a decoder's."""
    return f"{match[1]}.proj_{'out' if match[1].startswith('encoders') else 'in'}."


_RULES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^conditioner_blocks\.0\.cond\.", "conditioner_blocks.upsampler."),
    (r"^conditioner_blocks\.0\.", "conditioner_blocks."),
    (_BLOCK + r"\.(\d+)\.([01])\.", _stage),
    (_BLOCK + r"\.\d+\.", _end),
    (r"\.(?:model|blocks)\.(\d+)\.model\.1\.", r".resnet_block.\1.conv1d_1."),
    (r"\.(?:model|blocks)\.(\d+)\.model\.3\.", r".resnet_block.\1.conv1d_2."),
    (r"\.k$", ".codebook"),
    (r"^prime_prior\.", "encoder."),
    (r"^prime_state_proj\.", "encoder.proj_in."),
    (r"^prime_state_ln\.", "encoder.final_layer_norm."),
    (r"^prime_x_out\.", "encoder.lm_head."),
    (r"^y_emb\.(artist|bow_genre)_emb\.emb\.", r"metadata_embedding.\1_emb."),
    (r"^y_emb\.", "metadata_embedding."),
    (r"\.x_emb\.", ".embed_tokens."),
    (r"\.x_out\.", ".fc_proj_out."),
    (r"\.ln(|_[01])\.", r".layer_norm\1."),
    (r"\.w$", ".weight"),
    (r"\.b$", ".bias"),
)


def renamed(name: str) -> str:
    """The port's name of a tensor, below `vqvae.` or `priors.N.`, from OpenAI's."""
    for pattern, new in _RULES:
        name = re.sub(pattern, new, name)
    return name


# --- in -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Directory:
    """A checked directory."""

    vqvae: Opened
    priors: list[Opened]  # highest level first
    absent: list[list[str]]  # of the VQ-VAE, then of each prior: names whose tensor has another
    notes: list[str]  # what was not taken at its word


@dataclass(frozen=True)
class Weights:
    """Files of weights of one kind; where there is an index, also each tensor's file by name."""

    files: list[Path]
    read: Callable[[Path], Mapping[str, Tensor]]
    places: dict[str, str] | None


def find_weights(folder: Path) -> Weights:
    """The files that hold a directory's weights.

    Raises:
      InteropError: there are none, or an index names files that are missing or lie elsewhere.
    """
    for name, read in _READERS.items():
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return Weights([folder / name], read, None)
        if index.is_file():
            places = _read_index(index)
            return Weights([folder / file for file in sorted(set(places.values()))], read, places)
    raise InteropError(
        f"{folder} holds no weights: none of {', '.join(_READERS)}, nor one of their indices."
    )


def _read_index(path: Path) -> dict[str, str]:
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        good = all(isinstance(text, str) for pair in places.items() for text in pair)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        good, places = False, {}
    if not good or not places:
        raise InteropError(f"{path} is no index of weights (weight_map: tensor to file).")
    for file in sorted(set(places.values())):
        if Path(file).name != file or "\\" in file or "\0" in file:
            raise InteropError(
                f"{path} names {file!r}, which is no plain name of a file beside it; do not use "
                "this directory."
            )
        if not (path.parent / file).is_file():
            raise InteropError(f"{path.parent / file}, which {path.name} names, is missing.")
    return places


def read_tensors(weights: Weights) -> dict[str, Tensor]:
    """The tensors of all files by the port's names.

    Raises:
      InteropError: a file is damaged, or the index and the files differ.
    """
    tensors: dict[str, Tensor] = {}
    for path in weights.files:
        found = weights.read(path)
        if weights.places is not None:
            wanted = {name for name, file in weights.places.items() if file == path.name}
            if odd := sorted(found.keys() ^ wanted):
                raise InteropError(
                    f"{path} and the index beside it differ in {len(odd)} tensors, such as "
                    f"{odd[0]}; fetch both anew."
                )
        tensors |= found
    return tensors


def open_directory(folder: Path) -> Directory:
    """A directory's models, checked against its settings.

    Raises:
      InteropError, ConfigError: something is missing, damaged, or cannot be one of our models.
    """
    where = str(folder / CONFIG)
    config = huggingface_settings.read(folder / CONFIG)
    vqvae = huggingface_settings.vqvae_experiment(config, where)
    described = huggingface_settings.prior_configs(config, vqvae.model, where)
    configs: list[VQVAEConfig | PriorConfig] = [vqvae.model, *described]
    shapes = [importing.shapes(model, where) for model in configs]
    published = map(huggingface_settings.as_published, described, shapes[1:])
    priors, notes = [], []
    for i, (before, (after, preset)) in enumerate(zip(described, published, strict=True)):
        if after != before:
            notes.append(
                f"prior {i} has the shapes of {preset}, so it gets the blocks that {preset} was "
                f"trained with, {_blocks(after)}, not those of {where}, {_blocks(before)}."
            )
        priors.append(PriorExperiment(after))
    prefixes = ["vqvae", *(f"priors.{i}" for i in range(len(priors)))]
    tensors = read_tensors(find_weights(folder))
    absent = [_share(tensors, *pair) for pair in zip(prefixes, configs, strict=True)]
    names = [
        {name: f"{prefix}.{renamed(name)}" for name in found}
        for prefix, found in zip(prefixes, shapes, strict=True)
    ]
    wanted = {
        pair[name]: shape
        for pair, found in zip(names, shapes, strict=True)
        for name, shape in found.items()
    }
    openai.check(str(folder), wanted, {name: t.shape for name, t in tensors.items()})
    files = [
        Checkpoint(folder / prefix, {name: tensors[here] for name, here in pair.items()}, None, 0)
        for prefix, pair in zip(prefixes, names, strict=True)
    ]
    opened = [importing.open_prior(f, vqvae, p) for f, p in zip(files[1:], priors, strict=True)]
    return Directory(importing.open_vqvae(files[0], vqvae), opened, absent, notes)


def _blocks(config: PriorConfig) -> str:
    return f"{config.blocks}" + (
        f" and {config.lyrics.blocks}" if config.lyrics and config.lyric_encoder else ""
    )


def _share(tensors: dict[str, Tensor], prefix: str, config: VQVAEConfig | PriorConfig) -> list[str]:
    """Gives two names of one tensor what one of them has; returns the names that were absent.

    A file that cannot hold a tensor under two names, such as one of safetensors, may leave one out.
    """
    absent = []
    for one, other in openai.shared(config).items():
        for name, twin in ((one, other), (other, one)):
            here, there = (f"{prefix}.{renamed(n)}" for n in (name, twin))
            if here not in tensors and there in tensors:
                tensors[here] = tensors[there]
                absent.append(name)
    return absent


# --- out ------------------------------------------------------------------------------------------


def write(folder: Path, vqvae: Exported, priors: Mapping[int, Exported]) -> None:
    """Writes a directory's settings and weights, in the dtypes that the weights came in.

    A prior's tied output is written under both its names, unless it came under one.

    Args:
      priors: by our level.

    Raises:
      InteropError: the port cannot hold the model.
    """
    assert isinstance(vqvae.experiment, VQVAEExperiment)
    configs = {
        level: exported.experiment.model
        for level, exported in priors.items()
        if isinstance(exported.experiment, PriorExperiment)
    }
    config = huggingface_settings.to_config(vqvae.experiment, configs)
    ordered = [priors[level] for level in sorted(priors, reverse=True)]
    models = {"vqvae": vqvae} | {f"priors.{i}": prior for i, prior in enumerate(ordered)}
    sources = {
        f"{prefix}.{renamed(name)}": source
        for prefix, exported in models.items()
        for name, source in _both_names(exported)
        if name not in exported.origin.get("absent", ())
    }
    safetensors_files.write(folder / WEIGHTS, sources)
    files.write_json(folder / CONFIG, config)


def _both_names(exported: Exported) -> Iterator[tuple[str, Source]]:
    for name, source in exported.sources.items():
        yield name, source
        for other, twin in exported.shared.items():
            if twin == name:
                yield other, source
