"""How a run spends its time: speed of the steps, and the share of time lost to everything else.

The time of a run is all since its first start. Time not spent on steps that count (a step done
again after a crash counts once) is lost: to input, checkpoints, evaluation, or starts: importing,
compiling, doing again what a crash undid, and waiting to be started.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from jukejax import code_version, costs
from jukejax.config import Experiment, PriorExperiment
from jukejax.host_memory import peak_bytes
from jukejax.training.metrics import FILE_NAME, read_metrics

STARTS = "starts.jsonl"  # a line for each start of a run
LOSSES = ("input", "checkpoint", "evaluation")
GIB = 2**30
Metrics = dict[str, jax.Array]


def work(experiment: Experiment) -> tuple[str, float]:
    """The unit of work of a step, and the number of units."""
    batch = experiment.train.batch
    if isinstance(experiment, PriorExperiment):
        return "tokens", batch * experiment.model.n_ctx
    return "audio_seconds", batch * experiment.samples / experiment.model.sample_rate


def memory() -> dict[str, float]:
    """Peak memory of this process and, where the backend counts it, of its fullest device.

    An evaluation suite measures its own peak, which resets that of the process.
    """
    peaks = [
        (device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()
    ]
    known = [peak for peak in peaks if peak is not None]
    return {"host_gib": peak_bytes() / GIB} | ({"device_gib": max(known) / GIB} if known else {})


class Clock:
    """Seconds of a run by what they were spent on, continued from earlier starts."""

    def __init__(
        self,
        workdir: str | Path,
        experiment: Experiment,
        write: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Reads the times of earlier starts from the metrics, already cut to the steps that count.

        Args:
          workdir: the run's.
          experiment: gives the work and the FLOPs of a step.
          write: whether to note this start in the workdir; on one process only.
          now: gives Unix seconds.
        """
        self._now, (self._unit, self._amount) = now, work(experiment)
        # of one device; recomputation does not count
        self._flops = experiment.train.batch * costs.train_flops(experiment) / jax.device_count()
        self._chip = costs.chip_of(jax.devices()[0].device_kind)
        self._began = _first_start(Path(workdir), now()) if write else now()
        self._spent = dict.fromkeys(("steps", *LOSSES), 0.0)
        records = read_metrics(Path(workdir) / FILE_NAME) if write else []
        last = next((r for r in reversed(records) if "time/goodput" in r), None)
        if last is not None:
            wall = max(last["time"] - self._began, 0.0)
            self._spent |= {name: last[f"time/lost_{name}"] * wall for name in LOSSES}
            self._spent["steps"] = last["time/goodput"] * wall
        self._lap_began: float | None = None
        self._aside = 0.0  # seconds of the lap that were not spent on steps
        self._steps = 0  # of the lap

    @contextlib.contextmanager
    def waiting(self, last: Metrics | None) -> Iterator[None]:
        """Counts the time of the block as input, unless the devices are still busy after it.

        `last` is the result of the last dispatched step: until it is ready, the devices are busy.
        """
        begin = self._now()
        yield
        if last is None or all(x.is_ready() for x in jax.tree.leaves(last)):
            self._count("input", self._now() - begin)

    @contextlib.contextmanager
    def spent(self, on: str, after: Metrics | None = None) -> Iterator[None]:
        """Counts the time of the block, once the step that gives `after` is done."""
        jax.block_until_ready(after)
        begin = self._now()
        yield
        self._count(on, self._now() - begin)

    def _count(self, on: str, seconds: float) -> None:
        self._spent[on] += seconds
        self._aside += seconds

    def step(self) -> None:
        """Counts a dispatched step. The first one only starts the clock: it was compiled."""
        if self._lap_began is None:
            self._lap_began, self._aside = self._now(), 0.0
        else:
            self._steps += 1

    def lap(self) -> dict[str, float]:
        """Speed since the last lap, shares of the run's time, memory. The devices must be idle.

        `flops_per_second` are model FLOPs of one device, and `mfu` their share of its peak, where
        that is known.
        """
        now, metrics = self._now(), {}
        if self._lap_began is not None and self._steps:
            seconds = max(now - self._lap_began - self._aside, 1e-9)
            self._spent["steps"] += seconds
            metrics["time/step"] = seconds / self._steps
            metrics[f"time/{self._unit}_per_second"] = self._amount * self._steps / seconds
            metrics["time/flops_per_second"] = speed = self._flops * self._steps / seconds
            if self._chip is not None:
                metrics["time/mfu"] = speed / self._chip.flops
        self._lap_began, self._aside, self._steps = now, 0.0, 0
        wall = max(now - self._began, 1e-9)
        shares = {name: seconds / wall for name, seconds in self._spent.items()}
        metrics["time/goodput"] = shares.pop("steps")
        metrics |= {f"time/lost_{name}": share for name, share in shares.items()}
        metrics["time/lost_starts"] = max(1 - metrics["time/goodput"] - sum(shares.values()), 0.0)
        return metrics | {f"memory/{name}": value for name, value in memory().items()}


class Trace:
    """A profiler trace of five steps, for the profile page of TensorBoard and for XProf.

    The first steps of a start are left out: they compile.
    """

    AFTER, STEPS = 5, 5

    def __init__(self, workdir: str | Path, start: int) -> None:
        self._folder = Path(workdir) / "tensorboard"
        self._first = start + self.AFTER
        self._running = False

    def __call__(self, step: int, result: Any) -> None:
        """Called after each step was dispatched, with its result."""
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
    """Notes this start; returns the Unix seconds of the first one."""
    path = workdir / STARTS
    note = {
        "time": round(now, 3),
        "processes": jax.process_count(),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "host": socket.gethostname(),
        "command": sys.argv,
        "commit": code_version.commit(),
        "versions": code_version.versions(),
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(note) + "\n")
    return float(json.loads(path.read_text(encoding="utf-8").splitlines()[0])["time"])
