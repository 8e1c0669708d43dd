"""Runs that are killed at random and started again end as uninterrupted ones, bit for bit."""

import contextlib
import os
import random
import signal
import sys
import threading
import time

import jax
import numpy as np
import pytest
from processes import ROOT, TINY_RUN, lines, saved, without_times

from experiments.launch.supervise import Plan, Supervisor
from jukejax import exit_codes

pytestmark = pytest.mark.slow
STEPS = 200


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """The children choose their devices themselves."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def plan(workdir, kind, **train):
    fields = [f"{name}={value}" for name, value in train.items()]
    command = (sys.executable, str(TINY_RUN), kind, str(workdir), *fields)
    return Plan(command, workdir, processes=2, devices=1, pause=0.1)


def events(workdir):
    return lines(workdir / "logs" / "launch.jsonl")


def last_step(workdir):
    found = lines(workdir / "metrics.jsonl")
    return found[-1]["step"] if found else 0


class Killer(threading.Thread):
    """Kills a process of a run at given steps, in given ways, and logs it."""

    def __init__(self, workdir, kills, seed):
        super().__init__(daemon=True)
        self.workdir, self.kills, self.random = workdir, kills, random.Random(seed)
        self.log = []

    def run(self):
        for after, how in self.kills:
            self.wait(lambda after=after: last_step(self.workdir) >= after)
            if how == "saving":
                self.wait(self.is_saving)
            started = [e for e in events(self.workdir) if e["event"] == "start"][-1]
            which = self.random.randrange(len(started["pids"]))
            number = signal.SIGTERM if how == "term" else signal.SIGKILL
            saving = self.is_saving()
            os.kill(started["pids"][which], number)
            self.log.append(
                f"attempt {started['attempt']}: {number.name} to process {which} at step "
                f"{last_step(self.workdir)}" + (" while saving" if saving else "")
            )
            seen = len(events(self.workdir))
            self.wait(lambda seen=seen: len(events(self.workdir)) >= seen + 2)

    def is_saving(self):
        """Whether a checkpoint is being written (remains of earlier attempts do not count)."""
        begun = [e["time"] for e in events(self.workdir) if e["event"] == "start"][-1]
        with contextlib.suppress(FileNotFoundError):  # finished while it was looked at
            parts = (self.workdir / "checkpoints").glob("*tmp*")
            return any(p.stat().st_mtime > begun for p in parts)
        return False

    @staticmethod
    def wait(true):
        while not true():
            time.sleep(0.01)


def test_a_run_killed_five_times_ends_as_the_uninterrupted_one(tmp_path, capsys):
    train = {"steps": STEPS, "checkpoint_every": 20, "evaluate_every": 10_000}
    chance = random.Random(time.time_ns())
    seed = chance.randrange(10**6)
    chance.seed(seed)
    ways = ["term", "kill", "saving", "term", "saving"]
    chance.shuffle(ways)
    after = sorted(chance.sample(range(5, STEPS - 25), len(ways)))
    killer = Killer(tmp_path / "killed", list(zip(after, ways, strict=True)), seed)
    (tmp_path / "killed" / "checkpoints").mkdir(parents=True)

    said = []
    killer.start()
    began = time.monotonic()
    code = Supervisor(plan(tmp_path / "killed", "pair", **train), said.append).run()
    took = time.monotonic() - began
    killer.join(1)
    whole = Supervisor(plan(tmp_path / "whole", "pair", **train), [].append).run()

    with capsys.disabled():
        print(f"\nseed {seed}, {took:.0f} s")
        for line in killer.log + [x for x in said if x.startswith("launch") or "Stopped" in x]:
            print(" ", line)
    assert code == whole == 0
    assert len(killer.log) == 5
    expected, found = saved(tmp_path / "whole"), saved(tmp_path / "killed")
    assert expected[0] == found[0] == STEPS
    jax.tree.map(np.testing.assert_array_equal, found[1], expected[1])
    records = [
        [without_times(r) for r in lines(tmp_path / name / "metrics.jsonl")]
        for name in ("whole", "killed")
    ]
    assert [r["step"] for r in records[0] if "train/loss" in r] == list(range(1, STEPS + 1))
    assert records[0] == records[1]


def test_a_process_that_hangs_is_noticed_and_the_run_ends_as_the_uninterrupted_one(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("TINY_LEAST", "8")
    run = plan(tmp_path / "stopped", "pair", steps=80, checkpoint_every=20)
    stopper = threading.Thread(target=stop_one, args=(run.workdir, 25))
    stopper.start()
    began = time.monotonic()
    assert Supervisor(run).run() == 0
    stopper.join()
    print(f"seconds with a process that was stopped at step 25: {time.monotonic() - began:.0f}")
    (stacks,) = (run.workdir / "hangs").iterdir()
    assert "No progress: a " in stacks.read_text() and "in train\n" in stacks.read_text()
    assert "process_0" in stacks.name  # it waits for the other one
    starts = [e for e in events(run.workdir) if e["event"] == "start"]
    ends = [e["codes"] for e in events(run.workdir) if e["event"] == "end"]
    assert len(starts) == 2 and exit_codes.CRASH in ends[0] and ends[1] == [0, 0]

    whole = plan(tmp_path / "whole", "pair", steps=80, checkpoint_every=20)
    assert Supervisor(whole).run() == 0
    assert not (whole.workdir / "hangs").exists()
    (step, found), (wanted, expected) = saved(run.workdir), saved(whole.workdir)
    assert step == wanted == 80
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def stop_one(workdir, step):
    """Stops process 1 for good, at a step."""
    Killer.wait(lambda: last_step(workdir) >= step)
    pid = [e for e in events(workdir) if e["event"] == "start"][-1]["pids"][1]
    os.kill(pid, signal.SIGSTOP)
