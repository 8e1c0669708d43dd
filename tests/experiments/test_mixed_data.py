"""Batches of several data sets: each has its rows, in the order that it has alone."""

import dataclasses

import numpy as np
import pytest
import tiny_codes

from experiments import data
from experiments.training import Training, training_run
from jukejax.config import ConfigError, PriorConfig, PriorExperiment, TrainConfig, VQVAEExperiment
from jukejax.errors import DataError

MODEL = PriorConfig(codes=16, n_ctx=16, width=8, depth=1, blocks=4)
PRIOR = PriorExperiment(model=MODEL, train=TrainConfig(batch=8))


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Three data sets of two songs each."""
    folders = [tmp_path_factory.mktemp(name) for name in ("new", "old", "other")]
    pairs = enumerate(folders)
    return [tiny_codes.write(folder, [{}, {}], seconds=2, seed=seed) for seed, folder in pairs]


def alone(folder, batch, step):
    """The batch of a step of one data set."""
    experiment = dataclasses.replace(PRIOR, train=TrainConfig(batch=batch))
    return next(data.batches(experiment, folder, "train", None)(step))


@pytest.mark.parametrize("step", [0, 5])
def test_each_data_set_has_its_rows(sets, tmp_path, step):
    new, old, other = sets
    mix = (f"2:{old}", f"1:{other}")
    run = training_run(Training(new, tmp_path / "run", PRIOR, mix=mix), [].append)
    batch = next(run.batches(step))
    parts = [alone(folder, count, step) for folder, count in ((new, 5), (old, 2), (other, 1))]
    for name, x in batch.items():
        np.testing.assert_array_equal(x, np.concatenate([part[name] for part in parts]))


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [4, 5, 6, 7], [0, 2, 4, 6], [1, 3, 5, 7], [7]])
def test_hosts_read_their_rows_of_the_same_batch(sets, rows):
    mixed = {sets[1]: 2, sets[2]: 1}
    whole = next(data.batches(PRIOR, sets[0], "train", None, mixed=mixed)(3))
    part = next(data.batches(PRIOR, sets[0], "train", None, rows=rows, mixed=mixed)(3))
    for name, x in part.items():
        np.testing.assert_array_equal(x, whole[name][rows])


def test_a_data_set_may_be_mixed_with_itself(sets):
    batch = next(data.batches(PRIOR, sets[0], "train", None, mixed={sets[0]: 3})(2))
    parts = [alone(sets[0], count, 2)["codes"] for count in (5, 3)]
    np.testing.assert_array_equal(batch["codes"], np.concatenate(parts))


def test_held_out_songs_are_those_of_the_data(sets, tmp_path):
    new = tiny_codes.write(tmp_path / "more", [{"split": "train"}, {"split": "test"}], 2, seed=9)
    settings = Training(new, tmp_path / "run", PRIOR, mix=(f"4:{sets[1]}",))
    run = training_run(settings, [].append)
    expected = next(data.batches(PRIOR, new, "test", None)(0))
    for name, x in next(run.held_out()).items():
        np.testing.assert_array_equal(x, expected[name])


@pytest.mark.parametrize(
    ("mix", "words"),
    [
        (("codes",), "--mix codes: give ROWS:PATH"),
        (("0:codes",), "--mix 0:codes: give ROWS:PATH"),
        (("-1:codes",), "--mix -1:codes: give ROWS:PATH"),
        (("2:",), "--mix 2:: give ROWS:PATH"),
        (("1:codes", "1:codes"), "names codes twice"),
        (("5:codes", "3:others"), "takes 8 rows of a batch of 8; leave some for --data"),
    ],
)
def test_mistakes_are_sentences(sets, tmp_path, mix, words):
    with pytest.raises(ConfigError, match=words):
        training_run(Training(sets[0], tmp_path / "run", PRIOR, mix=mix), pytest.fail)


def test_a_data_set_of_another_vqvae_or_none_is_refused(sets, tmp_path):
    file = tiny_codes.write(tmp_path / "strange", [{}], seconds=2) / "codes.json"
    file.write_text(file.read_text().replace("vqvae-1", "vqvae-2"))
    with pytest.raises(DataError, match="holds codes of VQ-VAE 'vqvae-2', not of 'vqvae-1'"):
        training_run(Training(sets[0], tmp_path / "run", PRIOR, mix=(f"1:{file.parent}",)))
    with pytest.raises(DataError, match="is not a codes data set"):
        training_run(Training(sets[0], tmp_path / "run", PRIOR, mix=(f"1:{tmp_path / 'no'}",)))


def test_other_models_take_none(sets, tmp_path):
    with pytest.raises(ConfigError, match="--mix 1:x is for priors"):
        training_run(Training(sets[0], tmp_path / "run", VQVAEExperiment(), mix=("1:x",)))
