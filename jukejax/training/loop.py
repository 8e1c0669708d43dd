"""The loop that trains everything: resume, step, log, evaluate, save, stop when asked."""

from __future__ import annotations

import contextlib
import itertools
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jukejax.config import Experiment, to_dict
from jukejax.errors import Interrupted, Preempted
from jukejax.parallel.distributed import Agreement
from jukejax.parallel.mesh import put_batch
from jukejax.training.checkpoint import Checkpoints, open_existing
from jukejax.training.clock import Clock, Trace
from jukejax.training.growing import restore_grown
from jukejax.training.metrics import MetricsWriter, Progress
from jukejax.training.step import (
    TrainState,
    abstract_state,
    adopt_state,
    create_state,
    make_eval_step,
    make_train_step,
)
from jukejax.training.stopping import Skips, StopSignal
from jukejax.training.tasks import make_task

HostBatch = dict[str, np.ndarray]
Hook = Callable[[int, TrainState, MetricsWriter], None]


def train(
    experiment: Experiment,
    mesh: Mesh,
    workdir: str | Path,
    batches: Callable[[int], Iterator[HostBatch]],
    held_out: Callable[[], Iterator[HostBatch]] | None = None,
    hooks: tuple[Hook, ...] = (),
    note: dict[str, Any] | None = None,
    start_from: str | Path | None = None,
    log: Callable[[str], None] = print,
    profile: bool = False,
) -> TrainState:
    """Trains to `experiment.train.steps`, from the latest checkpoint in `workdir` if there is one.

    Args:
      experiment: what to train.
      mesh: where.
      workdir: gets `checkpoints/`, `metrics.jsonl` and `tensorboard/`.
      batches: this host's batches from a given step on.
      held_out: this host's batches to evaluate the averaged parameters on.
      hooks: called with (step, state, writer) at every evaluation.
      note: saved beside the experiment in each checkpoint's config.
      start_from: workdir of a run whose averaged parameters a new run begins with; tables of
        label names that are smaller there are grown.
      log: takes a line of progress.
      profile: writes a trace of some steps to `tensorboard/`.

    Raises:
      Interrupted: on Ctrl-C or SIGTERM (`Preempted`) in any process, in all of them, after saving.
      Diverged: too many steps in a row had a loss or gradient that is infinite or NaN.
    """
    t, task = experiment.train, make_task(experiment)
    first = jax.process_index() == 0
    log = log if first else lambda line: None
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(
            Checkpoints(workdir, t.keep, keep_best=t.keep_best, clean=True)
        )
        if checkpoints.latest is not None and checkpoints.latest >= t.steps:
            log(f"{workdir}: already trained for {checkpoints.latest} steps.")
        state, source = _begin(experiment, mesh, checkpoints, batches, start_from)
        config = {"experiment": to_dict(experiment), "run": _run_name(checkpoints), **(note or {})}
        done = int(state.step)
        writer = stack.enter_context(MetricsWriter(workdir, resume_step=done, write=first))
        stop = stack.enter_context(StopSignal())
        clock, agree = Clock(workdir, experiment, first), Agreement(mesh)
        skips = Skips(t.max_skipped, workdir)
        step_fn, eval_fn = make_train_step(task, experiment, mesh), make_eval_step(task, mesh)
        progress, metrics, sums, since = Progress(t.steps, done, log), None, None, 0
        trace = stack.enter_context(Trace(workdir, done)) if profile and first else None

        while done < t.steps:
            with clock.waiting(metrics):
                batch = put_batch(mesh, next(source))
            state, metrics = step_fn(state, batch)
            clock.step()
            if trace is not None:
                trace(done, metrics)
            done, since = done + 1, since + 1
            sums = metrics if sums is None else jax.tree.map(jnp.add, sums, metrics)
            skips(done, metrics["skipped"])
            last = done == t.steps
            if done % t.log_every == 0 or last:
                means = _means(sums, since)
                writer.scalars(done, means | clock.lap())
                progress.update(done, {"loss": means["train/loss"]})
                sums, since = None, 0
            found = None
            if done % t.evaluate_every == 0 or last:
                with clock.spent("evaluation", after=metrics):
                    if held_out is not None:
                        found = evaluate(eval_fn, state, mesh, held_out(), t.evaluate_batches)
                        writer.scalars(done, {f"held_out/{k}": v for k, v in found.items()})
                        log(f"step {done}  held out: loss {found['loss']:.4g}")
                    for hook in hooks:
                        hook(done, state, writer)
            stopping = agree(stop.asked)  # read once: what is answered below has been saved
            best = t.keep_best and found is not None
            if done % t.checkpoint_every == 0 or last or stopping or best:
                with clock.spent("checkpoint", after=metrics):
                    checkpoints.save(done, _trees(state), config, found)
            if stopping and not last:
                checkpoints.wait()
                kind = Interrupted if stopping > 1 else Preempted
                raise kind(f"Stopped at step {done} of {t.steps}; saved in {workdir}.")
    return state


def evaluate(
    eval_fn: Callable[[TrainState, Any], dict[str, jax.Array]],
    state: TrainState,
    mesh: Mesh,
    batches: Iterator[HostBatch],
    count: int,
) -> dict[str, float]:
    """Means of the metrics over `count` batches."""
    some = itertools.islice(batches, count)
    found = [eval_fn(state, put_batch(mesh, batch)) for batch in some]
    return {name: float(np.mean([f[name] for f in found])) for name in found[0]}


def _means(sums: Any, since: int) -> dict[str, float]:
    """Means of the metrics over the steps that were not skipped, and how many were."""
    sums = {name: float(value) for name, value in sums.items()}
    skipped = sums.pop("skipped")
    counted = since - skipped
    means = {n: value / counted if counted else float("nan") for n, value in sums.items()}
    return {f"train/{name}": value for name, value in (means | {"skipped": skipped}).items()}


def _run_name(checkpoints: Checkpoints) -> str:
    """A random name that a run keeps when it resumes: with the step it names its weights."""
    found = "" if checkpoints.latest is None else checkpoints.config().get("run", "")
    return found or secrets.token_hex(8)


def _trees(state: TrainState) -> dict[str, Any]:
    return {name: tree for name, tree in state._asdict().items() if name != "step"}


def _begin(
    experiment: Experiment,
    mesh: Mesh,
    checkpoints: Checkpoints,
    batches: Callable[[int], Iterator[HostBatch]],
    start_from: str | Path | None,
) -> tuple[TrainState, Iterator[HostBatch]]:
    """The state to go on from, and the batches from its step on."""
    task = make_task(experiment)
    abstract = abstract_state(task, experiment, mesh)
    done = checkpoints.latest
    if done is None:
        first = put_batch(mesh, next(batches(0)))
        if start_from is None:
            return create_state(task, experiment, mesh, first), batches(0)
        with open_existing(start_from) as other:
            found = restore_grown(other, {"ema": abstract.ema, "extra": abstract.extra})
        return adopt_state(task, experiment, mesh, first, **found), batches(0)
    step = jax.make_array_from_callback((), abstract.step.sharding, lambda _: np.int32(done))
    return TrainState(step=step, **checkpoints.restore(_trees(abstract))), batches(done)
