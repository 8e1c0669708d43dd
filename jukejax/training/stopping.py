"""Why a run ends before its last step: asked to, or no longer learning."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import jax

from jukejax.errors import Diverged


class StopSignal:
    """Turns Ctrl-C and SIGTERM into a number that the loop reads between steps.

    0: go on; 1: SIGTERM came; 2: Ctrl-C came, which outdoes it.
    """

    def __init__(self) -> None:
        self.asked = 0

    def __enter__(self) -> StopSignal:
        def ask(number: int, frame: Any) -> None:
            self.asked = max(self.asked, 1 if number == signal.SIGTERM else 2)

        self._before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Skips:
    """Counts the steps in a row whose gradient was no number.

    Each step's flag is read when the next one has been handed over: devices are not left waiting.
    """

    def __init__(self, limit: int, workdir: str | Path) -> None:
        self._limit, self._workdir = limit, workdir
        self._in_a_row = 0
        self._flag: jax.Array | None = None

    def __call__(self, step: int, flag: jax.Array | None) -> None:
        """Notes the flag of `step`, and reads that of the one before; None: there is none.

        Raises:
          Diverged: `limit` steps in a row were skipped.
        """
        before, self._flag = self._flag, flag
        if before is not None:
            self._in_a_row = self._in_a_row + 1 if float(before) else 0
        if self._in_a_row >= self._limit:
            raise Diverged(
                f"The gradient is not finite any more: {self._limit} steps in a row up to step "
                f"{step - 1} were skipped. The checkpoints in {self._workdir} are from before; "
                "start again with a lower optimizer.learning_rate or a longer "
                "optimizer.warmup_steps."
            )
