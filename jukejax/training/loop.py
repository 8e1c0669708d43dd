"""The loop that trains everything: resume, step, log, evaluate, run hooks, save, stop if asked."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jukejax.config import Experiment, to_dict
from jukejax.errors import Diverged, Interrupted, Preempted
from jukejax.formatting import format_seconds
from jukejax.models import lora
from jukejax.parallel import distributed
from jukejax.parallel.mesh import HostBatch, put_batch, replicated
from jukejax.training import rollback
from jukejax.training.checkpoint import Checkpoints, open_existing
from jukejax.training.clock import Clock, Trace
from jukejax.training.growing import restore_grown
from jukejax.training.metrics import MetricsWriter, Progress
from jukejax.training.rounding import stored
from jukejax.training.step import (
    TrainState,
    abstract_state,
    adopt_state,
    create_state,
    make_eval_step,
    make_train_step,
    new_spikes,
)
from jukejax.training.stopping import Skips, StopSignal
from jukejax.training.tasks import make_task
from jukejax.training.watchdog import STEP, Watchdog


class Hook(NamedTuple):
    """A function that is called after every `every` steps, and after the last one."""

    every: int
    run: Callable[[int, TrainState, MetricsWriter], None]  # step, state after it, the run's metrics


@dataclass(frozen=True)
class Run:
    """What `train` trains, on which devices and data, and where it writes.

    Attributes:
      experiment: model, optimizer and length of the run.
      mesh: the devices.
      workdir: gets `checkpoints/`, `metrics.jsonl` and `tensorboard/`.
      batches: this host's batches from a given step on.
      held_out: this host's batches to evaluate the averaged parameters on.
      hooks: called on the way.
      note: saved beside the experiment in each checkpoint's config.
      extra: the state without gradients that a new run starts with, where its data does not give
        it: what is frozen of a renderer.
      start_from: workdir of a run whose averaged parameters a new run starts from; tables of label
        names that are smaller there are grown.
      log: takes a line of progress, on process 0.
      profile: whether to write a trace of some steps to `tensorboard/`.
    """

    experiment: Experiment
    mesh: Mesh
    workdir: str | Path
    batches: Callable[[int], Iterator[HostBatch]]
    held_out: Callable[[], Iterator[HostBatch]] | None = None
    hooks: Sequence[Hook] = ()
    note: Mapping[str, Any] = field(default_factory=dict)
    extra: Any = None
    start_from: str | Path | None = None
    log: Callable[[str], None] = print
    profile: bool = False


def train(run: Run) -> TrainState:
    """Trains to `experiment.train.steps`, from the latest checkpoint in the workdir if any.

    Raises:
      Interrupted: on Ctrl-C or SIGTERM (`Preempted`) in any process, in all of them, after saving.
      FolderInUse: another process trains in the workdir.
      Diverged: too many steps in a row were skipped, and it may not go back (`train.rollbacks`).
    """
    while True:
        try:
            return _train(run)
        except Diverged as error:
            log = run.log if jax.process_index() == 0 else lambda line: None
            if not rollback.go_back(run.workdir, run.experiment.train.rollbacks, error, log):
                raise


def _train(run: Run) -> TrainState:
    """`train` without going back."""
    t, mesh, task = run.experiment.train, run.mesh, make_task(run.experiment)
    first = jax.process_index() == 0
    log = run.log if first else lambda line: None
    with contextlib.ExitStack() as stack:
        watchdog = stack.enter_context(Watchdog(run.workdir, jax.process_index(), t.hang_seconds))
        watchdog.begins("the start")
        stack.enter_context(distributed.writing(run.workdir))
        checkpoints = stack.enter_context(
            Checkpoints(run.workdir, t.keep, keep_best=t.keep_best, clean=True)
        )
        checkpoints.set_aside_damaged(log)
        if checkpoints.latest is not None and checkpoints.latest >= t.steps:
            log(f"{run.workdir}: already trained for {checkpoints.latest} steps.")
        elif checkpoints.latest is not None:
            log(f"Continuing from step {checkpoints.latest} of {t.steps}.")
        state, source = begin(run, checkpoints)
        config = {"experiment": to_dict(run.experiment), "run": _run_name(checkpoints), **run.note}
        done = int(state.step)
        writer = stack.enter_context(MetricsWriter(run.workdir, resume_step=done, write=first))
        stop = stack.enter_context(StopSignal())
        clock, agree = Clock(run.workdir, run.experiment, first), distributed.Agreement(mesh)
        skips = Skips(t.max_skipped, run.workdir)
        step_fn = make_train_step(task, run.experiment, mesh)
        eval_fn = make_eval_step(task, run.experiment, mesh)
        progress, means, metrics = Progress(t.steps, log), Means(), None
        trace = stack.enter_context(Trace(run.workdir, done)) if run.profile and first else None
        step_kind = "a step, maybe traced" if run.profile else STEP

        def due(every: int) -> bool:
            return done % every == 0 or done == t.steps

        while done < t.steps:
            watchdog.begins("the first step" if metrics is None else step_kind)
            with clock.waiting(metrics):
                batch = put_batch(mesh, next(source))
            if metrics is None:
                state, metrics = first_step(step_fn, state, batch, log)
                progress.start(done + 1)
            else:
                state, metrics = step_fn(state, batch)
            clock.step()
            if trace is not None:
                trace(done, metrics)
            done += 1
            means.add(metrics)
            skips(done, metrics["skipped"])
            if due(t.log_every):
                values = means.take()
                writer.scalars(done, values | clock.lap())
                progress.update(done, {"loss": values["train/loss"]})
            held_out = None
            if run.held_out is not None and due(t.evaluate_every):
                watchdog.begins("an evaluation")
                with clock.spent("evaluation", after=metrics):
                    held_out = evaluate(eval_fn, state, mesh, run.held_out(), t.evaluate_batches)
                    writer.scalars(done, {f"held_out/{k}": v for k, v in held_out.items()})
                log(f"step {done}  held out: loss {held_out['loss']:.4g}")
            for hook in run.hooks:
                if due(hook.every):
                    watchdog.begins("an evaluation suite")
                    with clock.spent("evaluation", after=metrics):
                        hook.run(done, state, writer)
            stopping = agree(stop.asked)  # read once: what it leads to below is saved first
            if due(t.checkpoint_every) or stopping or (t.keep_best and held_out is not None):
                watchdog.begins("a checkpoint")
                with clock.spent("checkpoint", after=metrics):
                    checkpoints.save(done, _trees(state, run.experiment), config, held_out)
            if stopping and done < t.steps:
                watchdog.begins("the last checkpoint")
                checkpoints.wait()
                kind = Interrupted if stopping > 1 else Preempted
                raise kind(f"Stopped at step {done} of {t.steps}; saved in {run.workdir}.")
        watchdog.begins("the end")
    return state


def first_step(
    step_fn: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]],
    state: TrainState,
    batch: Any,
    log: Callable[[str], None],
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The first step of a start, which compiles: takes minutes for a large model, and says so."""
    log("Compiling the training step ...")
    began = time.monotonic()
    result = step_fn(state, batch)
    log(f"Compiled in {format_seconds(time.monotonic() - began)}.")
    return result


def begin(run: Run, checkpoints: Checkpoints) -> tuple[TrainState, Iterator[HostBatch]]:
    """The state that a run continues from or starts with, and the batches from its step on."""
    experiment, mesh = run.experiment, run.mesh
    task = make_task(experiment)
    abstract = abstract_state(task, experiment, mesh)
    done = checkpoints.latest
    rank = getattr(experiment, "lora", 0)
    if done is not None:
        step = jax.make_array_from_callback((), abstract.step.sharding, lambda _: np.int32(done))
        wanted = _trees(abstract, experiment)
        if not checkpoints.has("spikes"):  # they were not skipped until now
            del wanted["spikes"]
        trees = {"spikes": new_spikes(experiment, mesh)} | checkpoints.restore(wanted)
        if rank:
            trees["extra"] = _frozen(run, abstract)
        return TrainState(step=step, **trees), run.batches(rollback.data_step(run.workdir, done))
    source = run.batches(0)
    head = next(source)
    source, first = itertools.chain([head], source), put_batch(mesh, head)
    if run.start_from is None:
        return create_state(task, experiment, mesh, first, run.extra), source
    if rank:
        frozen = _frozen(run, abstract)
        trees = {"ema": _adapters(experiment, mesh, frozen["base"], rank), "extra": frozen}
    else:
        with open_existing(run.start_from) as other:
            trees = restore_grown(other, {"ema": abstract.ema, "extra": abstract.extra})
    return adopt_state(task, experiment, mesh, first, **trees), source


def _frozen(run: Run, abstract: TrainState) -> dict[str, Any]:
    """The weights that adapters change: those of `start_from`, with label tables that are grown."""
    assert run.start_from is not None, "adapters change the weights of a run"
    with open_existing(run.start_from) as other:
        trees = restore_grown(other, {"ema": abstract.extra["base"], "extra": {}})
    return {"base": trees["ema"]}


def _adapters(experiment: Experiment, mesh: Mesh, base: Any, rank: int) -> Any:
    """New adapters of weights, on all devices."""
    key = jax.random.fold_in(jax.random.key(experiment.train.seed), 0)
    init = jax.jit(lora.init, static_argnums=2, out_shardings=replicated(mesh))
    with jax.set_mesh(mesh):
        return stored(init(key, base, rank), experiment.train.state_dtype)


def evaluate(
    eval_fn: Callable[[TrainState, Any], dict[str, jax.Array]],
    state: TrainState,
    mesh: Mesh,
    batches: Iterator[HostBatch],
    count: int,
) -> dict[str, float]:
    """Means of the metrics over `count` batches."""
    metrics = [eval_fn(state, put_batch(mesh, b)) for b in itertools.islice(batches, count)]
    return {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}


class Means:
    """Means of the metrics over the steps that were not skipped, summed on the devices."""

    def __init__(self) -> None:
        self._sums: dict[str, jax.Array] | None = None
        self._steps = 0

    def add(self, metrics: dict[str, jax.Array]) -> None:
        """Adds the metrics of a step; those of a skipped step are 0, but for "skipped"."""
        self._sums = metrics if self._sums is None else jax.tree.map(jnp.add, self._sums, metrics)
        self._steps += 1

    def take(self) -> dict[str, float]:
        """The means since the last call, and the number of skipped steps, as train/NAME."""
        assert self._sums is not None
        sums = {name: float(value) for name, value in self._sums.items()}
        skipped = sums.pop("skipped")
        counted = self._steps - skipped
        means = {n: value / counted if counted else float("nan") for n, value in sums.items()}
        self._sums, self._steps = None, 0
        return {f"train/{name}": value for name, value in (means | {"skipped": skipped}).items()}


def _run_name(checkpoints: Checkpoints) -> str:
    """A random name that a run keeps when it resumes: with the step it names its weights."""
    name = "" if checkpoints.latest is None else checkpoints.config().get("run", "")
    return name or secrets.token_hex(8)


def _trees(state: TrainState, experiment: Experiment) -> dict[str, Any]:
    """What a checkpoint has of a state: not the weights of another run that adapters change."""
    left_out = ("step", "extra") if getattr(experiment, "lora", 0) else ("step",)
    return {name: tree for name, tree in state._asdict().items() if name not in left_out}
