"""A full disk, as every library reports it, is one sentence; with room, the work is finished."""

import contextlib
import errno
import os
import sqlite3
import subprocess

import numpy as np
import pytest
import soundfile

from data_pipeline import records
from jukejax import files
from jukejax.disk_space import checked_space
from jukejax.errors import DiskFull
from jukejax.sampling.sample_dir import SampleDir
from jukejax.training.checkpoint import Checkpoints


@pytest.fixture
def disk(tmp_path):
    """A disk of 1 MiB, where this machine lets us mount one."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def noise(n):
    return np.random.default_rng(0).uniform(-0.5, 0.5, n).astype(np.float32)


def save_checkpoint(disk):
    with Checkpoints(disk / "run") as checkpoints:
        checkpoints.save(1, {"params": {"a": noise(1 << 20)}}, {"x": 1})


def write_shard(disk):
    audio = (noise(1 << 20) * 1000).astype(np.int16).reshape(-1, 2)
    rows = ({"id": "a", "offset": 0, "n_samples": 1, "audio": audio} for _ in range(4))
    records.write_shard(disk / "shard", rows)


def write_arrays(disk):
    with files.atomic_path(disk / "codes.npz") as file:
        np.savez(file, codes=noise(1 << 20))


def write_sound(disk):
    sample = SampleDir.__new__(SampleDir)
    sample.path, sample.record = disk, {"items": [{}], "sample_rate": 44100, "seconds": 1}
    sample.add_sound(0, noise(1 << 20)[None], first=True)
    sample.finish_sound(0)


@pytest.mark.parametrize("write", [save_checkpoint, write_shard, write_arrays, write_sound])
def test_a_full_disk_is_a_sentence_and_with_room_the_work_is_done(disk, write):
    words = r"no space is left on its disk \((\d.* are needed, )?\d.* [kM]B are free\)"
    with pytest.raises(DiskFull, match=f"{disk}.*{words}") as e:
        write(disk)
    assert "\n" not in str(e.value)
    assert (" are needed, " in str(e.value)) == (write not in (write_shard, write_arrays))
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    write(disk)
    if write is write_sound:
        assert soundfile.info(disk / "level_0" / "item_0.wav").frames == 1 << 20


def test_a_full_disk_leaves_no_temporary_file_and_no_lock(disk):
    with contextlib.suppress(OSError), open(disk / "filler", "wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    with pytest.raises(DiskFull):
        files.write_bytes(disk / "a", b"x")
    with (
        pytest.raises(DiskFull, match="new cannot be written"),
        files.atomic_folder(disk / "new"),
    ):
        pass
    assert os.listdir(disk) == ["filler"]


@pytest.mark.parametrize(
    "error, full",
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (RuntimeError("write() failed: No space left on device; at byte 9"), True),
        (sqlite3.OperationalError("database or disk is full"), True),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (RuntimeError("another error"), False),
    ],
)
def test_only_a_full_disk_is_called_one(tmp_path, error, full):
    with pytest.raises(DiskFull if full else type(error)), checked_space(tmp_path / "a"):
        raise error


def test_the_space_needed_is_not_said_where_more_has_become_free(tmp_path):
    with pytest.raises(DiskFull) as e, checked_space(tmp_path / "a", 36_000):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "are needed" not in str(e.value) and "are free" in str(e.value)
