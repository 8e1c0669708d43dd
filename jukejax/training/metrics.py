"""Numbers, sounds and pictures of a run: `metrics.jsonl`, TensorBoard, and a line on the screen.

`metrics.jsonl` is the record to compute with: one JSON object a line, `step` and `time` (Unix
seconds) first, then the values by name. A run that resumes from step k drops what was written
after k, so a step interrupted and done again stands there once.
"""

import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from jukejax import files
from jukejax.formatting import format_seconds

FILE_NAME = "metrics.jsonl"
RESERVED = ("step", "time")


def _json_value(value: float) -> float | str:
    """A finite number as it is; JSON has no NaN or infinity, so these become "nan", "inf", "-inf".

    `float()` reads all of them back.
    """
    return value if math.isfinite(value) else str(value)


def _parse(line: bytes) -> dict[str, Any] | None:
    """A line of `metrics.jsonl`, or None if it is torn or is no record with a step."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    is_record = isinstance(record, dict) and isinstance(record.get("step"), int)
    return record if is_record else None


def trim(path: Path, last_step: int | None) -> None:
    """Drops the lines of a metrics file after `last_step` (None: no limit) and a torn last line.

    The file is replaced atomically, and only if something changes. Raises ValueError for a broken
    line elsewhere: that is no interrupted write, and dropping it would hide the damage.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    kept = []
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is None and number < len(lines):
            raise ValueError(
                f"Line {number} of {path} is not a metrics record; mend or move the file, "
                "then start again."
            )
        if record is None or (last_step is not None and record["step"] > last_step):
            continue
        kept.append(line.rstrip(b"\r\n") + b"\n")
    if kept != lines:
        files.write_bytes(path, b"".join(kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file, in order; a torn last line is passed over.

    Values that were not finite come back as floats. A missing file gives an empty list.
    """
    if not path.exists():
        return []
    records = [_parse(line) for line in path.read_bytes().splitlines()]
    return [
        {name: float(v) if v in ("nan", "inf", "-inf") else v for name, v in record.items()}
        for record in records
        if record is not None
    ]


class MetricsWriter:
    """Writes a run's metrics to `workdir/metrics.jsonl` and `workdir/tensorboard`.

    Only one process may write: with `write=False` nothing is opened, and all is checked and
    dropped. `resume_step=k` drops what an earlier run wrote after step k from both; without it new
    lines are added to those that are there.
    """

    def __init__(
        self,
        workdir: str | Path,
        tensorboard: bool = True,
        resume_step: int | None = None,
        write: bool = True,
    ) -> None:
        folder = Path(workdir)
        self.path = folder / FILE_NAME
        self._file: TextIO | None = None
        self._board: Any = None
        if not write:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            trim(self.path, resume_step)
        self._file = self.path.open("a", encoding="utf-8")
        if tensorboard:
            from tensorboardX import SummaryWriter

            purge = None if resume_step is None else resume_step + 1
            # Files are named by the second; without a suffix a quick restart overwrites the last.
            self._board = SummaryWriter(
                str(folder / "tensorboard"),
                purge_step=purge,
                filename_suffix=f".{time.time_ns()}",
            )

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds a line of numbers by name; anything `float()` takes, scalar arrays included.

        Raises ValueError for the names "step" and "time" and for an array of several values.
        """
        numbers = {name: self._number(name, value) for name, value in values.items()}
        record: dict[str, Any] = {"step": int(step), "time": round(time.time(), 3)}
        record.update({name: _json_value(number) for name, number in numbers.items()})
        if self._file is not None:
            self._file.write(json.dumps(record, allow_nan=False) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, number in numbers.items():
                self._board.add_scalar(name, number, int(step))

    @staticmethod
    def _number(name: str, value: Any) -> float:
        """One metric as a float; ValueError says which name is wrong and why."""
        if name in RESERVED:
            raise ValueError(
                f"A metric cannot be called {name!r}: the line has its own; rename it."
            )
        if np.ndim(value):
            raise ValueError(
                f"The metric {name!r} has shape {np.shape(value)}; reduce it to one number first."
            )
        return float(value)

    def audio(
        self, step: int, name: str, samples: NDArray[np.floating[Any]], sample_rate: int
    ) -> None:
        """Adds a sound (S,) in -1..1 to TensorBoard; louder samples are clipped, NaN is silence."""
        sound = np.asarray(samples, np.float32)
        if sound.ndim != 1:
            raise ValueError(
                f"The sound {name!r} has shape {sound.shape}; give one channel of one item, (S,)."
            )
        if self._board is not None:
            sound = np.clip(np.nan_to_num(sound, nan=0.0), -1.0, 1.0)
            self._board.add_audio(name, sound[:, None], int(step), sample_rate=int(sample_rate))

    def image(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Adds a picture, uint8 (H, W, 3), to TensorBoard."""
        picture = np.asarray(pixels)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
            raise ValueError(
                f"The picture {name!r} is {picture.dtype} {picture.shape}; give uint8 (H, W, 3)."
            )
        if self._board is not None:
            self._board.add_image(name, picture, int(step), dataformats="HWC")

    def flush(self) -> None:
        """Hands everything so far to the operating system."""
        if self._file is not None:
            self._file.flush()
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Flushes and closes; closing twice is harmless."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()
            self._board = None

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Progress:
    """Tells how far a run is: "step 120/1000  3.2 it/s  4m35s left  loss 0.123".

    The rate is that of the last `window` updates, so neither compilation nor a slow evaluation
    long ago spoils the time left.
    """

    def __init__(
        self,
        total: int,
        start: int = 0,
        log: Callable[[str], Any] = print,
        *,
        window: int = 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self._log = log
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque([(clock(), start)], maxlen=window + 1)

    @property
    def rate(self) -> float:
        """Steps per second over the window; 0 before the first update."""
        (first, start), (last, step) = self._marks[0], self._marks[-1]
        return (step - start) / (last - first) if last > first and step > start else 0.0

    def update(self, step: int, values: Mapping[str, Any] | None = None) -> str:
        """Notes that `step` steps are done, logs the line with `values`, and returns it."""
        self._marks.append((self._clock(), step))
        parts = [f"step {step}/{self.total}"]
        rate = self.rate
        if rate > 0:
            parts.append(f"{rate:.3g} it/s" if rate >= 1 else f"{1 / rate:.3g} s/it")
            parts.append(f"{format_seconds((self.total - step) / rate)} left")
        parts += [f"{name} {float(value):.4g}" for name, value in (values or {}).items()]
        line = "  ".join(parts)
        self._log(line)
        return line
