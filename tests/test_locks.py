"""Locks of folders: one writer, refused with a sentence, taken over from the dead."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jukejax import files, locks
from jukejax.errors import FolderInUse

HOLD = "import sys, time; from jukejax import locks\nwith locks.writing(sys.argv[1]):\n"
HOLD += "    print('held', flush=True); time.sleep(float(sys.argv[2]))"
ELSEWHERE = {"host": "other", "pid": 1, "since": "2026-01-02 03:04:05+00:00", "boot": "another"}


def holder(folder: Path, seconds: float = 600) -> subprocess.Popen[str]:
    """A process that holds the lock of a folder."""
    command = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_with_the_first_ones_name(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = holder(out)
    try:
        with pytest.raises(FolderInUse) as error, locks.writing(out):
            pass
        host = os.uname().nodename
        assert f"{out} is being written by process {process.pid} on {host}, since 2" in str(
            error.value
        )
    finally:
        process.kill()
        process.wait()
    assert (out / locks.NAME).exists()  # killed: it could not remove its lock
    began = time.monotonic()
    with locks.writing(out):
        assert json.loads((out / locks.NAME).read_text())["pid"] == os.getpid()
    assert time.monotonic() - began < 5  # taken over at once
    assert list(out.iterdir()) == []


def test_a_released_lock_leaves_nothing(tmp_path: Path) -> None:
    with locks.writing(tmp_path / "a" / "new"):
        (tmp_path / "a" / "new" / "file").touch()
    assert os.listdir(tmp_path / "a" / "new") == ["file"]
    with pytest.raises(RuntimeError), locks.writing(tmp_path / "a" / "empty"):
        raise RuntimeError
    with locks.writing(tmp_path / "a" / "empty"):  # released after an error too
        pass


def test_another_thread_is_refused_too(tmp_path: Path) -> None:
    refused = []

    def second() -> None:
        try:
            with locks.writing(tmp_path):
                pass
        except FolderInUse as error:
            refused.append(str(error))

    with locks.writing(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 1 and f"process {os.getpid()} " in refused[0]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.1)
    monkeypatch.setattr(locks, "POLL", 0.05)
    monkeypatch.setattr(locks, "DEAD", 2.0)


def test_a_living_holder_on_another_machine_is_refused(tmp_path: Path, quick: None) -> None:
    lock, ended = tmp_path / locks.NAME, threading.Event()
    lock.write_text(json.dumps(ELSEWHERE))
    with open(lock, "r+") as file:
        beat = threading.Thread(target=locks._renew, args=(file.fileno(), ended))
        beat.start()
        refused = pytest.raises(FolderInUse, match="process 1 on other, since 2026-01-02")
        with refused, locks.writing(tmp_path):
            pass
        ended.set()
        beat.join()
    assert json.loads(lock.read_text()) == ELSEWHERE


@pytest.mark.parametrize("content", [json.dumps(ELSEWHERE), "", "[1]", '{"host": 3'])
def test_a_dead_holder_on_another_machine_is_waited_for(
    tmp_path: Path, quick: None, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / locks.NAME).write_text(content)
    began = time.monotonic()
    with locks.writing(tmp_path):
        assert 1.5 < time.monotonic() - began < 10
    assert "Waiting up to 2 seconds" in capsys.readouterr().err


def test_one_that_died_long_ago_is_not_waited_for(tmp_path: Path) -> None:
    lock = tmp_path / locks.NAME
    lock.write_text(json.dumps(ELSEWHERE))
    os.utime(lock, (time.time() - 1000,) * 2)
    began = time.monotonic()
    with locks.writing(tmp_path):
        assert time.monotonic() - began < 5


def test_where_the_file_system_has_no_locks_processes_and_renewals_decide(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_flock", lambda descriptor, wait: None)
    out = tmp_path / "out"
    with locks.writing(out), pytest.raises(FolderInUse), locks.writing(out):
        pass
    process = holder(out)
    process.kill()
    process.wait()
    monkeypatch.setattr(locks, "DEAD", 600)  # by its process alone
    with locks.writing(out):
        pass


def test_of_many_processes_one_writes_at_a_time(tmp_path: Path) -> None:
    """Each retries until it has held the lock, and counts in a file that is read and written."""
    program = """
import sys, time
from pathlib import Path
from jukejax import locks
from jukejax.errors import FolderInUse
counter, turns = Path(sys.argv[1]) / "count", 0
while turns < 20:
    try:
        with locks.writing(sys.argv[1]):
            value = int(counter.read_text()); time.sleep(0.001)
            counter.write_text(str(value + 1)); turns += 1
    except FolderInUse:
        time.sleep(0.001)
"""
    (tmp_path / "count").write_text("0")
    children = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(4)]
    assert [child.wait(60) for child in children] == [0] * 4
    assert (tmp_path / "count").read_text() == "80"


def test_a_folder_that_appears_complete_has_one_writer(tmp_path: Path) -> None:
    with files.atomic_folder(tmp_path / "out") as partial:
        (partial / "kept").touch()
        with pytest.raises(FolderInUse), files.atomic_folder(tmp_path / "out"):
            pass
    assert sorted(os.listdir(tmp_path)) == ["out"] and os.listdir(tmp_path / "out") == ["kept"]


def test_what_a_killed_writer_left_is_removed_once_the_lock_is_held(tmp_path: Path) -> None:
    left = [f".{name}.0123456789ab.tmp.json" for name in ("songs", "songs.old", "b" * 32)]
    theirs = ["songs.json", ".songs.tmp.json", ".songs.0123.tmp.json", "mine.tmp"]
    for name in (*left, *theirs):
        (tmp_path / name).touch()
    with locks.replacing(tmp_path / "songs.json"):
        assert {x.name for x in tmp_path.glob("*")} >= {*left[1:], *theirs}
        assert not (tmp_path / left[0]).exists()
        with (
            files.atomic_path(tmp_path / "songs.json") as live,
            locks.replacing(tmp_path / "other.json"),
        ):
            assert live.exists()
    with locks.writing(tmp_path):
        assert {x.name for x in tmp_path.glob("*")} == {*theirs, locks.NAME}
