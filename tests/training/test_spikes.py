"""Steps far above the usual loss or gradient norm are skipped, and change nothing."""

import jax
import numpy as np
import pytest
import tiny_training

from jukejax.config import ConfigError, TrainConfig
from jukejax.training import spikes
from jukejax.training.metrics import read_metrics

SETTINGS = {"steps": 125, "checkpoint_every": 60, "skip_spikes": 6.0}
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


def run(workdir, **settings):
    def batch(step):
        return tiny_training.noise(step) * np.float32(100 if step in SPIKES else 1)

    return tiny_training.run(workdir, batch, **SETTINGS | settings)


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    with pytest.MonkeyPatch.context() as patch:
        tiny_training.compile_once(patch)
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
    assert int(state.spikes.steps) == SETTINGS["steps"] - len(SPIKES)


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
