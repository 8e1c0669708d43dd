"""Runs the processes of one run on this machine, and starts them again as their codes ask for.

The codes are those of `experiments.cli`. One process gone means all are: they compute together.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.cli import DONE, MISTAKE, RUN_AGAIN, STOPPED, USAGE
from jukejax.config import ConfigError

POLL = 0.05
LONGEST_PAUSE = 60.0
CACHE = "JAX_COMPILATION_CACHE_DIR"


def compiled(workdir: Path) -> Path:
    """Where a run's compiled programs are kept: those of a restart are there already."""
    return workdir / "compiled"


@dataclass(frozen=True)
class Plan:
    """What to run, how often, and when to give up."""

    command: tuple[str, ...]
    workdir: Path
    processes: int = 1
    devices: int = 0  # virtual CPU devices of each process; 0: those that the machine has
    restarts: int = 10  # in a row without a newer checkpoint
    pause: float = 1.0  # seconds before the second try; doubled each time
    grace: float = 120.0  # seconds for the others when one process has ended well

    def environment(self, index: int, port: int) -> dict[str, str]:
        """What the process `index` is told beside the environment of this one."""
        told = {"PYTHONUNBUFFERED": "1", CACHE: os.environ.get(CACHE, str(compiled(self.workdir)))}
        if self.devices:
            count = f"--xla_force_host_platform_device_count={self.devices}"
            told["JAX_PLATFORMS"] = "cpu"
            told["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {count}".strip()
        if self.processes > 1:
            told["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{port}"
            told["JAX_NUM_PROCESSES"] = str(self.processes)
            told["JAX_PROCESS_ID"] = str(index)
        return told

    def log_path(self, index: int) -> Path:
        return self.workdir / "logs" / f"process_{index}.log"


def latest_checkpoint(workdir: Path) -> int:
    """The newest whole checkpoint's step, or -1; without opening any."""
    folder = workdir / "checkpoints"
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=-1)


def verdict(codes: Sequence[int]) -> int:
    """What the ends of some processes mean for the run, gravest first; signals are negative."""
    for wanted in (MISTAKE, USAGE, STOPPED):
        if wanted in codes:
            return wanted
    crashes = [code for code in codes if code not in (DONE, RUN_AGAIN)]
    return crashes[0] if crashes else max(codes)


class Supervisor:
    """One run's processes, again and again; `log` takes a line, events go to logs/launch.jsonl."""

    def __init__(self, plan: Plan, log: Callable[[str], None] = print) -> None:
        self.plan, self._log = plan, log
        self._asked: int | None = None  # the signal that this process got
        (plan.workdir / "logs").mkdir(parents=True, exist_ok=True)
        first = plan.log_path(0)
        self._shown = first.stat().st_size if first.exists() else 0

    def run(self) -> int:
        """Runs to the end; the exit code for this process, by the same contract.

        Raises:
          ConfigError: processes of an earlier launch still train in the workdir.
        """
        with (self.plan.workdir / "logs" / "lock").open("w") as lock:
            self._lock = lock.fileno()
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"{self.plan.workdir} is being trained in: processes of an earlier launch are "
                    "still there (their numbers stand in logs/launch.jsonl). End them first."
                ) from None
            before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
            try:
                return self._run()
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        self._asked = number

    def _run(self) -> int:
        plan, tries, newest = self.plan, 0, latest_checkpoint(self.plan.workdir)
        for attempt in range(1, sys.maxsize):
            code = self._once(attempt)
            if code in (DONE, MISTAKE, USAGE, STOPPED):
                return code
            if self._asked is not None:
                return STOPPED if self._asked == signal.SIGINT else RUN_AGAIN
            found = latest_checkpoint(plan.workdir)
            tries = 1 if found > newest else tries + 1
            newest = max(found, newest)
            if tries > plan.restarts:
                self._log(
                    f"Given up: {plan.restarts} restarts in a row reached no newer checkpoint than "
                    f"step {newest}. The reason stands at the end of {plan.log_path(0).parent}/*."
                )
                return MISTAKE
            pause = 0.0 if code == RUN_AGAIN else plan.pause * 2 ** (tries - 1)
            self._wait(min(pause, LONGEST_PAUSE))
            if self._asked is not None:
                return STOPPED if self._asked == signal.SIGINT else RUN_AGAIN
        raise AssertionError("unreachable")

    def _once(self, attempt: int) -> int:
        """Starts all processes and waits for their end: the code that counts."""
        plan, port = self.plan, _free_port()
        children = []
        for index in range(plan.processes):
            with plan.log_path(index).open("ab") as log:
                told = os.environ | plan.environment(index, port)
                child = subprocess.Popen(
                    plan.command, env=told, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    pass_fds=[self._lock],  # held as long as one of them lives
                )  # fmt: skip
                children.append(child)
        self._note(event="start", attempt=attempt, pids=[child.pid for child in children])
        code = verdict(self._watch(children))
        self._note(event="end", attempt=attempt, codes=[child.returncode for child in children])
        self._log(
            f"launch: attempt {attempt} ended with {_name(code)}; "
            f"latest checkpoint {latest_checkpoint(plan.workdir)}"
        )
        return code

    def _watch(self, children: list[subprocess.Popen[bytes]]) -> list[int]:
        """Waits until all have ended; one crash ends all. The codes of those that did so first."""
        told, deadline = None, None
        while True:
            self._show()
            if self._asked != told:
                told = self._asked
                for child in children:
                    child.send_signal(told or signal.SIGTERM)
            ended = [code for child in children if (code := child.poll()) is not None]
            if len(ended) == len(children):
                self._show()
                return ended
            crashed = any(code not in (DONE, RUN_AGAIN, STOPPED) for code in ended)
            if (ended or told) and deadline is None:
                deadline = time.monotonic() + self.plan.grace
            if crashed or (deadline is not None and time.monotonic() > deadline):
                for child in children:
                    child.kill()
                codes = [child.wait() for child in children]
                self._show()
                return ended if crashed else codes
            time.sleep(POLL)

    def _show(self) -> None:
        """Passes on the lines that process 0 wrote since the last call."""
        with self.plan.log_path(0).open("rb") as file:
            file.seek(self._shown)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._shown += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            self._log(line)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._asked is None:
            time.sleep(POLL)

    def _note(self, **event: Any) -> None:
        latest = latest_checkpoint(self.plan.workdir)
        line = {"time": round(time.time(), 3), **event, "checkpoint": latest}
        with (self.plan.workdir / "logs" / "launch.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _name(code: int) -> str:
    names = {DONE: "done", RUN_AGAIN: "run me again", STOPPED: "Ctrl-C"}
    return signal.Signals(-code).name if code < 0 else f"{code} ({names.get(code, 'error')})"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
