"""What the benchmarks share: tasks timed in turn, and processes measured from outside."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jukejax.config import ConfigError

Task = Callable[[], Any]


def timed(task: Task) -> float:
    """Seconds of a task; of one that returns jax arrays, until they are computed."""
    began = time.perf_counter()
    result = task()
    if jax := sys.modules.get("jax"):
        jax.block_until_ready(result)
    return time.perf_counter() - began


def in_turn(tasks: Mapping[str, Task], rounds: int) -> dict[str, list[float]]:
    """Seconds of every task in each round, one after the other, after a first round unmeasured."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for i in tqdm(range(rounds + 1), desc=" / ".join(tasks), unit="round", disable=None):
        for name, task in tasks.items():
            spent = timed(task)
            if i:
                seconds[name].append(spent)
    return seconds


def anonymous_gib(pid: int) -> float:
    """Anonymous resident memory of a process (Linux), which no file backs."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return next((int(x.split()[1]) / 2**20 for x in lines if x.startswith("RssAnon:")), 0.0)


def measured(module: str, arguments: list[str]) -> dict[str, float]:
    """Runs `python -m MODULE ARGUMENTS`; seconds and peak anonymous GiB.

    Raises:
      ConfigError: it failed.
    """
    began, peak = time.perf_counter(), 0.0
    with subprocess.Popen([sys.executable, "-m", module, *arguments]) as process:
        while process.poll() is None:
            peak = max(peak, anonymous_gib(process.pid))
            time.sleep(0.02)
    if process.returncode:
        raise ConfigError(f"{module} {' '.join(arguments)} failed; its message is above.")
    return {"seconds": time.perf_counter() - began, "peak_anonymous_gib": peak}


def spent(name: str, figures: Mapping[str, float]) -> str:
    """A line for a process's figures."""
    seconds, peak = figures["seconds"], figures["peak_anonymous_gib"]
    return f"  {name:8}{seconds:6.1f} s  peak {peak:.2f} GiB of anonymous memory"
