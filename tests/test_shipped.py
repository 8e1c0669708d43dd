"""Packed models: complete in one folder, found by name, and refused where a bit is turned."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import tiny_model

import jukejax
from experiments import model as command
from experiments import training
from jukejax import model_dir
from jukejax.config import MeshConfig, PriorExperiment
from jukejax.errors import CheckpointError, JukejaxError
from jukejax.interop import exporting
from jukejax.model_dir import load_vqvae, read_model_dir
from jukejax.parallel.mesh import make_mesh
from jukejax.sampling.sample_dir import read_job
from jukejax.training import growing
from jukejax.training.checkpoint import load_experiment, open_existing
from jukejax.training.step import abstract_state
from jukejax.training.tasks import make_task


@pytest.fixture(scope="module")
def model(tiny_folder, tmp_path_factory):
    """The folder of a packed model, with the run's model directory beside it."""
    folder = tmp_path_factory.mktemp("shipped")
    (folder / "card.md").write_text("# Tiny\n\nRandom weights.\n")
    return ship(tiny_folder, folder / "card.md", folder / "tiny-songs")


def ship(model, card, out):
    command.main(["ship", str(model), "--card", str(card), "--out", str(out)])
    return out


@pytest.fixture
def by_name(model, monkeypatch):
    monkeypatch.setattr(model_dir, "SHIPPED", model.parent)


def rounded(tree):
    """Weights as bfloat16 gives them."""
    return jax.tree.map(lambda x: np.asarray(x.astype("bfloat16").astype("float32")), tree)


def test_its_parts_are_those_of_the_runs_with_priors_in_bfloat16(model, tiny_folder):
    mesh = make_mesh(MeshConfig(fsdp=2))
    source, packed = read_model_dir(tiny_folder), read_model_dir(model)
    vqvae, same = load_vqvae(source.vqvae, mesh), load_vqvae(packed.vqvae, mesh)
    assert same.fingerprint == vqvae.fingerprint and same.config == vqvae.config
    for level in source.priors:
        run, part = source.load_prior(mesh, vqvae, level), packed.load_prior(mesh, same, level)
        assert (part.config, part.step) == (run.config, run.step)
        jax.tree.map(np.testing.assert_array_equal, part.params, rounded(run.params))
        for a, b in zip(jax.tree.leaves(part.params), jax.tree.leaves(run.params), strict=True):
            assert a.dtype == b.dtype and a.sharding == b.sharding
    assert packed.labels(2).read_text() == source.labels(2).read_text()
    assert (model / "README.md").read_text().startswith("# Tiny")


def test_it_is_loaded_and_sampled_by_its_name(model, by_name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {"artist": "Ella", "genre": "Jazz", "seconds": 0.02, "seed": 3}
    song = jukejax.load("tiny-songs").sample(**asked)
    again = jukejax.load(model).sample(**asked)
    for a, b in zip(song.codes, again.codes, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (
        read_job(song.folder / "job.json")[1].model == "tiny-songs"
    )  # and no path of this machine
    (tmp_path / "tiny-songs").mkdir()  # a folder of that name comes first
    with pytest.raises(CheckpointError, match="not a model directory"):
        jukejax.load("tiny-songs")


def test_an_unknown_name_is_answered_with_those_that_exist(by_name):
    with pytest.raises(CheckpointError, match=r"tiny-songs \(did you mean tiny-songs\?\)"):
        read_model_dir("tiny-song")


def test_a_turned_bit_in_any_file_is_refused(model, tmp_path):
    names = sorted(path.name for path in model.iterdir() if path.name != model_dir.NAME)
    assert len(names) == 6
    for name in names:
        folder = tmp_path / name
        shutil.copytree(model, folder)
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
        with pytest.raises(JukejaxError, match=f"{name} is damaged: its SHA-256"):
            read_model_dir(folder)
    with pytest.raises(JukejaxError, match="is damaged: its SHA-256"):  # without model.json first
        load_experiment(tmp_path / "prior_1.safetensors" / "prior_1.safetensors")
    (folder / model_dir.NAME).unlink()
    with pytest.raises(JukejaxError, match=r"there is no .*model\.json"):
        load_experiment(folder / "vqvae.safetensors")


def test_weights_of_another_model_are_refused(model):
    path = model / "prior_2.safetensors"
    wider = dataclasses.replace(tiny_model.TOP, mlp_ratio=2.0)
    for config, words in ((wider, "has shape"), (tiny_model.MIDDLE, "it has no ema/")):
        state = abstract(config)
        with open_existing(path) as weights, pytest.raises(CheckpointError, match=words):
            weights.restore({"ema": state.ema})


def abstract(config):
    experiment = PriorExperiment(model=config)
    return abstract_state(make_task(experiment), experiment, make_mesh(experiment.mesh))


def test_training_starts_from_it_and_label_tables_grow(model):
    path = model / "prior_2.safetensors"
    assert training._run_settings(str(path)).model == tiny_model.TOP
    labels = dataclasses.replace(tiny_model.TOP.labels, artists=5)
    state = abstract(dataclasses.replace(tiny_model.TOP, labels=labels))
    with open_existing(path) as weights:
        small = weights.restore({"ema": abstract(tiny_model.TOP).ema})["ema"]
        grown = growing.restore_grown(weights, {"ema": state.ema, "extra": {}})["ema"]
    table = np.asarray(small["labels"]["artist"])
    np.testing.assert_array_equal(grown["labels"]["artist"], table[[0, 1, 2, 0, 0]])
    np.testing.assert_array_equal(grown["token"], small["token"])


def test_exports_read_the_same_weights(model, tiny_folder):
    for name in ("vqvae", "prior_2"):
        workdir = tiny_folder.parent / name
        file = model / f"{name}.safetensors"
        with exporting.open_run(file) as packed, exporting.open_run(workdir) as run:
            assert packed.hps == run.hps and packed.step == run.step
            for key, source in run.sources.items():
                array = source.array(key)
                wanted = array if name == "vqvae" else rounded(array)
                np.testing.assert_array_equal(packed.sources[key].array(key), wanted)


def test_the_same_model_is_packed_to_the_same_bytes_and_never_over_another(
    model, tiny_folder, tmp_path
):
    again = ship(tiny_folder, model.parent / "card.md", tmp_path / "again")
    for path in model.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(SystemExit, match="is not empty"):
        ship(tiny_folder, model.parent / "card.md", again)
    with pytest.raises(SystemExit, match=r"--card .*no such file"):
        ship(tiny_folder, tmp_path / "nothing.md", tmp_path / "third")
    assert not (tmp_path / "third").exists()
    twice = ship(model, model / "README.md", tmp_path / "twice")  # a packed model again
    files = json.loads((twice / model_dir.NAME).read_text())["files"]
    assert files == json.loads((model / model_dir.NAME).read_text())["files"]


def test_the_model_that_comes_along_is_small_and_sings():
    from data_pipeline.sung_lines import bundled_lines
    from jukejax.tunes import read_midi, sung

    folder = model_dir.SHIPPED / "small-songs"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 30e6
    model = jukejax.load("small-songs")
    assert model.sample_rate == 22_050 and model.levels == 1
    names = json.loads((folder / "labels.json").read_text())
    for line in bundled_lines():
        assert line.artist.lower() in names["artists"] and line.genre in names["genres"]
        assert model.request(tracks=sung(line.words, read_midi(line.tune)), artist=line.artist)
    line = bundled_lines()[0]
    tracks = sung(line.words, read_midi(line.tune))
    song = model.sample(tracks=tracks, artist=line.artist, seconds=1.0, render=True)
    codes, other = song.codes[0], model.sample(artist=line.artist, seconds=1.0).codes[0]
    assert len(np.unique(codes)) > 50 and (codes != other).any()
    assert 0.9 < len(song.audio) / 22_050 <= 1.0 and 0.01 < np.abs(song.audio).max() <= 1
