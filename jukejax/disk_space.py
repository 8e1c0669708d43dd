"""A full disk, as every library reports it, as one sentence with the space needed and free."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jukejax.errors import DiskFull

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def checked_space(target: PathLike, needed: int = 0) -> Iterator[None]:
    """Raises DiskFull, with bytes needed and free, where there is no space for `target`.

    That is before the block if fewer than `needed` bytes are free, else where a library in the
    block reports a full disk.

    Args:
      needed: bytes that are to be written; 0: not known.
    """
    path = Path(target)
    disk = _disk(path)
    if disk.total and disk.free < needed:  # total is 0 where a file system does not tell
        raise _full(path, needed)
    try:
        yield
    except Exception as error:
        if isinstance(error, DiskFull) or not _means_full(error, _disk(path).free):
            raise
        raise _full(path, needed) from error


def _full(path: Path, needed: int) -> DiskFull:
    free = _disk(path).free
    wanted = f"{_size(needed)} are needed, " if needed > free else ""  # else: temporaries are gone
    return DiskFull(
        f"{path} cannot be written: no space is left on its disk ({wanted}"
        f"{_size(free)} are free). Free some and run the same command again; all that "
        "was complete before is kept."
    )


def _size(n: int) -> str:
    return f"{n / 1e6:,.1f} MB" if n >= 1e6 else f"{n / 1e3:.0f} kB"


def _means_full(error: Exception, free: int) -> bool:
    """Whether an error is that of a full disk.

    ArrayRecord raises RuntimeError and Orbax ValueError, with the system's words in their texts;
    libsndfile says "System error" and nothing else. SQLite has words of its own.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    words = [os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "database or disk is full"]
    nearly = free < 1 << 20 and type(error).__name__ == "LibsndfileError"
    return nearly or any(word in str(error) for word in words)


def _disk(path: Path) -> Any:
    """Total, used and free bytes of the disk of a file or folder, which may not exist yet."""
    parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(parent)
