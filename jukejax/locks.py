"""One writer per folder: a lock file names the process that writes there, until it ends.

On one machine the kernel's `flock` decides; a killed process loses it at once. On a shared file
system, where `flock` may not reach other machines, the holder renews the file's modification time
every few seconds, and is taken for dead when it has not done so for two minutes.
"""

import contextlib
import datetime
import fcntl
import functools
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jukejax.disk_space import checked_space
from jukejax.errors import FolderInUse
from jukejax.temporaries import remove_temporaries

NAME = ".lock"
BEAT = 10.0  # seconds between two renewals
DEAD = 120.0  # seconds without a renewal after which a holder on another machine is dead
POLL = 1.0  # seconds between two looks at the lock of another machine


@contextlib.contextmanager
def writing(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Locks a folder that this process writes to; the folder is made if absent.

    Temporary files that a killed writer left there are removed.

    Raises:
      DiskFull: a library found no space there.
      FolderInUse: another process, or another thread of this one, writes there.
    """
    folder = Path(folder)
    is_new = not folder.exists()
    try:
        with checked_space(folder), _hold(folder / NAME, folder):
            remove_temporaries(folder)
            yield
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # not empty, as it mostly is
                folder.rmdir()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[None]:
    """Locks a file, or a folder, that appears when it is complete: by a file beside it.

    Temporary files of it that a killed writer left are removed.

    Raises:
      DiskFull: a library found no space for it.
      FolderInUse: another process, or another thread of this one, writes it.
    """
    with checked_space(path), _hold(path.with_name(f".{path.name}{NAME}"), path):
        remove_temporaries(path.parent, path)
        yield


@contextlib.contextmanager
def _hold(file: Path, target: Path) -> Iterator[None]:
    """Holds the lock `file` of a `target`."""
    descriptor, record = _take(file, target)
    ended = threading.Event()
    beat = threading.Thread(target=_renew, args=(descriptor, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        if _read(descriptor) == record:
            file.unlink(missing_ok=True)
        os.close(descriptor)


def _renew(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        with contextlib.suppress(OSError):  # the file server is away for now
            os.utime(descriptor)


def _take(file: Path, target: Path) -> tuple[int, dict[str, Any]]:
    """The open lock file and the record in it, once no living process holds it."""
    renewed: float | None = None  # when another machine's holder had last renewed it, at first
    while True:
        descriptor, is_new = _open(file)
        try:
            kernel = _flock(descriptor, wait=is_new)  # for others that look at its empty record
            holder, now = _read(descriptor), os.fstat(descriptor).st_mtime
            if kernel is False:
                raise FolderInUse(_sentence(target, file, holder))
            if _is_at(file, descriptor):
                if is_new or _ended(holder, bool(kernel)) or _clock(file.parent) - now > DEAD:
                    return descriptor, _write(descriptor, file)
                if renewed is not None and now != renewed:
                    raise FolderInUse(_sentence(target, file, holder))
                if renewed is None:
                    renewed = now
                    print(
                        f"{_sentence(target, file, holder)} Waiting up to {DEAD:.0f} seconds to "
                        "see whether that process is still running.", file=sys.stderr,
                    )  # fmt: skip
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if renewed is not None:
            time.sleep(POLL)


def _open(file: Path) -> tuple[int, bool]:
    """A lock file, and whether it was made: of several machines, by one alone."""
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            return os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        with contextlib.suppress(FileNotFoundError):  # released in between
            return os.open(file, os.O_RDWR), False


def _flock(descriptor: int, wait: bool) -> bool | None:
    """Whether the kernel gives this process the lock; None: the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(file: Path, descriptor: int) -> bool:
    """Whether an open file is still the one at a path: its holder may just have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _ended(holder: dict[str, Any], kernel: bool) -> bool:
    """Whether a holder on this machine has ended; False for one on another machine."""
    if holder.get("boot") != _boot():
        return False
    if kernel:
        return True
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


@functools.cache
def _boot() -> str:
    """Identifies this machine since its last start."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _clock(folder: Path) -> float:
    """The present time by the clock of a folder's file server."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock-") as file:
        return os.fstat(file.fileno()).st_mtime


def _read(descriptor: int) -> dict[str, Any]:
    """The holder in a lock file; empty while it is being written."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _write(descriptor: int, file: Path) -> dict[str, Any]:
    """Writes this process as the holder; returns what was written."""
    now = datetime.datetime.now(datetime.UTC).isoformat(sep=" ", timespec="seconds")
    record = {"host": socket.gethostname(), "pid": os.getpid(), "since": now, "boot": _boot()}
    try:
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(record).encode(), 0)
    except OSError as error:  # such as a full disk: an empty lock would have to be waited for
        file.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(file)) from error
    return record


def _sentence(target: Path, file: Path, holder: dict[str, Any]) -> str:
    who = "another process"
    if holder:
        who = f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
    return (
        f"{target} is being written by {who} ({file}); wait for its end, end it, or give another "
        "path."
    )
