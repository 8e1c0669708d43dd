"""What the commands share: clean errors, presets on the command line."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

DONE, MISTAKE, USAGE, CRASH, RUN_AGAIN, STOPPED = 0, 1, 2, 70, 75, 130


def command(main: Callable[..., Any]) -> Callable[..., Any]:
    """Turns the errors that users can mend into one sentence, and how it went into an exit code.

    0: done. 1 or 2: a mistake to mend; starting again would not help. 75 (`EX_TEMPFAIL`): stopped
    by SIGTERM after saving: run me again. 130: Ctrl-C. Anything else is a crash: 70, one of many
    processes met an error that is not foreseen, mostly because another is gone; or the end by a
    signal. Launchers start those again too, not for ever.
    """
    import jax

    from jukejax.errors import Interrupted, JukejaxError, Preempted

    @functools.wraps(main)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return main(*args, **kwargs)
        except JukejaxError as error:
            leave(f"error: {error}")
        except OSError as error:  # no such file, no space, no permission
            leave(f"error: {error}; mend that and run again, work done is kept.")
        except Preempted as error:
            print(f"{error} The same command goes on from there.", file=sys.stderr)
            sys.exit(RUN_AGAIN)
        except Interrupted as error:
            print(f"{error} The same command goes on from there.", file=sys.stderr)
            sys.exit(STOPPED)
        except KeyboardInterrupt:
            print("Interrupted. The same command goes on where it was.", file=sys.stderr)
            at_once(STOPPED)  # not through the threads of a compiler that was cut short
        except Exception:
            if not jax.distributed.is_initialized():
                raise
            traceback.print_exc()  # mostly another process is gone: they are not waited for
            at_once(CRASH)

    return run


def leave(sentence: str) -> NoReturn:
    """Ends with a mistake; one process of many does not wait for the others, who wait for it."""
    import jax

    if jax.distributed.is_initialized():
        print(sentence, file=sys.stderr)
        at_once(MISTAKE)
    sys.exit(sentence)


def at_once(code: int) -> NoReturn:
    """Ends this process without any clearing up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


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
