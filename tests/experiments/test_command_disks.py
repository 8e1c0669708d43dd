"""Disks of many sizes, all too small: a command ends with a sentence, and with room finishes.

JUKEJAX_SIZES=N tries N sizes per command, from nearly nothing to nearly enough.
"""

import os
import re
import shutil
import subprocess

import commands
import pytest

from jukejax import exit_codes

pytestmark = pytest.mark.slow
SIZES = int(os.environ.get("JUKEJAX_SIZES", "2"))
ROOM = 256 << 20
NAMES = (
    "prepare build", "encode", "train vqvae", "train prior", "sample", "convert import",
    "export openai", "export huggingface", "export stablehlo",
)  # fmt: skip


@pytest.fixture
def disk(tmp_path):
    """resize(bytes) of an empty disk at `resize.path`, where this machine lets us mount one."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")

    def resize(size):
        subprocess.run(["mount", "-o", f"remount,size={size}", str(path)], check=True)

    resize.path = path
    yield resize
    subprocess.run(["umount", "-l", str(path)], check=True)


def clear(folder):
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_is_too_small_is_a_sentence_and_with_room_the_work_is_done(
    name, server, disk, capsys
):
    out = disk.path
    assert server.run(name, out) == 0, server.log(out)
    whole, used = commands.contents(out), shutil.disk_usage(out).used
    sentences = []
    for number in range(1, SIZES + 1):
        clear(out)
        size = max(used * number // (SIZES + 1), 4096)
        disk(size)
        status, log = server.run(name, out), server.log(out)
        assert status == exit_codes.MISTAKE and "Traceback" not in log, f"{size} bytes: {log}"
        last = log.rstrip("\n").rpartition("\n")[2]
        assert re.match(rf"error: {out}.*no space is left on its disk \(.*B are free\)", last), log
        sentences.append(f"{size:,}: {last}")
        disk(ROOM)
        assert server.run(name, out) == 0, server.log(out)
        assert commands.contents(out) == whole
    with capsys.disabled():
        print(f"\n{name}, {used:,} bytes:", *sentences, sep="\n  ")
