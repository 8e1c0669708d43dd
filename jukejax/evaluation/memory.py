"""How much memory a stretch of a process took, where Linux tells."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> bool:
    """Lets `peak_mib` begin anew; False where the system cannot, so that all time is counted."""
    try:
        _CLEAR.write_text("5")
        return True
    except OSError:
        return False


def peak_mib() -> float:
    """Most resident memory of this process since `reset_peak`, in MiB."""
    try:
        lines = _STATUS.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (1024**2 if sys.platform == "darwin" else 1024)
