"""How a run spends its time, across stops and crashes; the profiler trace."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from jukejax import code_version, costs, presets
from jukejax.config import VQVAEConfig, VQVAEExperiment
from jukejax.training.clock import STARTS, Clock, Trace, work
from jukejax.training.metrics import MetricsWriter

PRIOR = presets.prior_5b()


class Time:
    """A clock that advances when `now` is changed."""

    def __init__(self, start):
        self.now = float(start)

    def __call__(self):
        return self.now

    def spend(self, clock, on, seconds):
        with clock.waiting(None) if on == "input" else clock.spent(on):
            self.now += seconds


def test_work_of_a_step():
    assert work(PRIOR) == ("tokens", 512 * 8192)
    sound = VQVAEExperiment(model=VQVAEConfig(sample_rate=16_000), samples=128_000)
    assert work(sound) == ("audio_seconds", 256 * 8)


def steps(time, clock, count, each):
    for _ in range(count):
        time.spend(clock, "input", 1)
        time.now += each
        clock.step()


def test_time_is_steps_or_lost(tmp_path):
    time = Time(1000)
    clock = Clock(tmp_path, PRIOR, now=time)
    time.now += 30  # compiling
    steps(time, clock, 1, 0)  # the first step is not timed, nor what was before it
    steps(time, clock, 10, 4)
    time.spend(clock, "checkpoint", 8)
    time.spend(clock, "evaluation", 11)
    found = clock.lap()
    assert time.now == 1100
    assert found["time/step"] == pytest.approx(4)
    assert found["time/tokens_per_second"] == pytest.approx(512 * 8192 / 4)
    assert found["time/goodput"] == pytest.approx(0.40)
    assert found["time/lost_input"] == pytest.approx(0.11)
    assert found["time/lost_checkpoint"] == pytest.approx(0.08)
    assert found["time/lost_evaluation"] == pytest.approx(0.11)
    assert found["time/lost_starts"] == pytest.approx(0.30)
    steps(time, clock, 5, 19)
    later = clock.lap()  # speed is since the last time, shares are of all
    assert later["time/step"] == pytest.approx(19)
    assert later["time/goodput"] == pytest.approx((40 + 95) / 200)
    assert sum(v for k, v in later.items() if "lost" in k or "goodput" in k) == pytest.approx(1)


def test_flops_a_second_and_their_share_of_the_peak(tmp_path, monkeypatch):
    assert jax.device_count() == 8
    flops = 512 * 8192 * 3.0007e10 / 8  # of a token, and a device's share of the batch
    for chip in (None, costs.CHIPS["v5p"]):
        monkeypatch.setattr(costs, "chip_of", lambda kind, chip=chip: chip)
        time = Time(1000)
        clock = Clock(tmp_path, PRIOR, now=time)
        steps(time, clock, 11, 4)
        found = clock.lap()
        assert found["time/flops_per_second"] == pytest.approx(flops / 4, rel=1e-3)
        mfu = None if chip is None else pytest.approx(flops / 4 / 459e12, rel=1e-3)
        assert found.get("time/mfu") == mfu


class Result:
    """The result of a step, ready at `ready_at`."""

    def __init__(self, time, ready_at):
        self.time, self.ready_at = time, ready_at

    def is_ready(self):
        return self.time.now >= self.ready_at

    def block_until_ready(self):
        self.time.now = max(self.time.now, self.ready_at)


def test_time_while_devices_are_busy_is_not_lost(tmp_path):
    time = Time(1000)
    clock = Clock(tmp_path, PRIOR, now=time)
    clock.step()
    for _ in range(10):  # steps of 4 s, while 3 s go by for input
        step = {"loss": Result(time, time.now + 4)}
        clock.step()
        with clock.waiting(step):
            time.now += 3
        jax.block_until_ready(step)
    step = {"loss": Result(time, time.now + 4)}
    clock.step()
    with clock.spent("checkpoint", after=step):
        time.now += 6
    found = clock.lap()
    assert time.now == 1050
    assert found["time/step"] == pytest.approx(4)
    assert found["time/lost_input"] == 0
    assert found["time/lost_checkpoint"] == pytest.approx(6 / 50)


def test_a_later_start_continues_the_times_and_repeated_steps_are_lost(tmp_path):
    time = Time(1000)
    clock = Clock(tmp_path, PRIOR, now=time)
    steps(time, clock, 1, 0)
    steps(time, clock, 10, 9)
    kept = clock.lap()  # at 1101: 90 seconds of steps, 11 of input
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jukejax.training.metrics.time.time", lambda: time.now)
        with MetricsWriter(tmp_path) as writer:
            writer.scalars(10, kept)
    steps(time, clock, 10, 9)  # and killed: no line has these
    time.now = 1300
    again = Clock(tmp_path, PRIOR, now=time)
    steps(time, again, 1, 0)
    steps(time, again, 9, 10)
    found = again.lap()
    assert time.now == 1400
    assert found["time/goodput"] == pytest.approx((90 + 90) / 400)
    assert found["time/lost_input"] == pytest.approx((11 + 10) / 400)
    assert found["time/lost_starts"] == pytest.approx((400 - 180 - 21) / 400)
    starts = [json.loads(line) for line in (tmp_path / STARTS).read_text().splitlines()]
    assert [s["time"] for s in starts] == [1000, 1300]
    assert starts[1]["versions"]["jax"] == jax.__version__
    assert starts[1]["commit"] == code_version.commit() and starts[1]["command"] == sys.argv
    assert starts[1]["devices"] == f"{len(jax.devices())} x cpu"


def test_no_speed_without_a_timed_step(tmp_path):
    clock = Clock(tmp_path, PRIOR, now=Time(0))
    clock.step()
    assert "time/step" not in clock.lap()


def test_other_processes_write_nothing(tmp_path):
    Clock(tmp_path, PRIOR, write=False).lap()
    assert not list(tmp_path.iterdir())


def test_memory_is_of_this_process_not_of_its_parent():
    program = """if True:
        from jukejax.training.clock import memory
        before = memory()
        block = bytearray(300 * 2**20)
        block[::4096] = b"x" * len(block[::4096])
        print(before["host_gib"], memory()["host_gib"], *memory())"""
    ours = bytearray(1200 * 2**20)
    ours[::4096] = b"x" * len(ours[::4096])
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    before, after, *names = output.stdout.decode().split()
    assert float(before) + 0.2 < float(after) < 1.1
    assert "device_gib" not in names  # CPU devices have no counter


def test_a_trace_covers_five_steps_after_those_that_compile(tmp_path):
    double = jax.jit(lambda x: 2 * x)
    with Trace(tmp_path, start=7) as trace:
        for step in range(7, 20):
            result = double(jnp.ones(3))
            trace(step, result)
            running = trace._running
            assert running == (12 <= step < 17)
    (found,) = tmp_path.glob("tensorboard/plugins/profile/*/*.xplane.pb")
    assert found.stat().st_size > 100


def test_a_trace_ends_with_the_run(tmp_path):
    with Trace(tmp_path, start=0) as trace:
        for step in range(7):
            trace(step, jnp.ones(3))
    assert list(tmp_path.glob("tensorboard/plugins/profile/*/*.xplane.pb"))
