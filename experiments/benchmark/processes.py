"""Processes that a benchmark measures from outside."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from jukejax.config import ConfigError


def anonymous_gib(pid: int) -> float:
    """Anonymous resident memory of a process (Linux): what no file can take the place of."""
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
