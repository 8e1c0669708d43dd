"""What training asks of its data: label names, also of another model, and the sample rate."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile

from data_pipeline import prepare
from data_pipeline.codes import CodesWriter, codes_length
from data_pipeline.plan import Options
from experiments import train
from jukejax import presets
from jukejax.config import (
    ConfigError,
    LabelsConfig,
    PriorConfig,
    PriorExperiment,
    TrainConfig,
    VQVAEExperiment,
)
from jukejax.text.labels import Vocabulary, labels_digest

HOPS = (8, 32, 128)
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
    folder = tmp_path_factory.mktemp("songs")
    noise = np.random.default_rng(0).normal(size=88_200) * 0.1
    soundfile.write(folder / "a.wav", noise, 44_100)
    song = {"id": "a", "audio": "a.wav", "artist": "AC/DC", "genres": ["Hard Rock", "Polka"]}
    (folder / "songs.jsonl").write_text(json.dumps({**song, "split": "train"}))
    prepare.build(folder / "songs.jsonl", folder / "data", options=Options(), show_progress=False)
    writer = CodesWriter(folder / "data", folder / "codes", HOPS, "vqvae-1", codes=16)
    for shard in writer.pending_shards():
        lengths = [codes_length(88_200, hop, HOPS[-1]) for hop in HOPS]
        writer.write_shard(shard, [(shard.songs[0], [np.zeros(n, int) for n in lengths])])
    writer.finish()
    return folder / "codes"


@pytest.fixture
def caught(monkeypatch):
    """What `train.run` would train with."""
    seen = {}

    def catch(experiment, mesh, workdir, batches, held_out, hooks, note, start_from, log, profile):
        seen.update(experiment=experiment, batch=next(batches(0)), note=note)

    monkeypatch.setattr(train, "train", catch)
    return seen


def test_labels_of_another_model_give_its_ids(codes, caught, tmp_path):
    vocabulary = Vocabulary(("unknown", "queen", "ac_dc"), ("unknown", "rock", "hard"), "v2")
    vocabulary.save(tmp_path / "labels.json")
    train.run(PRIOR, codes, tmp_path / "run", labels=tmp_path / "labels.json")
    assert set(caught["batch"]["artist"]) == {2}
    assert np.unique(caught["batch"]["genres"], axis=0).tolist() == [[2, 1, 0]]
    assert caught["note"]["labels"] == labels_digest(vocabulary)
    tables = caught["experiment"].model.labels
    assert (tables.artists, tables.genres) == (3, 3)


def test_without_them_the_names_are_those_of_the_data(codes, caught, tmp_path):
    train.run(PRIOR, codes, tmp_path / "run")
    assert set(caught["batch"]["artist"]) == {1}
    assert np.unique(caught["batch"]["genres"], axis=0).tolist() == [[1, 2, -1]]


def test_a_vqvae_takes_no_labels(codes, tmp_path):
    with pytest.raises(ConfigError, match="--labels"):
        train.run(VQVAEExperiment(), codes, tmp_path / "run", labels=tmp_path / "labels.json")


def test_songs_of_another_rate_than_the_model_are_refused(codes, tmp_path):
    small = presets.get("small_vqvae")
    message = r"model\.sample_rate is 22050, but .* holds songs of 44100 Hz.*--sample-rate 22050"
    with pytest.raises(ConfigError, match=message):
        train.run(small, codes.parent / "data", tmp_path / "run")
    model = dataclasses.replace(PRIOR.model, sample_rate=22_050)
    with pytest.raises(ConfigError, match=message):
        train.run(dataclasses.replace(PRIOR, model=model), codes, tmp_path / "run")


def test_the_option_reaches_the_command(tmp_path):
    paths = ["--data", "codes", "--workdir", "run", "--labels", "model/labels.json"]
    assert str(train.parse("demo_prior", paths).labels) == "model/labels.json"
    assert train.parse("demo_prior", paths[:4]).labels is None
