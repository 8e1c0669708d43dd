"""The loop that trains everything: resume, step, log, evaluate, save, stop when asked."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jukejax.checkpoint import Checkpoints, open_existing
from jukejax.config import Experiment, to_dict
from jukejax.parallel.mesh import put_batch
from jukejax.training.metrics import MetricsWriter, Progress
from jukejax.training.step import (
    TrainState,
    abstract_state,
    adopt_state,
    create_state,
    make_eval_step,
    make_train_step,
)
from jukejax.training.tasks import make_task

HostBatch = dict[str, np.ndarray]
Hook = Callable[[int, TrainState, MetricsWriter], None]


class Interrupted(Exception):
    """The run was asked to stop; it has saved its state and goes on when started again."""


class Diverged(Exception):
    """The loss or the gradient is no longer a number; nothing was saved of it."""


class _StopSignal:
    """Turns Ctrl-C and SIGTERM into a flag that the loop reads between steps."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> _StopSignal:
        def ask(number: int, frame: Any) -> None:
            self.asked = True

        self._before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


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
      start_from: workdir of a run whose averaged parameters a new run begins with.
      log: takes a line of progress.

    Raises:
      Interrupted: on Ctrl-C or SIGTERM, after saving.
      Diverged: the loss or the gradient became infinite or NaN; what was saved before stays.
    """
    t = experiment.train
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(workdir, t.keep))
        if checkpoints.latest is not None and checkpoints.latest >= t.steps:
            log(f"{workdir}: already trained for {checkpoints.latest} steps.")
        state, source = _begin(experiment, mesh, checkpoints, batches, start_from)
        config = {"experiment": to_dict(experiment), "run": _run_name(checkpoints), **(note or {})}
        done = int(state.step)
        writer = stack.enter_context(MetricsWriter(workdir, resume_step=done))
        stop = stack.enter_context(_StopSignal())
        task = make_task(experiment)
        step_fn, eval_fn = make_train_step(task, experiment, mesh), make_eval_step(task, mesh)
        progress, sums, since = Progress(t.steps, done, log), None, 0

        while done < t.steps:
            state, metrics = step_fn(state, put_batch(mesh, next(source)))
            done, since = done + 1, since + 1
            sums = metrics if sums is None else jax.tree.map(jnp.add, sums, metrics)
            last = done == t.steps
            if done % t.log_every == 0 or last:
                _check_finite(sums, done, workdir)
                means = {name: float(value) / since for name, value in sums.items()}
                writer.scalars(done, {f"train/{name}": value for name, value in means.items()})
                progress.update(done, {"loss": means["loss"]})
                sums, since = None, 0
            if done % t.evaluate_every == 0 or last:
                if held_out is not None:
                    found = evaluate(eval_fn, state, mesh, held_out(), t.evaluate_batches)
                    writer.scalars(done, {f"held_out/{k}": v for k, v in found.items()})
                    log(f"step {done}  held out: loss {found['loss']:.4g}")
                for hook in hooks:
                    hook(done, state, writer)
            stopping = stop.asked  # read once: what is answered below has been saved
            if done % t.checkpoint_every == 0 or last or stopping:
                _check_finite(metrics, done, workdir)
                checkpoints.save(done, _trees(state), config)
            if stopping and not last:
                checkpoints.wait()
                raise Interrupted(f"Stopped at step {done} of {t.steps}; saved in {workdir}.")
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


def _check_finite(metrics: dict[str, jax.Array], step: int, workdir: str | Path) -> None:
    """Raises Diverged if the loss or the gradient of some steps or one is not finite."""
    for name in ("loss", "gradient_norm"):
        if not np.isfinite(float(metrics[name])):
            raise Diverged(
                f"{name} is not finite any more at step {step}. The checkpoints in {workdir} are "
                "from before; start again with a lower optimizer.learning_rate or a longer "
                "optimizer.warmup_steps."
            )


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
            found = other.restore({"ema": abstract.ema, "extra": abstract.extra})
        return adopt_state(task, experiment, mesh, first, **found), batches(0)
    step = jax.device_put(jnp.asarray(done, jnp.int32), abstract.step.sharding)
    return TrainState(step=step, **checkpoints.restore(_trees(abstract))), batches(done)
