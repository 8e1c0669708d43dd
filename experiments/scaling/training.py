"""Rungs trained and measured: the code path of `jukejax train`, then bits of the held-out songs."""

from __future__ import annotations

import dataclasses
import signal
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments.evaluation_data import PreparedCodes
from experiments.scaling.ladder import RATES, RUNGS, SWEEP, Ladder, Row, Rung
from experiments.training import Training, say, training_run
from jukejax import costs
from jukejax.config import PriorConfig, PriorExperiment
from jukejax.errors import ConfigError
from jukejax.evaluation import bootstrap, likelihood, scoring
from jukejax.evaluation.results import spread
from jukejax.parallel.mesh import batch_ways
from jukejax.text.labels import Vocabulary
from jukejax.training import loop
from jukejax.training.loop import Hook
from jukejax.training.metrics import FILE_NAME, read_metrics

EVERY = 10  # steps between looks at the clock
WINDOWS = 8  # that are scored at once
NGRAM = "5-gram"


class Deadline:
    """Stops training after some minutes as SIGTERM does: saved, to be continued."""

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    def hook(self) -> Hook:
        """For the training loop, which reads signals after each step."""

        def check(*_: Any) -> None:
            if self._end is not None and time.monotonic() > self._end:
                signal.raise_signal(signal.SIGTERM)

        return Hook(EVERY, check)


def sweep(asked: Ladder, deadline: Deadline) -> None:
    """Tries `RATES` at the smallest rung, those that the record does not have yet."""
    done = {row["learning_rate"] for row in asked.rows("sweep")}
    for rate in RATES:
        if rate not in done:
            experiment = asked.experiment(RUNGS[0], SWEEP, rate)
            row = _trained(asked, experiment, asked.out / "sweep" / f"{rate:g}", deadline)
            asked.add("sweep", {"rung": RUNGS[0].name, **row})


def run(asked: Ladder, rung: Rung, deadline: Deadline) -> None:
    """Trains a rung, or continues it, and adds its result to the record.

    Raises:
      ConfigError: it is the largest, and there is no forecast of it.
      Preempted: the time is over.
    """
    if asked.result(rung.name):
        say(f"{rung.name}: its result is in {asked.record}.")
        return
    if rung == RUNGS[-1] and not (asked.record / "forecast.json").exists():
        raise ConfigError(
            f"{rung.name} is the largest rung, and nothing was forecast; run "
            "`jukejax scaling fit` and commit its forecast.json first."
        )
    experiment = asked.experiment(rung, rate=asked.rate(rung))
    row = _trained(asked, experiment, asked.out / rung.name, deadline)
    asked.add("results", {"rung": rung.name, **row})


def _trained(asked: Ladder, experiment: PriorExperiment, workdir: Path, deadline: Deadline) -> Row:
    """Trains to the last step; the figures of the run, by its averaged weights."""
    prepared = training_run(Training(asked.data, workdir, experiment), say)
    prepared = dataclasses.replace(prepared, hooks=[*prepared.hooks, deadline.hook()])
    state = loop.train(prepared)
    scorer = scoring.make_scorer(experiment.model, state.ema, prepared.mesh)
    songs: dict[str, list[float]] = {}
    for batch in _windows(asked, experiment.model, batch_ways(prepared.mesh)):
        songs = _added(songs, scorer(batch), batch)
    train = experiment.train
    row = _bits(songs) | {
        "parameters": costs.parameters(experiment),
        "tokens": train.steps * train.batch * experiment.model.n_ctx,
        "steps": train.steps,
        "learning_rate": experiment.optimizer.learning_rate,
        "flops": asked.flops(experiment),
        "seconds": _seconds(workdir),
    }
    say(f"{workdir.name}: {row['bits_per_token']:.4f} bits {spread(row['interval'])}")
    return row


def ngram(asked: Ladder) -> None:
    """Adds the bits of a Kneser-Ney 5-gram of the training codes, on the windows of the rungs."""
    if asked.result(NGRAM):
        say(f"{NGRAM}: its result is in {asked.record}.")
        return
    config = asked.experiment(RUNGS[0]).model
    counted = likelihood.Counted(
        PreparedCodes(asked.data), [config.level], config, most=asked.training_tokens()
    )
    bits = counted.bits(config.level)
    songs: dict[str, list[float]] = {}
    for batch in _windows(asked, config):
        models = bits(batch["codes"])
        if "kn5" not in models:
            raise ConfigError(f"5-grams of {config.codes} codes do not fit into 64 bits.")
        songs = _added(songs, models["kn5"], batch)
    row = {"rung": NGRAM, **_bits(songs), "tokens": sum(map(len, counted.sequences[config.level]))}
    asked.add("results", row)
    say(f"{NGRAM}: {row['bits_per_token']:.4f} bits {spread(row['interval'])}")


def _windows(asked: Ladder, config: PriorConfig, ways: int = 1) -> Any:
    """Batches of all whole windows of the held-out songs, with a progress bar."""
    names, batch = Vocabulary.load(asked.data / "labels.json"), -(-WINDOWS // ways) * ways
    batches = PreparedCodes(asked.data).windows(config, names, "test", batch)
    return tqdm(batches, "held-out songs", unit="batch", disable=None)


def _added(songs: dict[str, list[float]], bits: Any, batch: Any) -> dict[str, list[float]]:
    """[bits, tokens] by song, with those of a batch."""
    valid = batch["valid"]
    for song, (more, tokens) in scoring.by_song(bits[valid], batch["song"][valid]).items():
        before = songs.get(song, [0.0, 0.0])
        songs[song] = [before[0] + more, before[1] + tokens]
    return songs


def _bits(songs: dict[str, list[float]]) -> Row:
    """Bits a token of held-out songs, its 95 % interval over songs, and both sums by song."""
    by_song = {song: (bits / tokens, tokens) for song, (bits, tokens) in songs.items()}
    return {
        "bits_per_token": scoring.mean(songs),
        "interval": bootstrap.interval(by_song),
        "by_song": songs,
    }


def _seconds(workdir: Path) -> float:
    """Seconds that a run spent in training steps."""
    seconds, before = 0.0, 0
    for record in read_metrics(workdir / FILE_NAME):
        if "time/step" in record:
            seconds += record["time/step"] * (record["step"] - before)
            before = record["step"]
    return round(seconds, 1)
