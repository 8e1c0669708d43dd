"""Steps far above the usual loss or gradient norm are skipped, and change nothing."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from jukejax.config import (
    ConfigError,
    MeshConfig,
    OptimizerConfig,
    ReconstructionLoss,
    TrainConfig,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.parallel.mesh import make_mesh
from jukejax.training import loop, spikes
from jukejax.training.loop import Run, train
from jukejax.training.metrics import read_metrics

EXPERIMENT = VQVAEExperiment(
    model=VQVAEConfig(
        downs=(1,), multipliers=(1,), width=4, depth=1, emb_width=4, codes=8,
        loss=ReconstructionLoss(multispectral=0.0),
    ),
    samples=64,
    optimizer=OptimizerConfig(learning_rate=0.001, warmup_steps=2),
    train=TrainConfig(
        steps=125, batch=2, ema_decay=0.5, log_every=1, evaluate_every=1000,
        checkpoint_every=60, skip_spikes=6.0,
    ),
)  # fmt: skip
SPIKES = (110, 111, 118)  # steps whose batch is a hundred times as loud


@pytest.mark.parametrize("deviations", [2.0, 6.0])
def test_moments_and_spikes_are_those_of_numpy(deviations):
    rng = np.random.default_rng(0)
    rows = rng.normal([3.0, 0.5], [0.1, 0.2], (300, 2)).astype(np.float32)
    rows[[50, 150, 200]] += 5.0
    observe = jax.jit(spikes.observe)
    seen, mean, variance, count = spikes.init(), np.zeros(2), np.zeros(2), 0
    flags = 0
    for row in rows:
        is_spike, new = observe(seen, *row, deviations)
        late = count >= spikes.STEPS
        assert bool(is_spike) == (late and bool(np.any(row > mean + deviations * variance**0.5)))
        flags += bool(is_spike)
        if not is_spike:
            seen, count = new, count + 1
            weight = max(1 / count, 1 / spikes.STEPS)
            old, mean = mean, mean + weight * (row - mean)
            variance = (1 - weight) * (variance + weight * (row - old) ** 2)
            np.testing.assert_allclose(seen.mean, mean, rtol=1e-4)
            np.testing.assert_allclose(seen.variance, variance, rtol=1e-3)
        if count == spikes.STEPS:
            np.testing.assert_allclose(mean, rows[:count].mean(0), rtol=1e-4)
            np.testing.assert_allclose(variance, rows[:count].var(0), rtol=1e-4)
    assert flags >= 2


def batch(step, spiked=SPIKES):
    audio = np.random.default_rng(step).normal(size=(2, 64, 1)) * (30.0 if step in spiked else 0.3)
    return {"audio": audio.astype(np.float32)}


def run(workdir, steps=None, **more):
    """Trains to the end, or to a step."""
    settings = dataclasses.replace(EXPERIMENT.train, **more)
    settings = dataclasses.replace(settings, steps=steps or settings.steps)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])

    def batches(step):
        return map(batch, itertools.count(step))

    return train(
        Run(
            dataclasses.replace(EXPERIMENT, train=settings), mesh, workdir, batches, log=lambda _: 0
        )
    )


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """Runs of one experiment share the compiled step."""
    steps, make = {}, loop.make_train_step

    def made(task, experiment, mesh):
        key = experiment.train.skip_spikes
        if key not in steps:
            steps[key] = make(task, experiment, mesh)
        return steps[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_train_step", made)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, run(workdir)


def test_spikes_are_skipped_and_counted(whole):
    workdir, state = whole
    records = {r["step"]: r for r in read_metrics(workdir / "metrics.jsonl") if "train/loss" in r}
    skipped = [step for step, r in records.items() if r["train/skipped"]]
    assert skipped == [step + 1 for step in SPIKES]
    assert int(state.spikes.steps) == EXPERIMENT.train.steps - len(SPIKES)


def test_without_the_option_spikes_are_learned_from(whole, tmp_path):
    state = run(tmp_path, skip_spikes=0.0)
    assert state.spikes == {}
    different = jax.tree.map(lambda a, b: float(abs(a - b).max()), state.params, whole[1].params)
    assert max(jax.tree.leaves(different)) > 1e-5


def test_a_run_that_continues_ends_bit_for_bit_alike(whole, tmp_path):
    run(tmp_path, steps=105)
    state = run(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, state, whole[1])


def test_a_run_may_begin_to_skip_spikes_when_it_continues(tmp_path):
    run(tmp_path, steps=5, skip_spikes=0.0)
    state = run(tmp_path, steps=8)
    assert int(state.step) == 8 and int(state.spikes.steps) == 3


@pytest.mark.parametrize("deviations", [-1.0, float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused(deviations):
    with pytest.raises(ConfigError, match=r"train\.skip_spikes is"):
        TrainConfig(skip_spikes=deviations)
