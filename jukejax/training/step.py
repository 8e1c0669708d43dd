"""The state of a run and its two pure steps: train and evaluate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jukejax.config import Experiment
from jukejax.parallel.mesh import (
    BATCH,
    COMPUTE,
    abstract,
    create_sharded,
    replicated,
    storage_shardings,
)
from jukejax.training import spikes
from jukejax.training.optimizer import optimizer_of, schedule, updates_done
from jukejax.training.rounding import narrow, stored, widen
from jukejax.training.tasks import Batch, Metrics, Task, joined, microbatches


class TrainState(NamedTuple):
    """Everything that a run carries from one step to the next."""

    step: jax.Array  # int32 (), number of steps done
    params: Any
    ema: Any  # exponential moving average of params
    opt_state: Any
    # a VQ-VAE's codebooks and loudness; a renderer's frozen encoder; the weights that a prior's
    # adapters change, else {}
    extra: Any
    spikes: Any = {}  # moments of loss and gradient norm (`train.skip_spikes`), else {}


def _init(task: Task, experiment: Experiment, key: jax.Array) -> dict[str, Any]:
    """Parameters, their average and the optimizer's state, all with their logical axes (boxed)."""
    params = task.init(jax.random.fold_in(key, 0))
    ema = jax.tree.map(jnp.copy, params)
    opt_state = optimizer_of(experiment, params).init(params)
    state = {"params": params, "ema": ema, "opt_state": opt_state}
    return stored(state, experiment.train.state_dtype)


def create_state(
    task: Task, experiment: Experiment, mesh: Mesh, first: Batch, extra: Any = None
) -> TrainState:
    """A new state, created sharded.

    Args:
      first: the first batch, from which codebooks are drawn.
      extra: in place of that of `Task.extra`.
    """
    key = jax.random.key(experiment.train.seed)
    trees = create_sharded(mesh, lambda k: _init(task, experiment, k), key)
    with jax.set_mesh(mesh):
        if extra is None:
            extra = jax.jit(task.extra, out_shardings=replicated(mesh))(
                jax.random.fold_in(key, 1), trees["params"], first
            )
        else:  # the steps donate the state, so that it must have arrays of its own
            copy = jax.jit(lambda x: jax.tree.map(jnp.copy, x), out_shardings=replicated(mesh))
            extra = copy(extra)
        step = jax.device_put(jnp.zeros((), jnp.int32), replicated(mesh))
    return TrainState(step=step, extra=extra, spikes=new_spikes(experiment, mesh), **trees)


def new_spikes(experiment: Experiment, mesh: Mesh) -> Any:
    """What a state has seen of its loss before its first step: nothing."""
    return jax.device_put(_spikes(experiment), replicated(mesh))


def _spikes(experiment: Experiment) -> Any:
    return spikes.init() if experiment.train.skip_spikes else {}


def adopt_state(
    task: Task, experiment: Experiment, mesh: Mesh, first: Batch, ema: Any, extra: Any
) -> TrainState:
    """A new state from another run's averaged parameters and extra (`Task.adopt`).

    Discriminators that `ema` lacks are new.
    """
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(task, experiment, mesh))

    def adopt(ema: Any, extra: Any, first: Batch) -> TrainState:
        if missing := shardings.ema.keys() - ema.keys():
            new = nn.unbox(_init(task, experiment, jax.random.key(experiment.train.seed))["ema"])
            ema = ema | {name: new[name] for name in missing}
        params = jax.tree.map(jnp.copy, ema)
        step = jnp.zeros((), jnp.int32)
        opt_state = optimizer_of(experiment, params).init(params)
        extra = task.adopt(extra, first)
        return TrainState(step, params, ema, opt_state, extra, _spikes(experiment))

    with jax.set_mesh(mesh):
        return jax.jit(adopt, out_shardings=shardings, donate_argnums=0)(ema, extra, first)


def abstract_state(task: Task, experiment: Experiment, mesh: Mesh) -> TrainState:
    """Shapes and shardings of a state, as `jax.ShapeDtypeStruct`s; nothing is computed."""
    key = jax.random.key(0)
    boxed = jax.eval_shape(lambda k: _init(task, experiment, k), key)
    shardings = storage_shardings(mesh, boxed)
    trees = jax.tree.map(abstract, nn.unbox(boxed), shardings)
    first = jax.eval_shape(lambda: task.example(experiment.train.accumulate))
    extra = jax.eval_shape(task.extra, key, trees["params"], first)
    extra = jax.tree.map(abstract, nn.unbox(extra), storage_shardings(mesh, extra))
    step, seen = jax.tree.map(
        lambda x: abstract(x, replicated(mesh)),
        jax.eval_shape(lambda: (jnp.zeros((), jnp.int32), _spikes(experiment))),
    )
    return TrainState(step=step, extra=extra, spikes=seen, **trees)


def abstract_batch(task: Task, experiment: Experiment, mesh: Mesh) -> Batch:
    """Shapes and shardings of a global batch."""
    shapes = jax.eval_shape(lambda: task.example(experiment.train.batch))
    return jax.tree.map(lambda x: abstract(x, NamedSharding(mesh, P(BATCH))), shapes)


def gradients(
    task: Task, state: TrainState, batch: Batch, parts: int, shardings: Any
) -> tuple[Any, tuple[Metrics, Any]]:
    """Gradients of a task's loss, its metrics and aux, computed in `parts` microbatches.

    Losses are means over examples, so those of the batch are the means over the microbatches. The
    values per example in `aux` are returned in the order of the batch.
    """
    grad = jax.grad(task.loss, has_aux=True)
    if parts == 1:
        return grad(state.params, state.extra, batch)

    def add(total: Any, part: Batch) -> tuple[Any, tuple[Metrics, Any]]:
        grads, others = grad(state.params, state.extra, part)
        return lax.with_sharding_constraint(jax.tree.map(jnp.add, total, grads), shardings), others

    total, (metrics, aux) = lax.scan(
        add, jax.tree.map(jnp.zeros_like, state.params), microbatches(batch, parts)
    )
    means = jax.tree.map(lambda x: x.mean(0), metrics)
    rows = jax.tree.leaves(batch)[0].shape[0] // parts
    return jax.tree.map(lambda g: g / parts, total), (means, joined(aux, rows))


def jit_train_step(task: Task, experiment: Experiment, mesh: Mesh) -> jax.stages.Wrapped:
    """The jitted step (state, batch) -> (state, metrics), to be called or lowered under `mesh`.

    The state is donated; the batch is global. The averaged parameters (`ema`) follow the
    parameters with `train.ema_decay`; "skipped" is 1 where the update was skipped.
    """
    config, decay = experiment.optimizer, experiment.train.ema_decay
    deviations = experiment.train.skip_spikes
    # the new state is sharded as the old one, or the second call would compile again
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(task, experiment, mesh))

    def step(before: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        # extra stays as it is stored: weights that adapters change are widened layer by layer
        state = widen(before._replace(extra={}))._replace(extra=before.extra)
        with nn.logical_axis_rules(list(COMPUTE)):
            parts = experiment.train.accumulate
            grads, (metrics, aux) = gradients(task, state, batch, parts, shardings.params)
            key = jax.random.fold_in(jax.random.key(experiment.train.seed), state.step + 2)
            extra, more = task.update(key, state.extra, aux)
        optimizer = optimizer_of(experiment, state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = jax.tree.map(lambda e, p: e * decay + p * (1 - decay), state.ema, params)
        norm = optax.global_norm(grads)
        metrics = {
            **metrics,
            **more,
            "gradient_norm": norm,
            "learning_rate": schedule(config)(updates_done(state.opt_state)),
        }
        # Skip the update if loss or gradient is not finite, or a spike
        accepted, seen = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"]), state.spikes
        if deviations:
            is_spike, seen = spikes.observe(seen, metrics["loss"], norm, deviations)
            accepted &= ~is_spike
        new = TrainState(state.step, params, ema, opt_state, extra={}, spikes=seen)
        new = narrow(key, new, before._replace(extra={}))._replace(extra=extra)
        new = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), new, before)
        metrics = {name: jnp.where(accepted, value, 0.0) for name, value in metrics.items()}
        metrics["skipped"] = 1.0 - accepted
        return new._replace(step=state.step + 1), metrics

    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, replicated(mesh)))


def make_train_step(
    task: Task, experiment: Experiment, mesh: Mesh
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """`jit_train_step`, called under its mesh."""
    return _under(mesh, jit_train_step(task, experiment, mesh))


def jit_eval_step(task: Task, experiment: Experiment) -> jax.stages.Wrapped:
    """The jitted step (state, batch) -> metrics of the loss of the averaged parameters.

    In as many microbatches as training, so that it needs no more memory.
    """
    parts = experiment.train.accumulate

    def step(state: TrainState, batch: Batch) -> Metrics:
        def metrics(part: Batch) -> Metrics:
            return task.evaluate(widen(state.ema), state.extra, part)

        with nn.logical_axis_rules(list(COMPUTE)):
            if parts == 1:
                return metrics(batch)
            each = lax.map(metrics, microbatches(batch, parts))
            return jax.tree.map(lambda x: x.mean(0), each)

    return jax.jit(step)


def make_eval_step(
    task: Task, experiment: Experiment, mesh: Mesh
) -> Callable[[TrainState, Batch], Metrics]:
    """`jit_eval_step`, called under its mesh."""
    return _under(mesh, jit_eval_step(task, experiment))


def _under(mesh: Mesh, jitted: jax.stages.Wrapped) -> Callable[[TrainState, Batch], Any]:
    def run(state: TrainState, batch: Batch) -> Any:
        with jax.set_mesh(mesh):
            return jitted(state, batch)

    return run
