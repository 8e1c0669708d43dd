"""A run that diverges goes back to a checkpoint, and goes on with other data."""

import json

import jax
import numpy as np
import pytest
import tiny_training

from jukejax.config import ConfigError, TrainConfig
from jukejax.errors import DataError, Diverged
from jukejax.training.metrics import read_metrics
from jukejax.training.rollback import Rollback, data_step, rollbacks

SETTINGS = {"steps": 24, "checkpoint_every": 4, "keep": 5, "max_skipped": 3}


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    with pytest.MonkeyPatch.context() as patch:
        tiny_training.compile_once(patch)
        yield


def run(workdir, bad, log=None, order=lambda step: step, **settings):
    """Trains; batches in `bad` are not numbers. `order` gives the batch of a step."""

    def batch(step):
        number = order(step)
        return tiny_training.noise(number) * np.float32(np.nan if number in bad else 1)

    return tiny_training.run(workdir, batch, log, **SETTINGS | settings)


def test_it_ends_as_a_run_that_never_met_the_data(tmp_path):
    lines = []
    state = run(tmp_path / "back", {9, 10, 11, 12}, lines, rollbacks=1)
    # 9, 10 and 11 are the batches of steps 10 to 12; one later, at 13, that is known
    assert rollbacks(tmp_path / "back") == [Rollback(13, 12)]
    assert any(
        line.startswith("WARNING: Training diverges: 3 steps in a row up to step 12 were skipped")
        and "Going back to step 12 (rollback 1 of at most 1); the batches of steps 13 to 13 are"
        in line
        for line in lines
    )
    patient = {"order": lambda step: step + (step >= 12), "max_skipped": 10}
    expected = run(tmp_path / "never", {9, 10, 11}, **patient)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    steps = [r["step"] for r in read_metrics(tmp_path / "back" / "metrics.jsonl")]
    assert steps == list(range(1, 25))


def test_it_goes_further_back_where_it_diverges_again(tmp_path):
    lines = []
    # whatever follows step 8 is bad, for a while
    state = run(tmp_path, set(range(9, 16)), lines, rollbacks=3)
    found = rollbacks(tmp_path)
    assert len(found) == 2 and found[1].back_to < found[0].back_to
    assert int(state.step) == 24
    aside = sorted(path.name for path in (tmp_path / "diverged").iterdir())
    assert aside == [f"{found[0].back_to}-2"]


def test_a_later_start_reads_the_same_data(tmp_path):
    bad = {9, 10, 11, 12}
    whole = run(tmp_path / "whole", bad, rollbacks=1)
    run(tmp_path / "parts", bad, rollbacks=1, steps=18)
    state = run(tmp_path / "parts", bad, rollbacks=1)
    jax.tree.map(np.testing.assert_array_equal, state, whole)


def test_it_ends_where_it_may_not_go_back_again(tmp_path):
    with pytest.raises(Diverged, match=r"3 steps in a row.*train\.rollbacks"):
        run(tmp_path / "none", set(range(9, 100)))
    assert not rollbacks(tmp_path / "none")
    with pytest.raises(Diverged):
        run(tmp_path / "two", set(range(9, 100)), rollbacks=2)
    assert len(rollbacks(tmp_path / "two")) == 2
    with pytest.raises(Diverged):  # without a checkpoint
        run(tmp_path / "early", set(range(0, 100)), rollbacks=2)


def test_the_batch_of_a_step_is_later_by_all_that_was_left_out(tmp_path):
    assert data_step(tmp_path, 7) == 7
    rows = [{"step": 30, "back_to": 20}, {"step": 29, "back_to": 10}]
    (tmp_path / "rollbacks.json").write_text(json.dumps({"rollbacks": rows}))
    assert [data_step(tmp_path, done) for done in (9, 10, 19, 20, 50)] == [9, 29, 38, 49, 79]


@pytest.mark.parametrize("text", ["", "[]", '{"rollbacks": [{"step": "3", "back_to": 1}]}'])
def test_a_damaged_file_is_a_sentence(tmp_path, text):
    (tmp_path / "rollbacks.json").write_text(text)
    with pytest.raises(DataError, match=r"rollbacks\.json is damaged: .*; restore it"):
        rollbacks(tmp_path)


def test_a_number_below_0_is_refused():
    with pytest.raises(ConfigError, match=r"train\.rollbacks is -1"):
        TrainConfig(rollbacks=-1)
