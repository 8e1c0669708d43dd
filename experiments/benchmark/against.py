"""Times our functions and those of the PyTorch port of Jukebox, in turn, on the CPU at hand."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.benchmark.timing import Task, in_turn
from jukejax.config import ConfigError, LabelsConfig, PriorConfig
from jukejax.formatting import table

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
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (output would fill a pipe)
        try:
            self.process = subprocess.Popen(
                [str(python), str(WORKER)], text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=self.errors,
                env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
            )  # fmt: skip
        except OSError as e:
            raise ConfigError(f"--vs-torch {python} cannot be run: {e.strerror}.") from None
        self._send(json.dumps({**SIZES, "tokens": tokens, "threads": os.cpu_count()}))

    def _send(self, line: str) -> None:
        assert self.process.stdin is not None
        try:
            print(line, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            self._fail()

    def _fail(self) -> None:
        self.process.wait()
        self.errors.seek(0)
        message = self.errors.read().strip().splitlines()
        raise ConfigError(
            "The port ended: " + (message[-1] if message else "without a message") + "\nIts "
            'environment needs torch==2.13.0 transformers==4.44.2 "numpy<2"; name its interpreter '
            "with --vs-torch."
        )

    def run(self, task: str) -> None:
        """Does a task once."""
        self._send(task)
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            self._fail()

    def close(self) -> None:
        self.process.communicate()
        self.errors.close()


def compare(
    tasks: Mapping[str, Task], python: Path | None, tokens: int, rounds: int,
    more: Mapping[str, Task],
) -> dict[str, dict[str, list[float]]]:  # fmt: skip
    """Seconds of each task in each round: "ours", the "port"'s if there is one, those of `more`.

    Args:
      python: of the port's environment.
      tokens: that the port samples of a window.
      more: what is timed in turn with each task, such as the machine's memory.
    """
    port = Port(python, tokens) if python else None
    seconds = {}
    for name, task in tasks.items():
        turns = {"ours": task, **more}
        if port:
            turns["port"] = lambda name=name: port.run(name)  # type: ignore[misc]
        seconds[name] = in_turn(turns, rounds)
    if port:
        port.close()
    return seconds


def lines(work: Mapping[str, tuple[float, str]], seconds: Mapping[str, Any]) -> list[str]:
    """A table: medians of work a second, and of the rounds' ratios.

    Args:
      work: of each task, and its unit.
    """
    rows = []
    for name, row in seconds.items():
        amount, unit = work[name]
        cells = [name, f"{amount / statistics.median(row['ours']):,.1f}"]
        if "port" in row:
            ratios = [b / a for a, b in zip(row["ours"], row["port"], strict=True)]
            cells.append(f"{amount / statistics.median(row['port']):,.1f}")
            cells.append(f"{statistics.median(ratios):.2f}x")
        rows.append([*cells, unit])
    head = ["median of rounds", "ours", "port", "ratio", ""]
    return [table(head if "port" in row else [*head[:2], ""], rows)]
