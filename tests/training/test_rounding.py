"""State in bfloat16: unbiased stochastic rounding, and training close to that in float32."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jukejax.config import (
    ConfigError,
    LabelsConfig,
    MeshConfig,
    OptimizerConfig,
    PriorConfig,
    PriorExperiment,
    TrainConfig,
)
from jukejax.model_dir import load_prior
from jukejax.models import prior
from jukejax.parallel.mesh import make_mesh, put_batch
from jukejax.training.checkpoint import open_existing
from jukejax.training.loop import Run, train
from jukejax.training.rounding import rounded
from jukejax.training.step import abstract_state, create_state, make_eval_step, make_train_step
from jukejax.training.tasks import make_task

EXPERIMENT = PriorExperiment(
    model=PriorConfig(
        n_ctx=16, width=16, depth=1, heads=2, blocks=4, codes=32, attn_ratio=0.5, init_scale=1.0,
        labels=LabelsConfig(artists=5, genres=4),
    ),
    optimizer=OptimizerConfig(learning_rate=0.003, b2=0.95, warmup_steps=0),
    train=TrainConfig(batch=8, ema_decay=0.99, state_dtype="bfloat16"),
    mesh=MeshConfig(data=1, fsdp=2),
)  # fmt: skip


def test_rounding_is_to_a_neighbour_and_unbiased():
    low, high = 1.0, 1.0 + 2.0**-7
    for part in (0.0, 0.25, 0.9):
        x = jnp.full(20_000, low + part * (high - low))
        for sign in (1, -1):
            found = np.asarray(rounded(jax.random.key(0), sign * x), np.float64)
            assert set(np.unique(found)) <= {sign * low, sign * high}
            share = (np.abs(found) == high).mean()
            assert share == pytest.approx(part, abs=4 * 0.5 / np.sqrt(20_000))
    edge = jnp.array([0.0, jnp.inf, -jnp.inf])
    np.testing.assert_array_equal(np.asarray(rounded(jax.random.key(1), edge), np.float32), edge)
    assert np.isnan(np.asarray(rounded(jax.random.key(1), jnp.array([jnp.nan])), np.float32)).all()


def test_changes_below_the_precision_add_up():
    def add(total, key):
        return rounded(key, total.astype(jnp.float32) + 1e-4), None

    keys = jax.random.split(jax.random.key(0), 1000)
    total, _ = jax.lax.scan(add, jnp.ones(1000, jnp.bfloat16), keys)
    # a thousand steps of 1e-4; with rounding to the nearest it would still be 1
    assert float(total.astype(jnp.float32).mean()) == pytest.approx(1.1, abs=0.002)


def trained(experiment, steps=40):
    """Losses, state and mesh of a run on one batch."""
    task, mesh = make_task(experiment), make_mesh(experiment.mesh, jax.devices()[:2])
    rng = np.random.default_rng(0)
    shapes = prior.example_batch(experiment.model, 8)
    batch = put_batch(
        mesh, {n: rng.integers(0, 4, x.shape).astype(np.int32) for n, x in shapes.items()}
    )
    state = create_state(task, experiment, mesh, batch)
    step, losses = make_train_step(task, experiment, mesh), []
    for _ in range(steps):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    averaged = make_eval_step(task, experiment, mesh)(state, batch)
    return losses, state, float(averaged["loss"])


@pytest.mark.slow
def test_training_is_close_to_that_in_float32():
    wide = replace(EXPERIMENT, train=replace(EXPERIMENT.train, state_dtype="float32"))
    expected, _, averaged = trained(wide)
    losses, state, found = trained(EXPERIMENT)
    assert expected[-1] < 0.7 * expected[0]
    np.testing.assert_allclose(losses, expected, rtol=0.03)
    assert found == pytest.approx(averaged, rel=0.03)  # averages move, 1% a step
    dtypes = {x.dtype for x in jax.tree.leaves((state.params, state.ema, state.opt_state))}
    assert dtypes == {jnp.dtype("bfloat16"), jnp.dtype("int32")}
    # a device stores half the bytes
    mesh = make_mesh(EXPERIMENT.mesh, jax.devices()[:2])
    sizes = []
    for experiment in (EXPERIMENT, wide):
        shapes = abstract_state(make_task(experiment), experiment, mesh)
        sizes.append(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes.params)))
    assert sizes[1] == 2 * sizes[0]


@pytest.mark.slow
def test_a_run_continues_in_the_other_dtype_and_its_model_is_float32(tmp_path):
    mesh = make_mesh(EXPERIMENT.mesh, jax.devices()[:2])

    def batches(step):
        shapes = prior.example_batch(EXPERIMENT.model, 8)
        while True:
            yield {n: np.full(x.shape, step % 4, np.int32) for n, x in shapes.items()}
            step += 1

    def run(steps, dtype):
        changed = replace(EXPERIMENT.train, steps=steps, state_dtype=dtype)
        experiment = replace(EXPERIMENT, train=changed)
        return train(Run(experiment, mesh, tmp_path, batches, log=[].append))

    state = jax.tree.map(lambda x: np.asarray(x, np.float32), run(2, "bfloat16").ema)
    loaded = load_prior(tmp_path, mesh).params
    jax.tree.map(np.testing.assert_array_equal, loaded, state)
    assert {x.dtype for x in jax.tree.leaves(loaded)} == {jnp.dtype("float32")}
    with open_existing(tmp_path) as checkpoints, checkpoints.ema_reader() as read:
        (token,) = read([("token",)])
    assert token.dtype == np.float32
    np.testing.assert_array_equal(token, state["token"])
    wide = run(3, "float32")
    assert int(wide.step) == 3
    assert {x.dtype for x in jax.tree.leaves(wide.params)} == {jnp.dtype("float32")}
    moved = np.abs(np.asarray(wide.ema["token"]) - state["token"]).max()
    assert 0 < moved < 0.01


def test_other_dtypes_are_errors():
    with pytest.raises(ConfigError, match="state_dtype is 'float16'; it must be"):
        TrainConfig(state_dtype="float16")
