"""The local supervisor: what it restarts, what it ends, what it passes on."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from experiments.launch.supervise import Plan, Supervisor, latest_checkpoint, verdict
from jukejax.config import ConfigError

# behaves as its line in the file `script` says, a line an attempt, a word a process
PROGRAM = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
index = int(os.environ.get("JAX_PROCESS_ID", 0))
events = folder / "logs" / "launch.jsonl"
attempt = events.read_text().count('"end"') if events.exists() else 0
word = (folder / "script").read_text().splitlines()[attempt].split()[index]
print("line of", index, word, flush=True)
if word == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    (folder / f"waits_{index}").touch()
    time.sleep(60)
elif word == "save":
    (folder / "checkpoints" / str(attempt)).mkdir(parents=True)
    sys.exit(70)
elif word.startswith("-"):
    os.kill(os.getpid(), -int(word))
else:
    sys.exit(int(word))
"""


def make(folder, script, **settings):
    (folder / "script").write_text("\n".join(script))
    settings = {"processes": len(script[0].split()), "pause": 0.01, "restarts": 2} | settings
    lines = []
    plan = Plan((sys.executable, "-c", PROGRAM, str(folder)), folder, **settings)
    return Supervisor(plan, lines.append), lines


def attempts(folder):
    return (folder / "logs" / "launch.jsonl").read_text().count('"start"')


@pytest.mark.parametrize(
    ("script", "code", "ran"),
    [
        (["0"], 0, 1),
        (["0 0"], 0, 1),
        (["75 75", "0 0"], 0, 2),
        (["-9 wait", "0 0"], 0, 2),  # one is killed: so is the other
        (["wait 70", "0 0"], 0, 2),
        (["1 wait"], 1, 1),
        (["wait 2"], 2, 1),
        (["130 130"], 130, 1),
        (["70", "-11", "70", "0"], 1, 3),  # two restarts without progress are enough
        (["save", "save", "save", "save", "0"], 0, 5),
    ],
)  # fmt: skip
def test_which_exits_are_restarted(tmp_path, script, code, ran):
    supervisor, lines = make(tmp_path, script)
    assert supervisor.run() == code
    assert attempts(tmp_path) == ran
    assert ("Given up" in "".join(lines)) == (code == 1 and ran == 3)
    events = [json.loads(x) for x in (tmp_path / "logs" / "launch.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events] == ["start", "end"] * ran


def test_a_process_that_does_not_follow_the_others_is_ended(tmp_path):
    supervisor, _ = make(tmp_path, ["75 wait", "0 0"], grace=0.3)
    assert supervisor.run() == 0 and attempts(tmp_path) == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signals_are_passed_on_and_nothing_is_restarted(tmp_path, number, code):
    supervisor, _ = make(tmp_path, ["wait wait"] * 2, grace=5)

    def stop():
        while not all((tmp_path / f"waits_{i}").exists() for i in (0, 1)):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop).start()
    assert supervisor.run() == code and attempts(tmp_path) == 1


def test_two_launches_do_not_train_in_one_workdir(tmp_path):
    """Also where the first launcher was killed, and its processes are still running."""
    source = (
        "import pathlib, sys; from experiments.launch.supervise import Plan, Supervisor; "
        "folder = pathlib.Path(sys.argv[1]); "
        "Supervisor(Plan((sys.executable, '-c', sys.argv[2], str(folder)), folder)).run()"
    )
    (tmp_path / "script").write_text("wait")
    launcher = subprocess.Popen([sys.executable, "-c", source, str(tmp_path), PROGRAM])
    while not (tmp_path / "waits_0").exists():
        assert launcher.poll() is None
        time.sleep(0.01)
    launcher.kill()
    launcher.wait()
    supervisor, _ = make(tmp_path, ["0"])
    with pytest.raises(ConfigError, match="being trained in: processes of an earlier launch"):
        supervisor.run()
    started = json.loads((tmp_path / "logs" / "launch.jsonl").read_text().splitlines()[0])
    os.kill(started["pids"][0], signal.SIGKILL)
    code = None
    while code is None:  # until the kernel has released the lock
        with contextlib.suppress(ConfigError):
            code = supervisor.run()
    assert code == 0


def test_logs_are_kept_and_the_first_process_is_shown(tmp_path):
    supervisor, lines = make(tmp_path, ["75 75", "0 0"])
    supervisor.run()
    for index in (0, 1):
        text = (tmp_path / "logs" / f"process_{index}.log").read_text()
        assert text.splitlines() == [f"line of {index} 75", f"line of {index} 0"]
    assert [x for x in lines if x.startswith("line")] == ["line of 0 75", "line of 0 0"]


def test_the_environment_of_each_process(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1 --xla_force_host_platform_device_count=8")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    variables = Plan(("x",), tmp_path, processes=2, devices=4).environment(1, 4321)
    assert variables["JAX_COORDINATOR_ADDRESS"] == "127.0.0.1:4321"
    assert (variables["JAX_NUM_PROCESSES"], variables["JAX_PROCESS_ID"]) == ("2", "1")
    assert variables["XLA_FLAGS"].startswith("--xla_a=1 ")  # the last of two counts is taken
    assert variables["XLA_FLAGS"].endswith("--xla_force_host_platform_device_count=4")
    assert variables["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "compiled")
    alone = Plan(("x",), tmp_path).environment(0, 4321)
    assert not {"JAX_NUM_PROCESSES", "JAX_PLATFORMS", "XLA_FLAGS"} & alone.keys()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    assert Plan(("x",), tmp_path).environment(0, 1)["JAX_COMPILATION_CACHE_DIR"] == "/elsewhere"


def test_the_gravest_end_counts():
    assert verdict([0, 0]) == 0
    assert verdict([0, 75]) == 75
    assert verdict([75, -9]) == -9
    assert verdict([70, 1, -9]) == 1
    assert verdict([75, 130]) == 130


def test_incomplete_checkpoints_do_not_count(tmp_path):
    assert latest_checkpoint(tmp_path) == -1
    for name in ("5", "10", "15.orbax-checkpoint-tmp"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert latest_checkpoint(tmp_path) == 10
