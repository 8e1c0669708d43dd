"""Import the checkpoints of other projects, or export ours to their formats.

jukejax convert import --format huggingface --source jukebox-1b-lyrics --out runs/1b
jukejax convert export --format openai --model runs/1b --out files

Everything is read and checked before anything is written.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import cli
from jukejax import exit_codes
from jukejax.config import ConfigError

ACTIONS = {
    "import": "a model directory from another project's files",
    "export": "another project's files from a model directory",
}
Ids = tuple[Path, Path]  # of artists and of genres, lines of name;id


@dataclass(frozen=True, kw_only=True)
class Import:
    """What imports have in common."""

    out: Path
    """The model directory; must be empty or new."""
    sha256: tuple[str, ...] = ()
    """Digests that the files must have: the VQ-VAE's, then the priors'; or by the files' names."""
    v2_ids: Ids | None = None
    """OpenAI's v2_artist_ids.txt and v2_genre_ids.txt: names of all published priors but the 1B."""
    v3_ids: Ids | None = None
    """OpenAI's v3_artist_ids.txt and v3_genre_ids.txt: names of the 1B prior."""


@dataclass(frozen=True, kw_only=True)
class ImportOpenAI(Import):
    """Write a model directory from checkpoints of OpenAI's Jukebox.

    Example: jukejax convert import --format openai --vqvae vqvae.pth.tar \
--prior prior_level_2.pth.tar --out runs/5b
    """

    vqvae: Path
    """vqvae.pth.tar"""
    prior: tuple[Path, ...]
    """prior_level_N.pth.tar, in any order."""
    vqvae_preset: str = ""
    """The VQ-VAE's preset, where its file has no settings."""
    prior_preset: tuple[str, ...] = ()
    """Each prior's preset, in the order of --prior, where their files have no settings."""


@dataclass(frozen=True, kw_only=True)
class ImportHuggingFace(Import):
    """Write a model directory from a directory of HuggingFace's Jukebox.

    Without --v2-ids and --v3-ids labels get the names in the tokenizer's files.

    Example: jukejax convert import --format huggingface --source jukebox-1b-lyrics --out runs/1b
    """

    source: Path
    """A directory with config.json and weights: safetensors or PyTorch's, whole or in shards."""


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
        command = f"jukejax convert {action}"
        examples = [line for line in (__doc__ or "").splitlines() if line.startswith(command)]
        print(f"usage: {command} --format {'|'.join(known)} [--help] ...\n\nExample: {examples[0]}")
        sys.exit(exit_codes.DONE)
    if at + 1 >= len(rest) or rest[at + 1] not in known:
        raise ConfigError(f"{action} needs --format, one of: {', '.join(known)}.")
    return rest[at + 1], rest[:at] + rest[at + 2 :]


@cli.command
def main(arguments: list[str]) -> None:
    usage = "jukejax convert import|export --format FORMAT [--help] ..."
    action, rest = cli.choose(ACTIONS, arguments, usage, (__doc__ or "").strip())
    name, rest = take_format(action, rest)
    c = cli.parse(COMMANDS[action][name], rest, f"jukejax convert {action} --format {name}")
    from jukejax.interop import exporting, huggingface, importing, stablehlo

    if isinstance(c, Export):
        exports = (exporting.export_openai, huggingface.export_huggingface, stablehlo.export_model)
        dict(zip(COMMANDS["export"], exports, strict=True))[name](c.model, c.out)
        return
    ids: Any = {rule: files for rule, files in (("v2", c.v2_ids), ("v3", c.v3_ids)) if files}
    if isinstance(c, ImportHuggingFace):
        huggingface.import_huggingface(c.source, c.out, c.sha256, ids)
    else:
        names = (c.vqvae_preset, *c.prior_preset)
        importing.import_openai((c.vqvae, *c.prior), c.out, names, c.sha256, ids)


if __name__ == "__main__":
    main(sys.argv[1:])
