"""The directory of a sample: its job, its codes, its journal, and what it refuses."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_model

from experiments import sample
from jukejax import locks
from jukejax.config import ConfigError
from jukejax.errors import DataError, FolderInUse, JukejaxError
from jukejax.model_dir import LoadedModel, LoadedVQVAE, ModelDir
from jukejax.sampling.job import Item, Job, Options
from jukejax.sampling.making import Board
from jukejax.sampling.request import make_request, request_again
from jukejax.sampling.sample_dir import SampleDir

soundfile = pytest.importorskip("soundfile")

WORDS = "We all live in a yellow submarine"
JOB = Job(
    model="/models/tiny",
    items=(Item("ella fitzgerald", ("soul", "jazz"), WORDS), Item("unknown", (), "")),
    seconds=6.0,
    seed=3,
)
MODEL = LoadedModel(
    ModelDir(Path("/models/tiny"), Path(), {}, {}),
    LoadedVQVAE(tiny_model.VQVAE, None, (), 0, ""),
    None,
)
LEVELS = [
    {"level": 1, "seconds_to_sample": None},
    {"level": 0, "seconds_to_sample": None},
]


def test_a_new_directory_holds_its_job(tmp_path):
    SampleDir(tmp_path / "a", JOB, 1000, LEVELS)
    record = json.loads((tmp_path / "a" / "job.json").read_text())
    assert record["title"] == "ella fitzgerald, unknown"
    assert record["model"] == "/models/tiny"
    assert (record["seed"], record["seconds"], record["sample_rate"]) == (3, 6.0, 1000)
    assert record["items"][0] == {
        "artist": "ella fitzgerald", "genres": ["soul", "jazz"], "lyrics": WORDS,
    }  # fmt: skip
    assert record["levels"] == LEVELS


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"seconds": 6.5},
        {"temperature": (0.98, 0.98, 0.97)},
        {"items": JOB.items[:1]},
    ],
)
def test_a_directory_of_another_job_is_refused_and_left_alone(tmp_path, change):
    SampleDir(tmp_path, JOB, 1000, LEVELS)
    before = (tmp_path / "job.json").read_bytes()
    with pytest.raises(ConfigError, match="samples of another job; choose another --out"):
        SampleDir(tmp_path, dataclasses.replace(JOB, **change), 1000, LEVELS)
    assert (tmp_path / "job.json").read_bytes() == before


def test_the_same_job_goes_on_with_codes_and_times(tmp_path):
    codes = np.array([[0, 2047, 65_535, 0]], np.int32)
    first = SampleDir(tmp_path, JOB, 1000, LEVELS)
    first.save(1, codes, np.array([3]))
    first.add_time(1, 2, 2.0)
    first.add_time(1, 1, 0.5)
    created = first.record["created"]

    again = SampleDir(tmp_path, JOB, 1000, LEVELS)
    loaded, done = again.load(1, (1, 4))
    assert done.tolist() == [3] and loaded.dtype == np.int32
    np.testing.assert_array_equal(loaded, codes)
    empty, none = again.load(0, (1, 8))
    assert none.tolist() == [0] and empty.shape == (1, 8) and not empty.any()
    again.add_time(1, 1, 1.0)
    record = json.loads((tmp_path / "job.json").read_text())
    assert [x["seconds_to_sample"] for x in record["levels"]] == [3.5, None]
    assert record["levels"][0]["steps"] == 4
    assert record["created"] == created


@pytest.mark.parametrize(
    ("first", "then", "kept"),
    [((1,), (0,), [1, 0]), ((), (0,), []), ((1,), (), []), ((1,), (1,), [1])],
)
def test_levels_may_be_added_to_a_directory(tmp_path, first, then, kept):
    SampleDir(tmp_path, dataclasses.replace(JOB, levels=first), 1000, LEVELS[:1])
    SampleDir(tmp_path, dataclasses.replace(JOB, levels=then), 1000, LEVELS[1:])
    record = json.loads((tmp_path / "job.json").read_text())
    assert record["request"]["levels"] == kept  # none stands for all
    assert record["levels"] == LEVELS


def test_the_journal_of_a_window_is_taken_for_that_window_alone(tmp_path):
    directory = SampleDir(tmp_path, JOB, 1000, LEVELS)
    drawn = np.array([[5, 65_535], [7, 0]])
    directory.save_window(1, 4, 32, drawn)
    np.testing.assert_array_equal(directory.load_window(1, 4, 32, 2), drawn)
    for other in ((1, 4, 31, 2), (1, 4, 32, 1), (1, 0, 32, 2), (0, 4, 32, 2)):
        assert directory.load_window(*other).shape == (other[-1], 0)
    directory.save_window(1, 4, 48, drawn[:, :0])
    assert not list(tmp_path.glob("level_1/*"))


def test_a_new_directory_begins_with_given_codes_and_no_old_ones(tmp_path):
    old = SampleDir(tmp_path, JOB, 1000, LEVELS)
    old.save(0, np.ones((2, 8)), np.array([8, 8]))
    old.save_window(1, 0, 4, np.ones((2, 3)))
    (tmp_path / "job.json").unlink()
    given = [np.zeros((2, 0), int), np.full((2, 3), 9)]
    new = SampleDir(tmp_path, JOB, 1000, LEVELS, given)
    assert new.load(0, (2, 8))[1].tolist() == [0, 0]
    codes, done = new.load(1, (2, 4))
    assert codes.tolist() == [[9, 9, 9, 0]] * 2 and done.tolist() == [3, 3]
    assert new.load_window(1, 0, 4, 2).shape == (2, 0)
    assert new.codes(1).tolist() == [[9, 9, 9]] * 2


def test_sounds_are_written_a_file_an_item(tmp_path):
    directory = SampleDir(tmp_path, JOB, 1000, LEVELS)
    audio = np.array([[0.0, 0.5, -1.0], [0.25, 0.0, 0.999]], np.float32)
    directory.save(1, np.zeros((2, 8)), np.array([8, 8]))
    assert not directory.has_sound(1)
    (tmp_path / "level_1" / "item_0.part.wav").write_bytes(b"of a run that was killed")
    for number, piece in enumerate([np.pad(audio, ((0, 0), (2, 0))), audio, audio[:, :2]]):
        directory.add_sound(1, piece, first=number == 0)
        sound, rate = soundfile.read(tmp_path / "level_1" / "item_1.part.wav")
        assert (len(sound), rate) == ((5, 8, 10)[number], 1000)  # it can be heard as it grows
        assert not directory.has_sound(1)
    directory.finish_sound(1)
    for i in range(2):
        sound, rate = soundfile.read(tmp_path / "level_1" / f"item_{i}.wav")
        assert rate == 1000
        expected = np.concatenate([[0, 0], audio[i], audio[i], audio[i, :2]])
        np.testing.assert_allclose(sound, expected, atol=2**-15)
    assert {p.name for p in (tmp_path / "level_1").glob("*.wav")} == {"item_0.wav", "item_1.wav"}
    assert directory.has_sound(1)
    part = tmp_path / "level_1" / ".item_0.0123.tmp.wav"  # of a run that was killed
    part.touch()
    again = SampleDir(tmp_path, JOB, 1000, LEVELS)
    assert not part.exists() and again.has_sound(1)
    again.save(1, np.zeros((2, 8)), np.array([8, 8]))
    assert not again.has_sound(1)


@pytest.mark.parametrize(
    "text", ["not json", "[1]", "{}", '{"request": 3}', '{"request": {"x": 1}}']
)
def test_a_file_that_is_no_job_is_refused_with_a_sentence(tmp_path, text):
    path = tmp_path / "job.json"
    path.write_text(text)
    with pytest.raises(JukejaxError, match=r"job\.json"):
        sample.run(sample.Command(out=tmp_path / "out", job=path))


def test_no_songs_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="count"):
        make_request(MODEL, Options(count=0))


def test_a_directory_begun_with_other_weights_is_refused(tmp_path):
    levels = [{"level": 0, "weights": "VQ-VAE a, prior step 1"}]
    SampleDir(tmp_path, JOB, 1000, levels)
    with pytest.raises(ConfigError, match="other weights"):
        SampleDir(tmp_path, JOB, 1000, [{"level": 0, "weights": "VQ-VAE a, prior step 2"}])


def test_a_job_takes_no_labels_but_its_own_and_may_name_where_the_model_went(tmp_path):
    SampleDir(tmp_path, JOB, 1000, [])
    file = tmp_path / "job.json"
    with pytest.raises(ConfigError, match="--seed cannot be combined with --job"):
        sample.run(sample.Command(out=tmp_path, job=file, seed=99))
    directory = dataclasses.replace(MODEL.directory, path=tmp_path / "moved")
    moved = request_again(dataclasses.replace(MODEL, directory=directory), file).job
    assert moved == dataclasses.replace(JOB, model=str(tmp_path / "moved"))
    SampleDir(tmp_path, moved, 1000, [])  # the same job, wherever the model is


def test_cut_or_foreign_codes_are_refused_with_a_sentence(tmp_path):
    directory = SampleDir(tmp_path, JOB, 1000, LEVELS)
    directory.save(0, np.zeros((2, 10), np.int32), np.array([8, 8]))
    with pytest.raises(ConfigError, match="remove it to continue"):
        directory.load(0, (2, 9))
    with pytest.raises(ConfigError, match="remove it to continue"):
        directory.load(0, (3, 10))
    file = tmp_path / "level_0" / "codes.npz"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DataError, match=r"codes.npz is damaged .*; remove it to continue"):
        directory.load(0, (2, 8))


def test_a_folder_without_a_job_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"job\.json does not exist; name a folder that"):
        SampleDir.open(tmp_path)


def test_codes_outside_the_codebook_are_refused(tmp_path):
    """An embedding would clamp them without a word."""
    directory = SampleDir(tmp_path, JOB, 1000, LEVELS)
    directory.save(0, np.full((2, 8), 15), np.array([8, 8]))
    levels = [SimpleNamespace(level=1, plan=None, config=SimpleNamespace(codes=16))]
    Board(directory, JOB, [8], levels)
    directory.save(0, np.full((2, 8), 16), np.array([8, 8]))
    with pytest.raises(DataError, match=r"level_0/codes.npz has codes from 16 to 16, .*; remove"):
        Board(directory, JOB, [8], levels)


def test_a_folder_in_use_is_found_before_the_model_is_loaded(tmp_path):
    with locks.writing(tmp_path), pytest.raises(FolderInUse, match="is being written by process"):
        tiny_model.sample(tmp_path, model="nowhere")
