"""Where a run's time goes: speed of steps, and the shares lost to all that is no step.

A run's time is everything since it was first started. What is not steps that count (not done again
after a crash) is lost: to input, to checkpoints, to evaluation, or to starts: importing, compiling,
doing again what a crash undid, and waiting to be started.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from jukejax import costs
from jukejax.config import Experiment, PriorExperiment
from jukejax.host_memory import peak_bytes
from jukejax.training.metrics import FILE_NAME, read_metrics

STARTS = "starts.jsonl"  # a line for each start of a run
LOSSES = ("input", "checkpoint", "evaluation")
GIB = 2**30
Metrics = dict[str, jax.Array]


def work(experiment: Experiment) -> tuple[str, float]:
    """What a step works through: its name, and how much of it."""
    batch = experiment.train.batch
    if isinstance(experiment, PriorExperiment):
        return "tokens", batch * experiment.model.n_ctx
    return "audio_seconds", batch * experiment.samples / experiment.model.sample_rate


def memory() -> dict[str, float]:
    """Peaks of this process and, where the backend counts it, of its fullest device.

    A suite of evaluation counts its own peak, so after one the process's begins anew.
    """
    found = {"host_gib": peak_bytes() / GIB}
    devices = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stats["peak_bytes_in_use"] for stats in devices if "peak_bytes_in_use" in stats]
    return found | ({"device_gib": max(peaks) / GIB} if peaks else {})


class Clock:
    """Seconds of a run by what they were spent on; goes on where an earlier start left off."""

    def __init__(
        self,
        workdir: str | Path,
        experiment: Experiment,
        write: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Reads what `workdir` knows of earlier starts, once steps that do not count are dropped.

        `write` notes this start there; `now` gives Unix seconds.
        """
        self._now, (self._name, self._amount) = now, work(experiment)
        # of one device; nothing that is computed twice counts
        self._flops = experiment.train.batch * costs.train_flops(experiment) / jax.device_count()
        self._chip = costs.chip_of(jax.devices()[0].device_kind)
        self._began = _first_start(Path(workdir), now()) if write else now()
        self._spent = dict.fromkeys(("steps", *LOSSES), 0.0)
        kept = read_metrics(Path(workdir) / FILE_NAME) if write else []
        last = next((r for r in reversed(kept) if "time/goodput" in r), None)
        if last is not None:
            wall = max(last["time"] - self._began, 0.0)
            self._spent |= {name: last[f"time/lost_{name}"] * wall for name in LOSSES}
            self._spent["steps"] = last["time/goodput"] * wall
        self._mark: float | None = None  # since when steps are timed
        self._aside = 0.0  # seconds since then that were no steps
        self._steps = 0

    @contextlib.contextmanager
    def waiting(self, last: Metrics | None) -> Iterator[None]:
        """Books the time of the block on input, unless the devices were at work meanwhile.

        `last` is what the step handed over last will give: while it is not there, the devices
        do not wait.
        """
        begin = self._now()
        yield
        if last is None or all(x.is_ready() for x in jax.tree.leaves(last)):
            self._book("input", self._now() - begin)

    @contextlib.contextmanager
    def spent(self, on: str, after: Metrics | None = None) -> Iterator[None]:
        """Books the time of the block, from when the step that gives `after` is done."""
        jax.block_until_ready(after)
        begin = self._now()
        yield
        self._book(on, self._now() - begin)

    def _book(self, on: str, seconds: float) -> None:
        self._spent[on] += seconds
        self._aside += seconds

    def step(self) -> None:
        """A step has been handed over. The first one only starts the clock: it was compiled."""
        if self._mark is None:
            self._mark, self._aside = self._now(), 0.0
        else:
            self._steps += 1

    def lap(self) -> dict[str, float]:
        """Speed since the last lap, shares of the whole run, memory; the devices are done.

        Model FLOPs a second are of one device, and `mfu` their share of its peak, where known.
        """
        now, found = self._now(), {}
        if self._mark is not None and self._steps:
            took = max(now - self._mark - self._aside, 1e-9)
            self._spent["steps"] += took
            found["time/step"] = took / self._steps
            found[f"time/{self._name}_per_second"] = self._amount * self._steps / took
            found["time/flops_per_second"] = speed = self._flops * self._steps / took
            if self._chip is not None:
                found["time/mfu"] = speed / self._chip.flops
        self._mark, self._aside, self._steps = now, 0.0, 0
        wall = max(now - self._began, 1e-9)
        shares = {name: seconds / wall for name, seconds in self._spent.items()}
        found["time/goodput"] = shares.pop("steps")
        found |= {f"time/lost_{name}": share for name, share in shares.items()}
        found["time/lost_starts"] = max(1 - found["time/goodput"] - sum(shares.values()), 0.0)
        return found | {f"memory/{name}": value for name, value in memory().items()}


class Trace:
    """A trace of five steps, of which TensorBoard's profile page and XProf show every operation.

    The first steps of a start are left out: they compile.
    """

    AFTER, STEPS = 5, 5

    def __init__(self, workdir: str | Path, start: int) -> None:
        self._folder = Path(workdir) / "tensorboard"
        self._first = start + self.AFTER
        self._running = False

    def __call__(self, step: int, result: Any) -> None:
        """Called after each step was handed over; `result` is what it will give."""
        if step == self._first:
            jax.block_until_ready(result)
            jax.profiler.start_trace(self._folder)
            self._running = True
        elif step == self._first + self.STEPS:
            jax.block_until_ready(result)
            self._stop()

    def _stop(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
        self._running = False

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()


def _first_start(workdir: Path, now: float) -> float:
    """Notes this start; Unix seconds of the first one."""
    path = workdir / STARTS
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": round(now, 3), "processes": jax.process_count()}) + "\n")
    return float(json.loads(path.read_text(encoding="utf-8").splitlines()[0])["time"])
