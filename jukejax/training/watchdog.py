"""Ends a process that no longer makes progress: others would wait for it without end.

A device, a file server or a thread that hangs raises no error, and JAX's own heartbeat notices only
processes that are gone or stopped. Each process of a run therefore watches itself.
"""

from __future__ import annotations

import datetime
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from jukejax.exit_codes import CRASH
from jukejax.formatting import format_seconds

FOLDER = "hangs"  # in the workdir: a file for each process that was ended
STEP = "a step"  # the one kind of work that takes much the same time again and again
_AFTER = "a step after other work"
TIMES = 10  # a piece of work may take this multiple of the longest of its kind so far
LEAST = 45.0  # seconds that a step may take at any rate
TICK = 1.0  # seconds between two looks


class Watchdog:
    """Watches that every piece of work ends in time, from `begins` to the next `begins`.

    It may take `TIMES` times the longest of its kind so far, and at least `first` seconds; a step
    that follows a step, at least `LEAST` seconds. In a step after other work, this process may wait
    for one that has more of it to do, such as pictures to draw. Time in which this process did not
    run (Ctrl-Z, a sleeping machine) does not count. A context manager; with `first` 0 it does
    nothing.
    """

    def __init__(
        self,
        workdir: str | Path,
        process: int,
        first: float,
        end: Callable[[int], object] = os._exit,
        tick: float = TICK,
        least: float = LEAST,
    ) -> None:
        """Watches nothing yet.

        Args:
          workdir: the run's; stacks of all threads are written to its folder `hangs`.
          process: the number of this process.
          first: seconds that any piece of work may take, but for steps that follow a step.
          end: ends the process with an exit code.
          tick: seconds between two looks.
          least: seconds that those may take.
        """
        self._folder, self._process, self._end = Path(workdir) / FOLDER, process, end
        self._first, self._tick, self._least = first, tick, least
        self._longest: dict[str, float] = {}
        self._kind, self._spent = "", 0.0  # of the piece of work that goes on
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def begins(self, kind: str) -> None:
        """Ends the piece of work that went on, and begins one of a kind."""
        with self._lock:
            if self._kind:
                self._longest[self._kind] = max(self._spent, self._longest.get(self._kind, 0.0))
            if kind == STEP and self._kind not in (STEP, _AFTER):
                kind = _AFTER
            self._kind, self._spent = kind, 0.0

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._over.wait(self._tick):
            now = time.monotonic()
            with self._lock:
                self._spent += min(now - before, 2 * self._tick)
                kind, spent, limit = self._kind, self._spent, self._limit()
            before = now
            if spent > limit:
                self._report(kind, spent)
                self._end(CRASH)
                return

    def _limit(self) -> float:
        longest = self._longest.get(self._kind)
        if longest is None:
            return self._first
        return max(self._least if self._kind == STEP else self._first, TIMES * longest)

    def _report(self, kind: str, spent: float) -> None:
        """Says on stderr what hangs, and writes the stacks; the disk may be what hangs."""
        longest = self._longest.get(kind)
        usual = f", at most {format_seconds(longest)} before" if longest is not None else ""
        name = f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}_process_{self._process}.txt"
        sentence = (
            f"No progress: {kind} has taken {format_seconds(spent)}{usual}. The stacks of all "
            f"threads are below and in {self._folder / name}. This process ends with code {CRASH}; "
            "the same command continues from the last checkpoint."
        )
        print(sentence, file=sys.stderr, flush=True)
        faulthandler.dump_traceback(2, all_threads=True)  # stderr, whatever Python's is
        writer = threading.Thread(target=self._write, args=(name, sentence), daemon=True)
        writer.start()
        writer.join(10.0)

    def _write(self, name: str, sentence: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._folder / name, "w", encoding="utf-8") as file:
            print(sentence, file=file, flush=True)
            faulthandler.dump_traceback(file, all_threads=True)

    def __enter__(self) -> Watchdog:
        if self._first:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._first:
            self._thread.join()
