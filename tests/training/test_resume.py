"""When a run may continue, and when it may start from another run's weights."""

from dataclasses import replace

import numpy as np
import pytest

from jukejax import presets
from jukejax.config import OptimizerConfig, to_dict
from jukejax.errors import CheckpointError
from jukejax.training.checkpoint import save_mapped
from jukejax.training.resume import check_continues, check_start

EXPERIMENT = presets.demo_upsampler_level_0()
NOTE = {"fingerprint": "abc"}


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A run of weights alone."""
    workdir = tmp_path_factory.mktemp("imported")
    config = {"experiment": to_dict(EXPERIMENT), "origin": {"format": "openai"}, **NOTE}
    save_mapped(workdir, 5, {"ema": {"w": np.ones(3, np.float32)}}, config)
    return workdir


def test_a_run_starts_from_imported_weights_but_does_not_continue_them(imported):
    with pytest.raises(CheckpointError, match=r"no optimizer state.*--start-from"):
        check_continues(EXPERIMENT, NOTE, imported, print)
    said = []
    check_start(EXPERIMENT, NOTE, imported, said.append)
    assert not said
    check_start(EXPERIMENT, NOTE | {"labels": "x"}, imported, said.append)
    assert "--labels" in said[0]


def test_another_batch_or_seed_is_allowed_and_logged(tmp_path):
    config = {"experiment": to_dict(EXPERIMENT), **NOTE}
    save_mapped(tmp_path, 5, {"ema": {"w": np.ones(3, np.float32)}}, config)
    said = []
    check_continues(EXPERIMENT, NOTE, tmp_path, said.append)
    assert not said
    other = replace(EXPERIMENT, train=replace(EXPERIMENT.train, batch=16, steps=9))
    check_continues(other, NOTE, tmp_path, said.append)
    assert len(said) == 1 and said[0].startswith("train.batch was 8 and is 16")


def test_the_schedule_may_change_and_the_change_is_logged(tmp_path):
    config = {"experiment": to_dict(EXPERIMENT), **NOTE}
    save_mapped(tmp_path, 5, {"ema": {"w": np.ones(3, np.float32)}}, config)
    schedule = {
        "learning_rate": 1e-5, "warmup_steps": 7, "decay": "step", "decay_start": 3,
        "decay_steps": 11, "gamma": 0.25,
    }  # fmt: skip
    then = EXPERIMENT.optimizer
    said = []
    other = replace(EXPERIMENT, optimizer=replace(then, **schedule))
    check_continues(other, NOTE, tmp_path, said.append)
    changes = [f"{n} {getattr(then, n)}, now {v}" for n, v in schedule.items()]
    changes = [c for c, n in zip(changes, schedule, strict=True) if getattr(then, n) != schedule[n]]
    assert len(changes) > 4
    assert len(said) == 1 and said[0].startswith("The learning-rate schedule changes")
    assert all(change in said[0] for change in changes)


def test_another_model_or_other_data_do_not_continue(tmp_path):
    config = {"experiment": to_dict(EXPERIMENT), **NOTE, "labels": "x"}
    save_mapped(tmp_path, 5, {"ema": {"w": np.ones(3, np.float32)}}, config)
    note = {**NOTE, "labels": "x"}
    check_continues(EXPERIMENT, note, tmp_path, pytest.fail)
    wider = replace(EXPERIMENT, model=replace(EXPERIMENT.model, width=96))
    with pytest.raises(CheckpointError, match=r"another model \(width \d+, now 96\)"):
        check_continues(wider, note, tmp_path, print)
    other = replace(EXPERIMENT, optimizer=replace(EXPERIMENT.optimizer, b2=0.5))
    with pytest.raises(CheckpointError, match=r"another optimizer \(b2 .*, now 0.5\)"):
        check_continues(other, note, tmp_path, print)
    dropped = replace(EXPERIMENT, label_dropout=0.25)
    with pytest.raises(CheckpointError, match=r"another label_dropout \(0.0, now 0.25\)"):
        check_continues(dropped, note, tmp_path, print)
    for name, words in (("fingerprint", "codes of VQ-VAE abc"), ("labels", "digest x")):
        with pytest.raises(CheckpointError, match=f"was trained on .*{words}, but .* has other"):
            check_continues(EXPERIMENT, {**note, name: "other"}, tmp_path, print)


def test_a_start_may_differ_in_how_it_trains(imported):
    model = replace(EXPERIMENT.model, dtype="bfloat16", remat="layer", layers="plain")
    other = replace(EXPERIMENT, model=model, optimizer=OptimizerConfig(kind="jukebox"))
    check_start(other, NOTE, imported, print)


def test_a_start_from_another_model_is_an_error(imported):
    # heads change no shape: the weights would load and mean something else
    other = replace(EXPERIMENT, model=replace(EXPERIMENT.model, heads=4))
    with pytest.raises(CheckpointError, match=r"another model \(heads 2, now 4\)"):
        check_start(other, NOTE, imported, print)
    with pytest.raises(CheckpointError, match=r"another model \(a prior, now a VQ-VAE\)"):
        check_start(presets.demo_vqvae(), {}, imported, print)


def test_a_start_for_other_codes_is_an_error(imported):
    with pytest.raises(CheckpointError, match="trained on codes of VQ-VAE abc"):
        check_start(EXPERIMENT, {"fingerprint": "def"}, imported, print)
