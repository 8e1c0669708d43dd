"""What the commands share: clean errors, presets on the command line."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any


def command(main: Callable[..., Any]) -> Callable[..., Any]:
    """Turns the errors that users can mend into one sentence and exit code 1; Ctrl-C into 130."""
    from data_pipeline.errors import DataError
    from jukejax.checkpoint import CheckpointError
    from jukejax.config import ConfigError
    from jukejax.training.loop import Diverged, Interrupted

    @functools.wraps(main)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return main(*args, **kwargs)
        except (ConfigError, CheckpointError, DataError, Diverged) as error:
            sys.exit(f"error: {error}")
        except OSError as error:  # no such file, no space, no permission
            sys.exit(f"error: {error}; mend that and run again, work done is kept.")
        except Interrupted as error:
            print(f"{error} The same command goes on from there.", file=sys.stderr)
            sys.exit(130)
        except KeyboardInterrupt:
            print("Interrupted. The same command goes on where it was.", file=sys.stderr)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(130)  # not through the threads of a compiler that was cut short

    return run


def take_preset(arguments: list[str], usage: str) -> tuple[str, list[str]]:
    """The preset's name, which comes first, and the other arguments."""
    if not arguments or arguments[0].startswith("-"):
        from jukejax.presets import PRESETS

        lines = [f"  {name:28}{(f.__doc__ or '').splitlines()[0]}" for name, f in PRESETS.items()]
        text = f"usage: {usage}\n\nPresets:\n" + "\n".join(lines)
        if arguments and arguments[0] in ("-h", "--help"):
            print(text + "\n\n`PRESET --help` lists every field that can be overridden.")
            sys.exit(0)
        sys.exit(text)
    return arguments[0], arguments[1:]
