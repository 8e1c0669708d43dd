"""What the training command refuses before it trains."""

from dataclasses import replace

import numpy as np
import pytest

from experiments import train
from jukejax import presets
from jukejax.config import OptimizerConfig, to_dict
from jukejax.errors import CheckpointError
from jukejax.training.checkpoint import save_mapped

EXPERIMENT = presets.demo_upsampler_level_0()
NOTE = {"fingerprint": "abc"}


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A run of weights alone."""
    workdir = tmp_path_factory.mktemp("imported")
    config = {"experiment": to_dict(EXPERIMENT), "origin": {"format": "openai"}, **NOTE}
    save_mapped(workdir, 5, {"ema": {"w": np.ones(3, np.float32)}}, config)
    return workdir


def test_imported_weights_are_started_from_not_resumed(imported):
    with pytest.raises(CheckpointError, match=r"no optimizer state.*--start-from"):
        train.check_same(EXPERIMENT, NOTE, imported)
    said = []
    train.check_start(EXPERIMENT, NOTE, imported, said.append)
    assert not said
    train.check_start(EXPERIMENT, NOTE | {"labels": "x"}, imported, said.append)
    assert "--labels" in said[0]


def test_another_batch_or_seed_is_said_and_let_be(tmp_path):
    config = {"experiment": to_dict(EXPERIMENT), **NOTE}
    save_mapped(tmp_path, 5, {"ema": {"w": np.ones(3, np.float32)}}, config)
    said = []
    train.check_same(EXPERIMENT, NOTE, tmp_path, said.append)
    assert not said
    other = replace(EXPERIMENT, train=replace(EXPERIMENT.train, batch=16, steps=9))
    train.check_same(other, NOTE, tmp_path, said.append)
    assert len(said) == 1 and said[0].startswith("train.batch was 8 and is 16")


def test_a_start_may_differ_in_how_it_trains(imported):
    model = replace(EXPERIMENT.model, dtype="bfloat16", remat="layer")
    other = replace(EXPERIMENT, model=model, optimizer=OptimizerConfig(kind="jukebox"))
    train.check_start(other, NOTE, imported)


def test_a_start_from_another_model_is_refused(imported):
    # heads change no shape: the weights would load and mean something else
    other = replace(EXPERIMENT, model=replace(EXPERIMENT.model, heads=4))
    with pytest.raises(CheckpointError, match=r"another model \(heads 2, now 4\)"):
        train.check_start(other, NOTE, imported)
    with pytest.raises(CheckpointError, match=r"another model \(PriorConfig, now VQVAEConfig\)"):
        train.check_start(presets.demo_vqvae(), {}, imported)


def test_a_start_for_other_codes_is_refused(imported):
    with pytest.raises(CheckpointError, match="learned the codes of VQ-VAE abc"):
        train.check_start(EXPERIMENT, {"fingerprint": "def"}, imported)


def test_the_option_is_read(tmp_path):
    names = ["--data", str(tmp_path), "--workdir", "w", "--start-from", "other"]
    assert str(train.parse("demo_vqvae", names).start_from) == "other"
    assert train.parse("demo_vqvae", names[:4]).start_from is None


def test_a_run_lends_its_settings(imported, tmp_path):
    names = ["--data", str(tmp_path), "--workdir", "w", "--optimizer.kind", "jukebox"]
    found = train.parse(str(imported), names).experiment
    assert found == replace(EXPERIMENT, optimizer=replace(EXPERIMENT.optimizer, kind="jukebox"))
