"""What all commands share: parsing, help, exit codes, errors as sentences.

Nothing here imports jax: `--help` answers at once, and jax starts with a command's work.
"""

from __future__ import annotations

import dataclasses
import difflib
import errno
import functools
import os
import re
import runpy
import sys
import textwrap
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Annotated, Any, NoReturn, get_origin

import tyro

from jukejax.errors import Interrupted, JukejaxError, Preempted
from jukejax.exit_codes import CRASH, DONE, MISTAKE, RUN_AGAIN, STOPPED, USAGE

# XLA and TensorFlow log alarms that nobody can act on, such as of slow constant folding; what they
# cannot do they raise. TF_CPP_MIN_LOG_LEVEL=0 shows everything.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# faults of a disk, of a file server, of a network
PASSING = {
    errno.EIO, errno.ESTALE, errno.EREMOTEIO, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN,
    errno.EHOSTUNREACH, errno.ENOTCONN, errno.EAGAIN,
}  # fmt: skip

HELP = ("-h", "--help")
HELP_ALL = "--help-all"
# modules whose distribution has another name
DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "pyyaml", "tensorflow": "tensorflow-cpu"}


def parse(
    kind: Any, arguments: list[str], program: str, common: Sequence[str] = (), **options: Any
) -> Any:
    """A command from its command line, by tyro.

    `--help` lists the options in `common` (all where that is empty), `--help-all` every one.

    Args:
      kind: a dataclass; or a function, which is called and has no `common`. Its docstring is the
        help, and ends with an example; `description` among the options replaces it.
      arguments: without the program's name.
      program: for the usage line, such as "jukejax train".
      common: names of fields; those without a default belong to them.
      options: of `tyro.cli`, such as `default`.
    """
    if HELP_ALL in arguments:
        arguments = ["--help"]
    elif common and any(word in arguments for word in HELP):
        try:
            about = options.get("description")
            tyro.cli(_shortened(kind, common), args=["--help"], prog=program, description=about)
        finally:
            print(f"All options: {program} {HELP_ALL}")
    return tyro.cli(kind, args=arguments, prog=program, **options)


def _shortened(kind: Any, common: Sequence[str]) -> type:
    """A dataclass with the same help and the common fields alone."""
    generic: Any = get_origin(kind) or kind
    names = [field.name for field in dataclasses.fields(generic)]
    assert set(common) <= set(names), f"{set(common) - set(names)} are no fields of {kind}"
    hidden = dict.fromkeys(name for name in names if name not in common)
    body = {
        "__doc__": generic.__doc__,
        "__module__": generic.__module__,
        "__annotations__": dict.fromkeys(hidden, Annotated[None, tyro.conf.Suppress]),
        **hidden,
    }
    short = types.new_class(
        generic.__name__, (kind,), exec_body=lambda namespace: namespace.update(body)
    )
    return dataclasses.dataclass(frozen=True, kw_only=True)(short)


def choose(
    choices: Mapping[str, str], arguments: list[str], usage: str, about: str = ""
) -> tuple[str, list[str]]:
    """The first argument, which must be one of `choices`, and the other arguments.

    Args:
      choices: what `--help` says of each, in one line.
      usage: the usage line, such as "jukejax convert import|export ...".
      about: what comes after it in the help.
    """
    if arguments and arguments[0] in choices:
        return arguments[0], arguments[1:]
    if not arguments or arguments[0].startswith("-"):
        width = max(map(len, choices)) + 2
        lines = [
            textwrap.fill(line, 100, initial_indent=f"  {name:{width}}", subsequent_indent=" " * 8)
            for name, line in choices.items()
        ]
        text = "\n\n".join(filter(None, [f"usage: {usage}", about, "\n".join(lines)]))
        if arguments and arguments[0] in (*HELP, HELP_ALL):
            print(text)
            sys.exit(DONE)
        print(text, file=sys.stderr)
        sys.exit(USAGE)
    near = difflib.get_close_matches(arguments[0], choices, 1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(choices)}."
    print(f"error: there is no {arguments[0]!r}; {hint}", file=sys.stderr)
    sys.exit(USAGE)


def take_preset(arguments: list[str], usage: str) -> tuple[str, list[str]]:
    """The name of a preset or the workdir of a run, which comes first, and the other arguments."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    from jukejax.presets import PRESETS

    lines = {name: (make.__doc__ or "").splitlines()[0] for name, make in PRESETS.items()}
    return choose(lines, arguments, usage, "Presets (each has a --help of its own):")


def run_command(name: str, *arguments: str) -> None:
    """Runs a command in this process, as `python -m experiments.NAME ARGUMENTS` does in its own."""
    sys.argv = [f"jukejax {name}", *arguments]
    runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)


def command(main: Callable[..., Any]) -> Callable[..., Any]:
    """Turns errors that users can mend into one sentence, and how it ended into an exit code."""

    @functools.wraps(main)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return main(*args, **kwargs)
        except JukejaxError as error:
            leave(f"error: {error}")
        except ModuleNotFoundError as error:
            sentence = missing(error.name or "")
            if not sentence:
                sys.excepthook = crash
                raise
            leave(f"error: {sentence}")
        except BrokenPipeError:  # such as `| head`: nobody reads what is printed
            os._exit(CRASH)
        except OSError as error:
            if is_passing(error):
                leave(f"error: {error}; it may pass: run again, work done is kept.", CRASH)
            leave(f"error: {error}; mend that and run again, work done is kept.")
        except Interrupted as error:
            print(f"{error} The same command continues from there.", file=sys.stderr)
            sys.exit(RUN_AGAIN if isinstance(error, Preempted) else STOPPED)
        except KeyboardInterrupt:
            print("Interrupted. The same command continues where it was.", file=sys.stderr)
            at_once(STOPPED)  # not through the threads of a compiler that was cut short
        except Exception:
            if one_of_several():  # mostly another process is gone: do not wait for the others
                crash(*sys.exc_info())
            sys.excepthook = crash  # in place of exit code 1, where nobody catches it
            raise

    return run


def is_passing(error: OSError) -> bool:
    """Whether a fault of storage or network may be gone at another start.

    Not so a missing file, a full disk, or a missing permission.
    """
    return isinstance(error, ConnectionError | TimeoutError) or error.errno in PASSING


def missing(module: str) -> str:
    """What to install for a module that is missing; nothing where jukejax does not ask for it."""
    root = module.partition(".")[0]
    package = DISTRIBUTIONS.get(root, root).replace("_", "-")
    try:
        requirements = metadata.requires("jukejax") or []
    except metadata.PackageNotFoundError:
        return f"{root} is not installed, nor is jukejax: run `pip install --editable .` first."
    extras, needed = [], False
    for requirement in requirements:
        if re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower() == package.lower():
            needed = True
            extras += re.findall(r"extra == [\"'](.+?)[\"']", requirement)
    if not needed:
        return ""
    if not extras:
        return f"{root}, which jukejax requires, is not installed: run `pip install {package}`."
    others = f" ({', '.join(extras[1:])} too)" if len(extras) > 1 else ""
    return (
        f"{root} is not installed; the extra {extras[0]} has it{others}: "
        f"run `pip install 'jukejax[{extras[0]}]'`."
    )


def one_of_several() -> bool:
    """Whether this process computes together with others, which wait for it."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def leave(sentence: str, code: int = MISTAKE) -> NoReturn:
    """Ends with a sentence; one process of several does not wait for the others."""
    if one_of_several():
        print(sentence, file=sys.stderr)
        at_once(code)
    if code == MISTAKE:
        sys.exit(sentence)
    print(sentence, file=sys.stderr)
    sys.exit(code)


def crash(*error: Any) -> NoReturn:
    """Ends with the stack trace of an unforeseen error (type, value, traceback)."""
    traceback.print_exception(*error)
    at_once(CRASH)


def at_once(code: int) -> NoReturn:
    """Ends this process without any clearing up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
