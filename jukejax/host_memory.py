"""How much memory this process took."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> bool:
    """Restarts the measure of `peak_bytes`; False where the system cannot do so."""
    try:
        _CLEAR.write_text("5")
        return True
    except OSError:
        return False


def peak_bytes() -> int:
    """Peak resident memory of this process since it started, or since `reset_peak`.

    Read from /proc on Linux, where getrusage's figure includes the peak of the process that started
    this one; elsewhere from getrusage.
    """
    try:
        lines = _STATUS.read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most * (1 if sys.platform == "darwin" else 1024)
