"""The training command: its options; label names and sample rate of its data."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_codes
import tiny_model

from experiments.training import Training, parse, training_run
from jukejax import costs, presets
from jukejax.config import (
    ConfigError,
    LabelsConfig,
    MeshConfig,
    PriorConfig,
    PriorExperiment,
    RendererExperiment,
    TrainConfig,
    VQVAEConfig,
    VQVAEExperiment,
    to_dict,
)
from jukejax.errors import DataError
from jukejax.model_dir import load_vqvae
from jukejax.parallel.mesh import make_mesh
from jukejax.text.labels import Vocabulary, labels_digest
from jukejax.training.checkpoint import save_mapped
from jukejax.training.tasks import make_task

PRIOR = PriorExperiment(
    model=PriorConfig(
        codes=16, n_ctx=16, width=8, depth=1, blocks=4,
        labels=LabelsConfig(timing_bins=4, min_seconds=0.1, max_genres=3),
    ),
    train=TrainConfig(batch=8),
)  # fmt: skip


@pytest.fixture(scope="module")
def codes(tmp_path_factory):
    """Codes of one song of two seconds."""
    song = {"artist": "AC/DC", "genres": ["Hard Rock", "Polka"]}
    return tiny_codes.write(tmp_path_factory.mktemp("songs"), [song], seconds=2)


def test_labels_of_another_model_give_its_ids(codes, tmp_path):
    vocabulary = Vocabulary(("unknown", "queen", "ac_dc"), ("unknown", "rock", "hard"), "v2")
    vocabulary.save(tmp_path / "labels.json")
    run = training_run(Training(codes, tmp_path / "run", PRIOR, labels=tmp_path / "labels.json"))
    batch = next(run.batches(0))
    assert set(batch["artist"]) == {2}
    assert np.unique(batch["genres"], axis=0).tolist() == [[2, 1, 0]]
    assert run.note == {"fingerprint": "vqvae-1", "labels": labels_digest(vocabulary)}
    tables = run.experiment.model.labels
    assert (tables.artists, tables.genres) == (3, 3)


def test_noise_reaches_the_training(codes, tmp_path):
    experiment = dataclasses.replace(PRIOR, context_noise=0.5)
    run = training_run(Training(codes, tmp_path / "run", experiment))
    batch, task = next(run.batches(0)), make_task(run.experiment)
    assert (batch["context"] != batch["codes"]).any()
    assert {name: x.shape for name, x in batch.items()} == {
        name: x.shape for name, x in task.example(8).items()
    }


def test_without_them_the_names_are_those_of_the_data(codes, tmp_path):
    lines = []
    run = training_run(Training(codes, tmp_path / "run", PRIOR), lines.append)
    batch = next(run.batches(0))
    assert set(batch["artist"]) == {1}
    assert np.unique(batch["genres"], axis=0).tolist() == [[1, 2, -1]]
    assert run.held_out is None and "no test split" in lines[1]
    size = costs.parameters(run.experiment)
    assert lines[0].startswith(f"run: a prior of {size:,} parameters on 8 x cpu (8 data); 1 train")


def test_test_songs_without_a_window_are_found_before_training(tmp_path):
    songs = [{"split": "train"}, {"split": "test"}]
    codes = tiny_codes.write(tmp_path, songs, seconds=1)
    model = dataclasses.replace(PRIOR.model, labels=None, n_ctx=352)  # 344 codes: no window
    experiment = dataclasses.replace(PRIOR, model=model)
    with pytest.raises(DataError, match=r"No held-out loss.*'test'.* 352 .*--test-fraction 0"):
        training_run(Training(codes, tmp_path / "run", experiment), print)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"evaluate": ("likelyhood",)}, "'likelyhood', which is no suite; .*some of reconstr"),
        ({"evaluate": ("all",)}, "'all', which is no suite; while a model trains, name some"),
        ({"evaluate": ("labels",), "evaluate_every": 0}, "--evaluate-every is 0"),
    ],
)
def test_suites_are_checked_before_data_are_read(tmp_path, options, words):
    training = Training(tmp_path / "nothing", tmp_path / "run", PRIOR, **options)
    with pytest.raises(ConfigError, match=words):
        training_run(training, pytest.fail)


def test_a_vqvae_takes_no_labels(codes, tmp_path):
    with pytest.raises(ConfigError, match="--labels"):
        training_run(Training(codes, tmp_path / "run", VQVAEExperiment(), labels=tmp_path / "x"))


@pytest.fixture(scope="module")
def vqvae(tmp_path_factory):
    """The run of a VQ-VAE whose top hop is not the preset's."""
    workdir = tmp_path_factory.mktemp("vqvae")
    config = VQVAEConfig(downs=(4,), multipliers=(1,), width=4, depth=1, emb_width=4, codes=16)
    tiny_model.save(workdir, VQVAEExperiment(model=config, samples=64))
    return workdir


def test_a_renderer_takes_the_vqvae_that_is_named(codes, vqvae, tmp_path):
    model = dataclasses.replace(presets.get("demo_renderer").model, level=0, hop=8, synthesis=32)
    experiment = RendererExperiment(model, samples=4096, train=TrainConfig(batch=8))
    run = training_run(Training(codes.parent / "data", tmp_path / "r", experiment, vqvae=vqvae))
    loaded = load_vqvae(vqvae, make_mesh(MeshConfig()))
    assert run.experiment.model == dataclasses.replace(model, vqvae=loaded.config)
    assert run.note == {"fingerprint": loaded.fingerprint}
    assert [*run.extra.encoder] == ["encoders_0"]
    jax.tree.map(np.testing.assert_array_equal, run.extra.codes, loaded.books[0].codes)
    assert next(run.batches(0))["audio"].shape == (8, 4096, 1)


@pytest.mark.parametrize(
    ("experiment", "options", "words"),
    [
        (presets.get("demo_renderer"), {}, "name its run: --vqvae DIR"),
        (presets.get("demo_renderer"), {"evaluate": ("likelihood",)}, "is for VQ-VAEs and priors"),
        (presets.get("demo_renderer"), {"labels": Path("x")}, "--labels x is for priors"),
        (PRIOR, {"vqvae": Path("v")}, "--vqvae v is for renderers"),
        (VQVAEExperiment(), {"vqvae": Path("v")}, "--vqvae v is for renderers"),
        (presets.get("demo_renderer"), {"vqvae": Path("here")}, "levels of the VQ-VAE are 0 to 0"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_a_renderer_or_another_model(
    codes, vqvae, tmp_path, experiment, options, words
):
    if options.get("vqvae") == Path("here"):
        options = {"vqvae": vqvae}
    with pytest.raises(ConfigError, match=words):
        training_run(Training(codes.parent / "data", tmp_path / "run", experiment, **options))


def test_songs_of_another_rate_than_the_model_are_refused(codes, tmp_path):
    small = presets.get("small_vqvae")
    message = r"model\.sample_rate is 22050, but .* has songs of 44100 Hz.*--sample-rate 22050"
    with pytest.raises(ConfigError, match=message):
        training_run(Training(codes.parent / "data", tmp_path / "run", small))
    model = dataclasses.replace(PRIOR.model, sample_rate=22_050)
    with pytest.raises(ConfigError, match=message):
        training_run(Training(codes, tmp_path / "run", dataclasses.replace(PRIOR, model=model)))


def test_options_are_read(tmp_path):
    names = ["--data", str(tmp_path), "--workdir", "w", "--start-from", "other", "--labels", "l"]
    parsed = parse("demo_vqvae", names)
    assert (str(parsed.start_from), str(parsed.labels)) == ("other", "l")
    parsed = parse("demo_vqvae", names[:4])
    assert (parsed.start_from, parsed.labels) == (None, None)


def test_a_run_gives_its_settings(tmp_path):
    experiment = presets.demo_upsampler_level_0()
    save_mapped(tmp_path, 5, {"ema": {"w": np.ones(3)}}, {"experiment": to_dict(experiment)})
    names = ["--data", str(tmp_path), "--workdir", "w", "--optimizer.kind", "jukebox"]
    optimizer = dataclasses.replace(experiment.optimizer, kind="jukebox")
    expected = dataclasses.replace(experiment, optimizer=optimizer)
    assert parse(str(tmp_path), names).experiment == expected
