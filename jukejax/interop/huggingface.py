"""Directories of HuggingFace's port of Jukebox: a `config.json` and one or more files of weights.

The port stores the published arrays unchanged, under names of its own and with the priors counted
from the top. So a directory is read as one checkpoint a model under OpenAI's names, and written
from such; each tensor is read when it is needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from jukejax import files
from jukejax.config import (
    PriorConfig,
    PriorExperiment,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.errors import InteropError
from jukejax.interop import (
    exporting,
    huggingface_settings,
    importing,
    openai,
    safetensors_files,
    tokenizer,
    torch_files,
)
from jukejax.interop.exporting import Exported
from jukejax.interop.importing import IdFiles, Opened
from jukejax.interop.tensors import Checkpoint, Source, Tensor
from jukejax.model_dir import read_model_dir
from jukejax.text.labels import Vocabulary

CONFIG, WEIGHTS = "config.json", "model.safetensors"
Reader = Callable[[Path], Mapping[str, Tensor]]
_READERS: dict[str, Reader] = {
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


# --- import ---------------------------------------------------------------------------------------


def import_huggingface(
    source: Path, out: Path, sha256: Sequence[str] = (), ids: IdFiles | None = None
) -> None:
    """Writes a model directory from HuggingFace's. All is checked before anything is written.

    Args:
      source: config.json and weights, safetensors or PyTorch's, whole or in shards.
      sha256: digests that the files of weights must have, in the order of their names.
      ids: as in `importing.import_openai`; without, the names in the tokenizer's files.

    Raises:
      InteropError, ConfigError, DataError: something is missing, damaged, or not supported by our
        models.
    """
    importing.check_out(out)
    paths = list(find_weights(source)[1])
    order = "the files of weights, in the order of their names"
    digests = importing.check_digests(paths, sha256, order)
    directory = open_directory(source)
    for note in directory.notes:
        print(f"warning: {note}")
    priors = directory.models[1:]
    names = None if ids else tokenizer.read(source, [opened.prior for opened in priors])
    if names is None:
        names = importing.label_names(priors, ids or {})
    by_name = {path.name: digest for path, digest in zip(paths, digests, strict=True)}
    origins = [
        {"format": "huggingface", "sha256": by_name, "absent": absent}
        for absent in directory.absent
    ]
    importing.write_model(out, directory.models, origins, names)


@dataclass(frozen=True)
class Directory:
    """A checked directory."""

    models: list[Opened]  # the VQ-VAE, then the priors, highest level first
    absent: list[list[str]]  # of each: names whose tensor is stored under another name only
    notes: list[str]  # settings that are not imported as they are


def find_weights(folder: Path) -> tuple[Reader, dict[Path, set[str] | None]]:
    """The reader and the files of a directory's weights, in the order of their names.

    Where there is an index, each file comes with the names of its tensors.

    Raises:
      InteropError: there are none, or an index names files that are missing or elsewhere.
    """
    for name, read in _READERS.items():
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return read, {folder / name: None}
        if index.is_file():
            places = _read_index(index)
            return read, {
                folder / file: {tensor for tensor, place in places.items() if place == file}
                for file in sorted(set(places.values()))
            }
    raise InteropError(
        f"{folder} has no weights: none of {', '.join(_READERS)}, nor one of their indices."
    )


def _read_index(path: Path) -> dict[str, str]:
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        valid = all(isinstance(text, str) for pair in places.items() for text in pair)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        valid, places = False, {}
    if not valid or not places:
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


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of all files by the port's names.

    Raises:
      InteropError: a file is missing or damaged, or the index and the files differ.
    """
    read, paths = find_weights(folder)
    tensors: dict[str, Tensor] = {}
    for path, names in paths.items():
        stored = read(path)
        if odd := sorted(stored.keys() ^ (stored.keys() if names is None else names)):
            raise InteropError(
                f"{path} and the index beside it differ in {len(odd)} tensors, such as {odd[0]}; "
                "download both again."
            )
        tensors |= stored
    return tensors


def open_directory(folder: Path) -> Directory:
    """A directory's models, checked against its settings.

    Raises:
      InteropError, ConfigError: something is missing, damaged, or not supported by our models.
    """
    where = str(folder / CONFIG)
    config = huggingface_settings.read(folder / CONFIG)
    vqvae = huggingface_settings.vqvae_experiment(config, where)
    described = huggingface_settings.prior_configs(config, vqvae.model, where)
    models = {"vqvae": vqvae.model} | {f"priors.{i}": c for i, c in enumerate(described)}
    shapes = {prefix: importing.shapes(model, where) for prefix, model in models.items()}
    tensors = read_tensors(folder)
    absent = [_share(tensors, prefix, model) for prefix, model in models.items()]
    wanted = {
        f"{prefix}.{renamed(name)}": shape
        for prefix, of_model in shapes.items()
        for name, shape in of_model.items()
    }
    openai.check(str(folder), wanted, {name: t.shape for name, t in tensors.items()})
    files = []
    for prefix, of_model in shapes.items():
        stored = {name: tensors[f"{prefix}.{renamed(name)}"] for name in of_model}
        files.append(Checkpoint(folder / prefix, stored, None, 0))
    opened, notes = [importing.open_vqvae(files[0], vqvae)], []
    for i, before in enumerate(described):
        after, preset = huggingface_settings.as_published(before, shapes[f"priors.{i}"])
        if after != before:
            notes.append(
                f"prior {i} has the shapes of {preset}, so it gets the blocks that {preset} was "
                f"trained with, {_blocks(after)}, not those of {where}, {_blocks(before)}."
            )
        opened.append(importing.open_prior(files[1 + i], vqvae, PriorExperiment(after)))
    return Directory(opened, absent, notes)


def _blocks(config: PriorConfig) -> str:
    encoder = config.lyrics if config.lyric_encoder else None
    return f"{config.blocks}" + (f" and {encoder.blocks}" if encoder else "")


def _share(tensors: dict[str, Tensor], prefix: str, config: VQVAEConfig | PriorConfig) -> list[str]:
    """Adds the missing one of two names of the same tensor; returns the names that were absent.

    A format without shared tensors, such as safetensors, may leave one out.
    """
    absent = []
    for first, second in openai.shared(config).items():
        for name, twin in ((first, second), (second, first)):
            missing, stored = (f"{prefix}.{renamed(n)}" for n in (name, twin))
            if missing not in tensors and stored in tensors:
                tensors[missing] = tensors[stored]
                absent.append(name)
    return absent


# --- export ---------------------------------------------------------------------------------------


def export_huggingface(model: Path, out: Path) -> None:
    """Writes a model directory as a directory of HuggingFace's Jukebox.

    It gets config.json, model.safetensors and, if labels have names, the tokenizer's files. Weights
    have the dtypes that they came in. A prior's tied output is written under both its names, unless
    it was imported under one.

    Raises:
      InteropError: HuggingFace's format does not support the model, or `out` is not empty.
    """
    importing.check_out(out)
    folder = read_model_dir(model)
    configs = {level: folder.prior_config(level)[0] for level in folder.priors}
    with ExitStack() as stack:
        runs = {
            level: stack.enter_context(exporting.open_run(path))
            for level, path in sorted(folder.priors.items(), reverse=True)
        }
        vqvae = stack.enter_context(exporting.open_run(folder.vqvae))
        assert isinstance(vqvae.experiment, VQVAEExperiment)
        config = huggingface_settings.to_config(vqvae.experiment, configs)
        prefixes = ("vqvae", *(f"priors.{i}" for i in range(len(runs))))
        sources = {
            f"{prefix}.{renamed(name)}": source
            for prefix, run in zip(prefixes, (vqvae, *runs.values()), strict=True)
            for name, source in _both_names(run)
            if name not in run.origin.get("absent", ())
        }
        names = {
            level: Vocabulary.load(folder.labels(level)) for level, c in configs.items() if c.labels
        }
        written = stack.enter_context(files.atomic_folder(out))
        safetensors_files.write(written / WEIGHTS, sources)
        for name, value in {CONFIG: config, **tokenizer.files(names, configs)}.items():
            files.write_json(written / name, value)
    print(f"{out / WEIGHTS}: sha256 {torch_files.sha256(out / WEIGHTS)}")


def _both_names(run: Exported) -> Iterator[tuple[str, Source]]:
    """A run's tensors; a tied output under both its names."""
    yield from run.sources.items()
    for other, name in run.shared.items():
        yield other, run.sources[name]
