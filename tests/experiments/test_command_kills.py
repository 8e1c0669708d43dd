"""SIGKILL at random moments of every command that writes: run again, it leaves the same.

JUKEJAX_KILLS=N kills each command N times, JUKEJAX_SEED=N elsewhere.
"""

import os
import random
import shutil
import time

import commands
import pytest

from jukejax import exit_codes, locks

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("JUKEJAX_KILLS", "2"))
SEED = int(os.environ.get("JUKEJAX_SEED", "0"))


@pytest.mark.parametrize("name", commands.LINES)
def test_killed_at_random_moments_it_leaves_the_same(name, server, tmp_path, capsys):
    out, rng = tmp_path / "out", random.Random(f"{SEED} {name}")
    assert server.run(name, out) == 0, server.log(out)  # compiles
    shutil.rmtree(out)
    began = time.monotonic()
    assert server.run(name, out) == 0, server.log(out)
    seconds = time.monotonic() - began
    whole = commands.contents(out)
    kills, lives = 0, 0
    while kills < KILLS:
        shutil.rmtree(out)
        again = 1.0
        while kills < KILLS and rng.random() < again:
            status, lives = server.run(name, out, rng.uniform(0, seconds)), lives + 1
            if status != -9:
                break
            kills, again = kills + 1, 0.5  # half of the lives that follow are killed too
        commands.check_ending(server, server.run(name, out), out)
        assert commands.contents(out) == whole
    with capsys.disabled():
        print(f"\n{name}: {kills} kills of {lives} starts, {seconds:.1f} s, seed {SEED}")


@pytest.mark.parametrize("name", commands.LINES)
def test_while_another_process_writes_there_it_is_refused(name, server, tmp_path):
    target, appears = commands.target(name, tmp_path / "out")
    target.parent.mkdir()
    with locks.replacing(target) if appears else locks.writing(target):
        assert server.run(name, tmp_path / "out") == exit_codes.MISTAKE
        left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    last = server.log(tmp_path / "out").rstrip().rpartition("\n")[2]
    assert last.startswith(f"error: {target} is being written by process {os.getpid()}")
    assert [path.name.endswith(locks.NAME) for path in left] == [True]
