"""Take the checkpoints of other projects, or give ours back in their formats.

python -m experiments.convert import --format openai --vqvae vqvae.pth.tar \\
    --prior prior_level_0.pth.tar prior_level_1.pth.tar prior_level_2.pth.tar --out runs/5b
python -m experiments.convert export --format openai --model runs/5b --out files
python -m experiments.convert import --format huggingface --source jukebox-5b-lyrics --out runs/5b
python -m experiments.convert export --format huggingface --model runs/5b --out directory
python -m experiments.convert export --format stablehlo --model runs/5b --out functions

Everything is read and checked before anything is written; `ACTION --format FORMAT --help` lists
what each takes.
"""

from __future__ import annotations

import importlib
import sys

import tyro

from experiments import cli
from jukejax.config import ConfigError

FORMATS = {
    "import": ("openai", "huggingface"),
    "export": ("openai", "huggingface", "stablehlo"),
}
USAGE = "python -m experiments.convert import|export --format FORMAT [--help] ..."


def take_format(action: str, arguments: list[str]) -> tuple[str, list[str]]:
    """The value of --format, and the other arguments.

    Raises:
      ConfigError: there is none, or it is unknown.
    """
    rest = [part for a in arguments for part in (a.split("=", 1) if "--format=" in a else (a,))]
    known = FORMATS[action]
    at = rest.index("--format") if "--format" in rest else len(rest)
    if at + 1 >= len(rest) or rest[at + 1] not in known:
        raise ConfigError(f"{action} needs --format, one of: {', '.join(known)}.")
    return rest[at + 1], rest[:at] + rest[at + 2 :]


@cli.command
def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] not in FORMATS:
        lines = [f"  {action} --format {'|'.join(known)}" for action, known in FORMATS.items()]
        print(f"usage: {USAGE}\n\n{(__doc__ or '').strip()}\n\n" + "\n".join(lines))
        sys.exit(0 if arguments[:1] in (["-h"], ["--help"]) else 2)
    action, rest = arguments[0], arguments[1:]
    name, rest = take_format(action, rest)
    module = importlib.import_module(f"experiments.convert.{name}")
    prog = f"python -m experiments.convert {action} --format {name}"
    module.RUN[action](tyro.cli(module.COMMANDS[action], args=rest, prog=prog))
