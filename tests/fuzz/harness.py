"""One damaged input of one format: what is done with it, and what may come of it."""

import dataclasses
import logging
import os
import re
import resource
import shutil
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jukejax.errors import JukejaxError

OUTCOMES = ("unchanged", "other", "noted", "refused", "finding")
_MEMORY = 6 << 30  # bytes that inputs may allocate beyond what the libraries have
_LONGEST = 1500  # characters of a sentence


class Finding(Exception):
    """An input was accepted, and what it became is wrong."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
      name: of the format.
      share: inputs among 10,000.
      make: writes undamaged files below a folder, once, and returns what `attempt` is given.
      attempt: damages a file in an empty folder, reads it as the commands do and returns an
        outcome: "unchanged" (what was read is what is right), "other" (a valid file of other
        content, which no checksum could tell), "noted" (with a warning). It raises Finding, or the
        reader's error.
      named: whether a refusal must name the folder of the input.
    """

    name: str
    share: int
    make: Callable[[Path], Any]
    attempt: Callable[[Any, Path, np.random.Generator], str]
    named: bool = True


def require(condition: Any, what: str, *values: Any) -> None:
    """Raises Finding unless the condition holds."""
    if not condition:
        raise Finding(f"{what}: {', '.join(f'{value!r:.300}' for value in values)}")


class Notes(logging.Handler):
    """Collects the warnings of the program while an input is read."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a message."""
        self.texts.append(record.getMessage())


NOTES = Notes()


class Runner:
    """Runs inputs by name; input (seed, format, number) is always the same."""

    def __init__(self, formats: list[Format], folder: Path, seed: int) -> None:
        self.formats = {format_.name: format_ for format_ in formats}
        self.folder, self.seed, self.states = folder, seed, dict[str, Any]()
        for name in ("data_pipeline", "jukejax"):
            if NOTES not in (logger := logging.getLogger(name)).handlers:
                logger.addHandler(NOTES)
                logger.propagate = False

    def prepare(self, name: str) -> None:
        """Writes the undamaged files of a format."""
        if name not in self.states:
            base = self.folder / "base" / re.sub(r"\W", "_", name)
            shutil.rmtree(base, ignore_errors=True)
            base.mkdir(parents=True)
            self.states[name] = self.formats[name].make(base)

    def run(self, name: str, number: int) -> tuple[str, str]:
        """The outcome of an input, and the refusal or the finding."""
        self.prepare(name)
        format_, folder = self.formats[name], self.folder / "input"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        NOTES.texts.clear()
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode()), number])
        try:
            return format_.attempt(self.states[name], folder, rng), ""
        except (JukejaxError, OSError) as error:
            text = str(error)
            first, *table = text.split("\n")
            known = isinstance(error, JukejaxError) or error.strerror  # commands print both
            lost = format_.named and str(folder) not in text
            if (
                not known
                or not all(line.startswith("  ") for line in table)
                or (len(first) > _LONGEST and isinstance(error, JukejaxError))
                or "Traceback" in text
                or lost
            ):
                return "finding", f"not one sentence that names the file:\n{_trace(error)}"
            return "refused", text
        except Finding as error:
            return "finding", str(error)
        except Exception as error:
            return "finding", _trace(error)


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-3000:]


def child(pipe, folder, seed, inputs):
    """Runs the inputs one by one; sends each outcome through the pipe."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tests.fuzz.formats import FORMATS

    runner = Runner(FORMATS, folder, seed)
    for name in dict.fromkeys(name for name, _ in inputs):
        runner.prepare(name)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, resource.RLIM_INFINITY))
    pipe.send("ready")
    for name, number in inputs:
        pipe.send(runner.run(name, number))
