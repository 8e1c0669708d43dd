"""Times our functions beside those of the PyTorch port of Jukebox, in turn, on the CPU at hand."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jukejax.config import ConfigError, LabelsConfig, PriorConfig

WORKER = Path(__file__).with_name("port_worker.py")
SIZES = {
    "width": 512, "depth": 12, "heads": 2, "context": 2048, "blocks": 32, "artists": 4111,
    "genres": 120, "train_batch": 2, "samples": 440_960, "gradient_samples": 131_072,
}  # fmt: skip


def prior_config() -> PriorConfig:
    """The prior that both sides time: 12 layers, rows, columns and previous rows in turn."""
    return PriorConfig(
        width=SIZES["width"],
        depth=SIZES["depth"],
        heads=SIZES["heads"],
        n_ctx=SIZES["context"],
        blocks=SIZES["blocks"],
        attn_order=2,
        tied_output=True,
        labels=LabelsConfig(artists=SIZES["artists"], genres=SIZES["genres"]),
    )


class Port:
    """The port in a process of another environment, which waits for tasks."""

    def __init__(self, python: Path, tokens: int) -> None:
        """Raises ConfigError where `python` cannot run it."""
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115  (progress bars would fill a pipe)
        try:
            self.process = subprocess.Popen(
                [str(python), str(WORKER)], text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=self.said,
                env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
            )  # fmt: skip
        except OSError as e:
            raise ConfigError(f"--vs-torch {python} cannot be run: {e.strerror}.") from None
        sizes = {**SIZES, "tokens": tokens, "threads": os.cpu_count()}
        self._say(json.dumps(sizes))

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        try:
            print(line, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            self._fail()

    def _fail(self) -> None:
        self.process.wait()
        self.said.seek(0)
        said = self.said.read().strip().splitlines()
        raise ConfigError(
            "The port ended: " + (said[-1] if said else "it said nothing") + "\nIts environment "
            'needs torch==2.13.0 transformers==4.44.2 "numpy<2"; name its interpreter with '
            "--vs-torch."
        )

    def seconds(self, task: str) -> float:
        """Does a task once."""
        self._say(task)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self._fail()
        return float(json.loads(line))

    def close(self) -> None:
        self.process.communicate()
        self.said.close()


def timed(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - began


def measure(
    ours: dict[str, Callable[[], Any]], python: Path | None, tokens: int, rounds: int,
    beside: Callable[[], float] | None = None,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Seconds of each task: ours, then the port's, again and again after one of each unmeasured.

    Args:
      beside: what the machine can do, measured after each of them.

    Returns:
      task -> {"seconds": [...], with `beside` "beside": [...], with a port "port_seconds": [...]
      and "ratio": median of the rounds' port / ours}.
    """
    port = Port(python, tokens) if python else None
    found: dict[str, dict[str, Any]] = {}
    progress = tqdm(total=len(ours) * (rounds + 1), unit="round", disable=None)
    for name, run in ours.items():
        times: list[tuple[float, float, float]] = []
        for _ in range(rounds + 1):
            progress.set_description(name)
            times.append((timed(run), port.seconds(name) if port else 0.0,
                          beside() if beside else 0.0))  # fmt: skip
            progress.update()
        mine, theirs, others = (list(x) for x in zip(*times[1:], strict=True))
        found[name] = {"seconds": mine} | ({"beside": others} if beside else {})
        if port:
            ratio = statistics.median(b / a for a, b in zip(mine, theirs, strict=True))
            found[name] |= {"port_seconds": theirs, "ratio": ratio}
    progress.close()
    if port:
        port.close()
    return found


def line(name: str, work: float, unit: str, row: dict[str, Any]) -> str:
    """A row of the table: medians of work a second, and of the ratio."""
    said = f"{name:28}{work / float(np.median(row['seconds'])):12,.1f}"
    if "ratio" in row:
        port = work / float(np.median(row["port_seconds"]))
        said += f"{port:12,.1f}{row['ratio']:8.2f}x"
    return f"{said}  {unit}"


def head(vs: bool) -> str:
    return f"{'median of rounds':28}{'ours':>12}" + (f"{'port':>12}{'ratio':>9}" if vs else "")
