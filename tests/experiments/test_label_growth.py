"""Year, tags and new names through the commands: prepare, grow, train, start from, sample."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny_codes

from experiments import data
from experiments import labels as command
from experiments.training import Training, train
from jukejax.config import (
    ConfigError,
    LabelsConfig,
    LyricsConfig,
    PriorConfig,
    PriorExperiment,
    TrainConfig,
    VQVAEConfig,
    to_dict,
)
from jukejax.errors import CheckpointError, DataError, InteropError
from jukejax.interop import huggingface_settings
from jukejax.interop.openai_settings import prior_settings
from jukejax.parallel.mesh import make_mesh
from jukejax.sampling.conditions import job_conditions
from jukejax.sampling.job import Item, Job
from jukejax.text.labels import Vocabulary, labels_digest
from jukejax.training.checkpoint import load_experiment, open_existing, save_mapped
from jukejax.training.step import abstract_state
from jukejax.training.tasks import make_task

LABELS = LabelsConfig(timing_bins=4, min_seconds=0.1, max_genres=3)
ALL = replace(LABELS, years=-1, tags=-1, max_tags=3)
PRIOR = PriorExperiment(
    PriorConfig(codes=16, n_ctx=16, width=8, depth=1, blocks=4, labels=ALL),
    train=TrainConfig(batch=8, steps=1),
)


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    songs = [
        {"artist": "Nina", "genres": ["jazz"], "year": 1964, "tags": ["calm", "late night"]},
        {"artist": "Zarah", "genres": ["chanson"], "lyrics": "さくら"},
    ]
    return tiny_codes.write(tmp_path_factory.mktemp("old"), songs)


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    songs = [
        {"artist": "Abba", "genres": ["pop", "jazz"], "year": 1976, "tags": ["dance", "calm"]},
        {"artist": "Zarah", "genres": ["chanson"], "year": 1938},
    ]
    return tiny_codes.write(tmp_path_factory.mktemp("new"), songs)


@pytest.fixture(scope="module")
def run(old, tmp_path_factory):
    """A run on the old songs, as far as starting from it goes."""
    workdir, vocabulary = tmp_path_factory.mktemp("run"), Vocabulary.load(old / "labels.json")
    experiment = data.fit_labels(PRIOR, vocabulary)
    state = abstract_state(make_task(experiment), experiment, make_mesh(experiment.mesh))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state.ema)
    digest = labels_digest(vocabulary, experiment.model.labels)
    note = {"fingerprint": "vqvae-1", "labels": digest}
    save_mapped(workdir, 1, {"ema": zeros}, {"experiment": to_dict(experiment), **note})
    return workdir


@pytest.fixture(scope="module")
def grown(old, new, tmp_path_factory):
    out = tmp_path_factory.mktemp("grown") / "labels.json"
    command.main(
        ["grow", "--labels", str(old / "labels.json"), "--data", str(new), "--out", str(out)]
    )
    return out


def test_prepare_names_decades_and_tags(old):
    vocabulary = Vocabulary.load(old / "labels.json")
    assert vocabulary.years == ("unknown", "1960s")
    assert vocabulary.tags == ("unknown", "calm", "late night")


def test_grown_names_follow_the_old(old, grown):
    before, after = Vocabulary.load(old / "labels.json"), Vocabulary.load(grown)
    assert after.artists == ("unknown", "nina", "zarah", "abba")
    assert after.genres == (*before.genres, "pop")
    assert after.years == (*before.years, "1930s", "1970s")
    assert after.tags == (*before.tags, "dance")
    with pytest.raises(SystemExit, match="exists already"):
        command.main(["grow", "--labels", str(grown), "--data", ".", "--out", str(grown)])


def test_show_counts_songs(old, capsys):
    command.main(["show", str(old / "labels.json"), "--data", str(old)])
    said = capsys.readouterr().out
    assert "artists: 3 with unknown" in said and "nina: 1 songs" in said and "1960s: 1" in said


@pytest.mark.slow
def test_a_run_starts_from_one_with_fewer_names(run, new, grown, tmp_path):
    said = []
    train(Training(new, tmp_path, PRIOR, start_from=run, labels=grown), said.append)
    assert any("embeddings of its own are kept" in line for line in said)
    tables = load_experiment(tmp_path)[0].model.labels.tables
    assert tables == {"artists": 4, "genres": 4, "years": 4, "tags": 4}
    with open_existing(tmp_path) as checkpoints:
        assert checkpoints.ema_shapes()["labels"]["tag"] == (4, 8)


def test_names_that_are_not_grown_from_the_old_are_refused(run, new, tmp_path):
    mixed = replace(PRIOR, model=replace(PRIOR.model, labels=replace(ALL, artists=9)))
    with pytest.raises(CheckpointError, match=r"do not begin with its own.*jukejax labels grow"):
        train(Training(new, tmp_path, mixed, start_from=run))


def test_years_that_no_song_has_are_refused(new, tmp_path):
    Vocabulary.build(["a"], ["b"]).save(tmp_path / "labels.json")
    with pytest.raises(ConfigError, match=r"labels\.years is -1, but the label names have no"):
        train(Training(new, tmp_path / "run", PRIOR, labels=tmp_path / "labels.json"))


def test_a_prior_without_years_does_not_mind_them():
    with_years = Vocabulary.build(["a"], ["b"], [1990], ["c"])
    without = Vocabulary.build(["a"], ["b"])
    assert labels_digest(with_years, LABELS) == labels_digest(without, LABELS)
    assert labels_digest(with_years, ALL) != labels_digest(without, ALL)
    assert labels_digest(without, LABELS) == labels_digest(without)


def described(labels, **item):
    config = replace(PRIOR.model, labels=labels)
    vocabulary = Vocabulary.build(["Nina"], ["jazz"], [1964], ["calm", "late night"])
    job = Job(items=(Item("Nina", ("jazz",), **item),), seconds=1.0)
    return job_conditions(config, vocabulary, job, 44_100)(0)


def test_an_alphabet_comes_from_the_lyrics_and_reaches_samples(old, new):
    words = LyricsConfig(tokens=8, width=8, depth=1, heads=1, blocks=2, alphabet="characters")
    asked = replace(PRIOR, model=replace(PRIOR.model, lyrics=words))
    config = data.fit_alphabet(asked, old).model
    assert config.lyrics.alphabet == "characters:くさら" and config.lyrics.vocabulary == 4
    assert data.fit_alphabet(replace(asked, model=config), new).model == config
    with pytest.raises(DataError, match="no song has lyrics"):
        data.fit_alphabet(asked, new)
    job = Job(items=(Item(lyrics="さくら、さ"),), seconds=1.0)
    plain = replace(config, labels=None)
    told = job_conditions(plain, Vocabulary.build([], []), job, 44_100)(0)
    assert told["lyrics"].tolist() == [[0, 0, 0, 0, 2, 1, 3, 2]]
    spelled = replace(plain, lyrics=replace(words, alphabet="bytes"))
    told = job_conditions(spelled, Vocabulary.build([], []), job, 44_100)(0)
    first = told["lyrics"][0]  # two characters of three bytes, and no part of a third
    assert first.tolist() == [0, 0, *(b + 1 for b in "さく".encode())]


def test_the_published_formats_refuse_what_they_cannot_hold():
    told = replace(PRIOR.model, labels=replace(ALL, artists=2, genres=2, years=2, tags=3))
    with pytest.raises(InteropError, match=r"conditioning on years and tags"):
        prior_settings(told)
    with pytest.raises(InteropError, match=r"prior 2: conditioning on years and tags"):
        huggingface_settings.check(VQVAEConfig(), {2: told})
    words = LyricsConfig(tokens=8, width=8, depth=1, heads=1, blocks=2, alphabet="bytes")
    with pytest.raises(InteropError, match=r"lyric alphabet 'bytes' \(theirs are v2 and v3\)"):
        prior_settings(replace(PRIOR.model, labels=None, lyrics=words))


def test_samples_are_told_year_and_tags():
    rows = replace(ALL, artists=2, genres=2, years=2, tags=3)
    told = described(rows, year=1969, tags=("Late  Night",))
    assert told["year"].tolist() == [1] and told["tags"].tolist() == [[2, -1, -1]]
    none = described(rows)
    assert none["year"].tolist() == [0] and none["tags"].tolist() == [[0, -1, -1]]
    with pytest.raises(DataError, match=r"year 1950 is not among .* nearest are '1960s'"):
        described(rows, year=1950)
    with pytest.raises(DataError, match="tag 'loud' is not among"):
        described(rows, tags=("loud",))
    plain = replace(LABELS, artists=2, genres=2)
    assert described(plain).keys() == {"artist", "genres", "total_length", "offset"}
    with pytest.raises(DataError, match="trained without years; leave out --year"):
        described(plain, year=1969)
    with pytest.raises(DataError, match="trained without tags; leave out --tags"):
        described(plain, tags=("calm",))
