"""A full disk, as every library reports it, as one sentence with the space needed and free."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from jukejax.errors import DiskFull

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def checked_space(target: PathLike, needed: int = 0) -> Iterator[None]:
    """Raises DiskFull, with bytes needed and free, where a library finds no space for `target`.

    Args:
      needed: bytes that are to be written; 0: not known.
    """
    try:
        yield
    except Exception as error:
        free = _free(Path(target))
        if isinstance(error, DiskFull) or not _means_full(error, free):
            raise
        wanted = f"{needed / 1e6:,.1f} MB are needed, " if needed else ""
        raise DiskFull(
            f"{target} cannot be written: no space is left on its disk ({wanted}{free / 1e6:,.1f} "
            "MB are free). Free some and run the same command again; all that was complete before "
            "is kept."
        ) from error


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


def _free(path: Path) -> int:
    """Free bytes on the disk of a file or folder, which may not exist yet."""
    parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(parent).free
