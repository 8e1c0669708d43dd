"""Metrics, sounds and pictures of a run: `metrics.jsonl`, TensorBoard, and lines of progress.

`metrics.jsonl` is the record to compute with: one JSON object a line, `step` and `time` (Unix
seconds) first, then the values by name. A run that resumes from step k drops the lines after k, so
a step that is done again after a crash is in the file once.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from jukejax import files, stored
from jukejax.errors import DataError
from jukejax.formatting import format_seconds

FILE_NAME = "metrics.jsonl"
NOT_FINITE = ("nan", "inf", "-inf")  # JSON has no such numbers; `float` reads these texts


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file, in order, without an incomplete last line.

    Values that are not finite are read as floats. A missing file gives an empty list.
    """
    if not path.exists():
        return []
    records = [_parse(line) for line in path.read_bytes().splitlines()]
    return [
        {name: float(v) if v in NOT_FINITE else v for name, v in record.items()}
        for record in records
        if record is not None
    ]


def _parse(line: bytes) -> dict[str, Any] | None:
    """A line of a metrics file; None if it is incomplete, has no step or other than numbers."""
    try:
        record = stored.parse(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or type(record.get("step")) is not int:
        return None
    numbers = all(type(v) in (int, float) or v in NOT_FINITE for v in record.values())
    return record if numbers else None


def _trim(path: Path, last_step: int | None) -> None:
    """Drops the lines of a metrics file after `last_step` (None: no limit) and a torn last line.

    Raises:
      DataError: a line other than the last is damaged, which no interrupted write explains.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    kept = []
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is None and number < len(lines):
            raise DataError(
                f"Line {number} of {path} is not a metrics record; mend or move the file, "
                "then start again."
            )
        if record is not None and (last_step is None or record["step"] <= last_step):
            kept.append(line.rstrip(b"\r\n") + b"\n")
    if kept != lines:
        files.write_bytes(path, b"".join(kept))


class MetricsWriter:
    """Writes a run's metrics to `workdir/metrics.jsonl` and `workdir/tensorboard`."""

    def __init__(
        self, workdir: str | Path, resume_step: int | None = None, write: bool = True
    ) -> None:
        """Opens the files of a run.

        Args:
          workdir: the run's.
          resume_step: drops what was written after this step; None: adds to what is there.
          write: False on all processes but one: nothing is opened; values are checked and dropped.
        """
        self.path = Path(workdir) / FILE_NAME
        self._file: TextIO | None = None
        self._board: Any = None
        if not write:
            return
        from tensorboardX import SummaryWriter

        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            _trim(self.path, resume_step)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = SummaryWriter(
            str(self.path.parent / "tensorboard"),
            purge_step=None if resume_step is None else resume_step + 1,
            # files are named by the second: without a suffix a quick restart overwrites the last
            filename_suffix=f".{time.time_ns()}",
        )

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds a line of numbers by name: anything that `float` takes, scalar arrays too.

        Raises:
          ValueError: a name is "step" or "time", or a value is an array of several numbers.
        """
        for name, value in values.items():
            if name in ("step", "time"):
                raise ValueError(f"A metric cannot be named {name!r}, as every line has one.")
            if np.ndim(value):
                raise ValueError(
                    f"The metric {name!r} has shape {np.shape(value)}; reduce it to one number."
                )
        numbers = {name: float(value) for name, value in values.items()}
        if self._file is not None:
            record: dict[str, Any] = {"step": int(step), "time": round(time.time(), 3)}
            record |= {n: x if math.isfinite(x) else str(x) for n, x in numbers.items()}
            self._file.write(json.dumps(record, allow_nan=False) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, number in numbers.items():
                self._board.add_scalar(name, number, int(step))

    def audio(
        self, step: int, name: str, samples: NDArray[np.floating[Any]], sample_rate: int
    ) -> None:
        """Adds a sound (S,) in [-1, 1] to TensorBoard; louder samples are clipped, NaN is silence.

        Raises:
          ValueError: another shape.
        """
        sound = np.asarray(samples, np.float32)
        if sound.ndim != 1:
            raise ValueError(f"The sound {name!r} has shape {sound.shape}; give one channel, (S,).")
        if self._board is not None:
            sound = np.clip(np.nan_to_num(sound, nan=0.0), -1.0, 1.0)
            self._board.add_audio(name, sound[:, None], int(step), sample_rate=int(sample_rate))

    def image(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Adds a picture, uint8 (H, W, 3), to TensorBoard.

        Raises:
          ValueError: another shape or dtype.
        """
        picture = np.asarray(pixels)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
            raise ValueError(
                f"The picture {name!r} is {picture.dtype} {picture.shape}; give uint8 (H, W, 3)."
            )
        if self._board is not None:
            self._board.add_image(name, picture, int(step), dataformats="HWC")

    def close(self) -> None:
        """Writes everything to the files; a second call does nothing."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()
            self._board = None

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Progress:
    """Lines of progress: "step 120/1000  3.2 it/s  4m35s left  loss 0.123".

    The rate is that of the last `window` updates, and counts from `start` on, which is called
    after the first step: neither compilation nor a slow evaluation long ago changes the time left.
    """

    def __init__(
        self,
        total: int,
        log: Callable[[str], Any] = print,
        *,
        window: int = 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._log, self._clock = total, log, clock
        self._updates: deque[tuple[float, int]] = deque(maxlen=window + 1)

    def start(self, step: int) -> None:
        """Begins to count the time after `step` steps."""
        self._updates.append((self._clock(), step))

    def update(self, step: int, values: Mapping[str, Any]) -> None:
        """Logs that `step` steps are done, with the values."""
        self._updates.append((self._clock(), step))
        (began, first), (now, _) = self._updates[0], self._updates[-1]
        parts = [f"step {step}/{self._total}"]
        if now > began and step > first:
            rate = (step - first) / (now - began)
            parts.append(f"{rate:.3g} it/s" if rate >= 1 else f"{1 / rate:.3g} s/it")
            parts.append(f"{format_seconds((self._total - step) / rate)} left")
        parts += [f"{name} {float(value):.4g}" for name, value in values.items()]
        self._log("  ".join(parts))
