"""Import the checkpoints of other projects, or export ours to their formats.

jukejax convert import --format openai --vqvae vqvae.pth.tar \\
    --prior prior_level_0.pth.tar prior_level_1.pth.tar prior_level_2.pth.tar --out runs/5b
jukejax convert export --format openai --model runs/5b --out files
jukejax convert import --format huggingface --source jukebox-5b-lyrics --out runs/5b
jukejax convert export --format huggingface --model runs/5b --out directory
jukejax convert export --format stablehlo --model runs/5b --out functions

Everything is read and checked before anything is written.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import cli
from jukejax.config import ConfigError

ACTIONS = {
    "import": "a model directory from another project's files",
    "export": "another project's files from a model directory",
}
Ids = tuple[Path, Path]  # of artists and of genres, lines of name;id


@dataclass(frozen=True)
class ImportOpenAI:
    """Write a model directory from checkpoints of OpenAI's Jukebox.

    Example: jukejax convert import --format openai --vqvae vqvae.pth.tar \
--prior prior_level_2.pth.tar --out runs/5b
    """

    vqvae: Path
    """vqvae.pth.tar"""
    prior: tuple[Path, ...]
    """prior_level_N.pth.tar, in any order."""
    out: Path
    """The model directory; must be empty or new."""
    sha256: tuple[str, ...] = ()
    """Digests that the files must have: the VQ-VAE's, then the priors'."""
    vqvae_preset: str = ""
    """The VQ-VAE's preset, where its file has no settings."""
    prior_preset: tuple[str, ...] = ()
    """Each prior's preset, in the order of --prior, where their files have no settings."""
    v2_ids: Ids | None = None
    """OpenAI's v2_artist_ids.txt and v2_genre_ids.txt: names of all published priors but the 1B."""
    v3_ids: Ids | None = None
    """OpenAI's v3_artist_ids.txt and v3_genre_ids.txt: names of the 1B prior."""


@dataclass(frozen=True)
class ImportHuggingFace:
    """Write a model directory from a directory of HuggingFace's Jukebox.

    Example: jukejax convert import --format huggingface --source jukebox-1b-lyrics --out runs/1b
    """

    source: Path
    """A directory with config.json and weights: safetensors or PyTorch's, whole or in shards."""
    out: Path
    """The model directory; must be empty or new."""
    sha256: tuple[str, ...] = ()
    """Digests that the files of weights must have, in the order of their names."""
    v2_ids: Ids | None = None
    """OpenAI's files of artists and genres of v2; without, the names in the tokenizer's files."""
    v3_ids: Ids | None = None
    """The same of v3."""


@dataclass(frozen=True)
class Export:
    """Write a model directory in another format.

    openai: vqvae.pth.tar and prior_level_N.pth.tar. huggingface: config.json, model.safetensors
    and, if labels have names, the tokenizer's files. stablehlo: functions that JAX runs without
    jukejax, weights as .safetensors and manifest.json.

    Example: jukejax convert export --format openai --model runs/5b --out files
    """

    model: Path
    """A model directory (model.json)."""
    out: Path
    """Gets the files; must be empty or new."""


COMMANDS: dict[str, dict[str, Any]] = {
    "import": {"openai": ImportOpenAI, "huggingface": ImportHuggingFace},
    "export": dict.fromkeys(("openai", "huggingface", "stablehlo"), Export),
}


def take_format(action: str, arguments: list[str]) -> tuple[str, list[str]]:
    """The value of --format, and the other arguments.

    Raises:
      ConfigError: it is missing or unknown.
    """
    rest = [part for a in arguments for part in (a.split("=", 1) if "--format=" in a else (a,))]
    known = list(COMMANDS[action])
    at = rest.index("--format") if "--format" in rest else len(rest)
    if at == len(rest) and set(rest) & {*cli.HELP, cli.HELP_ALL}:
        print(f"usage: jukejax convert {action} --format {'|'.join(known)} [--help] ...")
        sys.exit(cli.DONE)
    if at + 1 >= len(rest) or rest[at + 1] not in known:
        raise ConfigError(f"{action} needs --format, one of: {', '.join(known)}.")
    return rest[at + 1], rest[:at] + rest[at + 2 :]


@cli.command
def main(arguments: list[str]) -> None:
    usage = "jukejax convert import|export --format FORMAT [--help] ..."
    action, rest = cli.choose(ACTIONS, arguments, usage, (__doc__ or "").strip())
    name, rest = take_format(action, rest)
    command = cli.parse(COMMANDS[action][name], rest, f"jukejax convert {action} --format {name}")
    from jukejax.interop import exporting, huggingface, importing, stablehlo

    if isinstance(command, Export):
        exports = (exporting.export_openai, huggingface.export_huggingface, stablehlo.export_model)
        dict(zip(COMMANDS["export"], exports, strict=True))[name](command.model, command.out)
        return
    ids: Any = {"v2": command.v2_ids, "v3": command.v3_ids}
    ids = {rule: files for rule, files in ids.items() if files}
    if isinstance(command, ImportHuggingFace):
        huggingface.import_huggingface(command.source, command.out, command.sha256, ids)
        return
    named = command.prior_preset or ("",) * len(command.prior)
    if len(named) != len(command.prior):
        raise ConfigError("Give --prior-preset one name a prior, in the order of --prior.")
    paths, preset_names = (command.vqvae, *command.prior), (command.vqvae_preset, *named)
    importing.import_openai(paths, command.out, preset_names, command.sha256, ids)


if __name__ == "__main__":
    main(sys.argv[1:])
