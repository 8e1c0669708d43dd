"""How much memory this process took."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> bool:
    """Lets `peak_bytes` begin anew; False where the system cannot, so that all time is counted."""
    try:
        _CLEAR.write_text("5")
        return True
    except OSError:
        return False


def peak_bytes() -> int:
    """Most resident memory of this process since it began, or since `reset_peak`.

    Linux tells it in /proc. Elsewhere it is getrusage's, which on Linux would begin with the peak
    of the process that started this one.
    """
    try:
        lines = _STATUS.read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most * (1 if sys.platform == "darwin" else 1024)
