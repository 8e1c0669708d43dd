"""A process that makes no progress ends itself, and says where it hangs."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jukejax import exit_codes
from jukejax.config import ConfigError, TrainConfig
from jukejax.training import watchdog
from jukejax.training.watchdog import Watchdog

TICK = 0.02


class Ended:
    """Takes the place of `os._exit`."""

    def __init__(self):
        self.code, self.when = None, threading.Event()

    def __call__(self, code):
        self.code = code
        self.when.set()


def watched(folder, ended, **more):
    options = {"first": 60.0, "least": 0.2, "tick": TICK} | more
    return Watchdog(folder, 3, options.pop("first"), ended, **options)


def test_work_that_takes_long_ends_the_process_and_leaves_its_stacks(tmp_path, capfd):
    ended = Ended()
    with watched(tmp_path, ended) as dog:
        for _ in range(3):
            dog.begins("a step")
        hangs_here(ended)
    assert ended.code == exit_codes.CRASH
    (file,) = (tmp_path / watchdog.FOLDER).glob("*_process_3.txt")
    for text in (file.read_text(), capfd.readouterr().err):
        assert "No progress: a step has taken" in text and "at most 0s before" in text
        assert "hangs_here" in text


def hangs_here(ended):
    assert ended.when.wait(20)


def test_the_first_work_of_a_kind_and_what_is_no_step_may_take_longer(tmp_path):
    ended = Ended()
    with watched(tmp_path, ended, first=0.5) as dog:
        dog.begins("a step")
        dog.begins("an evaluation")
        began = time.monotonic()
        assert ended.when.wait(20)
        assert time.monotonic() - began > 0.45
    ended = Ended()
    with watched(tmp_path, ended) as dog:
        for kind in (*["a step"] * 3, "an evaluation", "a step", "an evaluation"):
            dog.begins(kind)
        assert not ended.when.wait(1.0)  # 60 s, not the 0.2 s of a step


def test_a_step_after_an_evaluation_may_wait_for_another_process(tmp_path):
    ended = Ended()
    with watched(tmp_path, ended) as dog:
        for kind in (*["a step"] * 3, "an evaluation", "a step"):
            dog.begins(kind)
        assert not ended.when.wait(1.0)
        dog.begins("a step")
        assert ended.when.wait(20)


def test_work_may_take_ten_times_the_longest_of_its_kind(tmp_path):
    ended = Ended()
    with watched(tmp_path, ended) as dog:
        dog.begins("a step")
        dog.begins("a step")
        time.sleep(0.3)
        for _ in range(3):  # short ones after it change nothing
            dog.begins("a step")
        assert not ended.when.wait(2.0)
        assert ended.when.wait(20)


def test_nothing_is_watched_where_the_time_is_0(tmp_path):
    ended = Ended()
    with watched(tmp_path, ended, first=0.0) as dog:
        for _ in range(3):
            dog.begins("a step")
        assert not ended.when.wait(0.5)
    assert not list(tmp_path.iterdir())


def test_a_run_that_has_ended_is_no_longer_watched(tmp_path):
    ended = Ended()
    with watched(tmp_path, ended) as dog:
        for _ in range(3):
            dog.begins("a step")
    assert not ended.when.wait(0.5)


STOPPED = """
import sys, time
from jukejax.training.watchdog import Watchdog
with Watchdog(sys.argv[1], 0, 60.0, least=1.5, tick=0.1) as dog:
    for _ in range(3):
        dog.begins("a step")
    print("ready", flush=True)
    for _ in range(14):  # one long sleep would be over with the stop
        time.sleep(0.05)
print("whole", flush=True)
"""


def test_time_in_which_the_process_is_stopped_does_not_count(tmp_path):
    command = [sys.executable, "-c", STOPPED, str(tmp_path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    os.kill(child.pid, signal.SIGSTOP)
    time.sleep(3.0)
    os.kill(child.pid, signal.SIGCONT)
    assert child.communicate(timeout=60)[0] == "whole\n" and child.returncode == 0


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(seconds):
    with pytest.raises(ConfigError, match=r"train\.hang_seconds is"):
        TrainConfig(hang_seconds=seconds)
