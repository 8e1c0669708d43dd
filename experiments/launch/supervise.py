"""Processes on this machine, restarted as their exit codes (`experiments.cli`) ask for.

The processes of a run compute together: when one of them is gone, all are restarted.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.launch.job import CACHE, FINAL, Job, Target, compiled
from jukejax.config import ConfigError
from jukejax.exit_codes import DONE, MISTAKE, RUN_AGAIN, STOPPED, USAGE

POLL = 0.05  # seconds between two looks at the processes
LONGEST_PAUSE = 60.0


@dataclass(frozen=True, kw_only=True)
class Local(Target):
    """Processes on this machine, supervised.

    Example: jukejax launch demo_vqvae --on local --data D --workdir W --processes 2 --devices 4
    """

    processes: int = 1
    """Processes of the run."""
    devices: int = 0
    """Virtual CPU devices of each; 0: the machine's own. Needed for more than one process."""

    def plan(self, job: Job) -> Plan:
        """What to run.

        Raises:
          ConfigError: several processes, and no virtual devices.
        """
        if self.processes > 1 and not self.devices:
            raise ConfigError(
                f"{self.processes} processes cannot share this machine's devices; give --devices, "
                "the number of virtual CPU devices of each, or one process for all devices."
            )
        return Plan(job.command, job.workdir, self.processes, self.devices, self.restarts)


@dataclass(frozen=True)
class Plan:
    """What to run, how often, and when to give up."""

    command: tuple[str, ...]
    workdir: Path
    processes: int = 1
    devices: int = 0  # virtual CPU devices of each process; 0: the machine's own
    restarts: int = 10  # in a row without a newer checkpoint
    pause: float = 1.0  # seconds before the second try; doubled each time
    grace: float = 120.0  # seconds that the others have to end when one process has ended well

    def environment(self, index: int, port: int) -> dict[str, str]:
        """Variables of process `index`, beside those of this process."""
        cache = os.environ.get(CACHE, str(compiled(self.workdir)))
        variables = {"PYTHONUNBUFFERED": "1", CACHE: cache}
        if self.devices:
            count = f"--xla_force_host_platform_device_count={self.devices}"
            variables["JAX_PLATFORMS"] = "cpu"
            variables["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {count}".strip()
        if self.processes > 1:
            variables["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{port}"
            variables["JAX_NUM_PROCESSES"] = str(self.processes)
            variables["JAX_PROCESS_ID"] = str(index)
        return variables

    def log_path(self, index: int) -> Path:
        return self.workdir / "logs" / f"process_{index}.log"


def latest_checkpoint(workdir: Path) -> int:
    """The step of the newest complete checkpoint, or -1; opens none."""
    folder = workdir / "checkpoints"
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=-1)


def verdict(codes: Sequence[int]) -> int:
    """The exit code of a run from those of its processes, gravest first; signals are negative."""
    for final in (MISTAKE, USAGE, STOPPED):
        if final in codes:
            return final
    crashes = [code for code in codes if code not in (DONE, RUN_AGAIN)]
    return crashes[0] if crashes else max(codes)


class Supervisor:
    """Runs and restarts the processes of one run; `log` takes a line.

    Events are appended to logs/launch.jsonl.
    """

    def __init__(self, plan: Plan, log: Callable[[str], None] = print) -> None:
        self.plan, self._log = plan, log
        self._signal: int | None = None  # SIGINT or SIGTERM that this process received
        (plan.workdir / "logs").mkdir(parents=True, exist_ok=True)
        first = plan.log_path(0)
        self._shown = first.stat().st_size if first.exists() else 0  # bytes of the first log

    def run(self) -> int:
        """Runs to the end; the exit code for this process.

        Raises:
          ConfigError: processes of an earlier launch are still training in the workdir.
        """
        with (self.plan.workdir / "logs" / "lock").open("w") as lock:
            self._lock = lock.fileno()
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"{self.plan.workdir} is being trained in: processes of an earlier launch are "
                    "still there (logs/launch.jsonl has their process ids). End them first."
                ) from None
            before = {s: signal.signal(s, self._receive) for s in (signal.SIGINT, signal.SIGTERM)}
            try:
                return self._run()
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        self._signal = number

    def _run(self) -> int:
        plan, tries, attempt = self.plan, 0, 0
        newest = latest_checkpoint(plan.workdir)
        while True:
            attempt += 1
            code = self._attempt(attempt)
            if code in FINAL:
                return code
            latest = latest_checkpoint(plan.workdir)
            tries = 1 if latest > newest else tries + 1
            newest = max(latest, newest)
            if self._signal is None and tries > plan.restarts:
                self._log(
                    f"Given up: {plan.restarts} restarts in a row reached no newer checkpoint than "
                    f"step {newest}. See the ends of the logs in {plan.log_path(0).parent}."
                )
                return MISTAKE
            pause = 0.0 if code == RUN_AGAIN else plan.pause * 2 ** (tries - 1)
            self._wait(min(pause, LONGEST_PAUSE))
            if self._signal is not None:
                return STOPPED if self._signal == signal.SIGINT else RUN_AGAIN

    def _attempt(self, attempt: int) -> int:
        """Starts all processes and waits for their end: the exit code that counts."""
        plan, port = self.plan, _free_port()
        children = []
        for index in range(plan.processes):
            with plan.log_path(index).open("ab") as log:
                child = subprocess.Popen(
                    plan.command, env=os.environ | plan.environment(index, port),
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    pass_fds=[self._lock],  # locked until the last of them ends
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
        """Waits until all processes have ended, and ends all after a crash of one.

        The exit codes: after a crash, of the processes that ended by themselves.
        """
        passed_on, deadline = None, None
        while True:
            self._show()
            if self._signal is not None and self._signal != passed_on:
                passed_on = self._signal
                for child in children:
                    child.send_signal(passed_on)
            ended = [code for child in children if (code := child.poll()) is not None]
            if len(ended) == len(children):
                self._show()
                return ended
            crashed = any(code not in (DONE, RUN_AGAIN, STOPPED) for code in ended)
            if (ended or passed_on) and deadline is None:
                deadline = time.monotonic() + self.plan.grace
            if crashed or (deadline is not None and time.monotonic() > deadline):
                for child in children:
                    child.kill()
                codes = [child.wait() for child in children]
                self._show()
                return ended if crashed else codes
            time.sleep(POLL)

    def _show(self) -> None:
        """Logs the complete lines that process 0 wrote since the last call."""
        with self.plan.log_path(0).open("rb") as file:
            file.seek(self._shown)
            new = file.read()
        complete = new[: new.rfind(b"\n") + 1]
        self._shown += len(complete)
        for line in complete.decode(errors="replace").splitlines():
            self._log(line)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._signal is None:
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
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        return int(port.getsockname()[1])
