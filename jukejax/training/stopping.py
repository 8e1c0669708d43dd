"""Why a run ends before its last step: a signal asks it to, or it no longer learns."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import jax

from jukejax.errors import Diverged


class StopSignal:
    """Turns Ctrl-C and SIGTERM into a number, `asked`, which the loop reads between steps.

    0: continue; 1: SIGTERM came; 2: Ctrl-C came, also if SIGTERM did.
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
    """Counts steps in a row that were skipped: loss or gradient was not finite, or a spike."""

    def __init__(self, limit: int, workdir: str | Path) -> None:
        self._limit, self._workdir = limit, workdir
        self._in_a_row = 0
        self._flag: jax.Array | None = None

    def __call__(self, step: int, flag: jax.Array) -> None:
        """Records this step's flag and checks the previous one (no host sync).

        Raises:
          Diverged: `limit` steps in a row were skipped.
        """
        previous, self._flag = self._flag, flag
        if previous is not None:
            self._in_a_row = self._in_a_row + 1 if float(previous) else 0
        if self._in_a_row >= self._limit:
            raise Diverged(
                f"Training diverges: {self._limit} steps in a row up to step {step - 1} were "
                "skipped, as loss or gradient was not finite, or a spike. The checkpoints in "
                f"{self._workdir} are from before; start again with a lower "
                "optimizer.learning_rate or a longer optimizer.warmup_steps, or let the run leave "
                "the data out (train.rollbacks).",
                step,
            )
