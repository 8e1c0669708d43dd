"""Sampling with tracks: from a file and in the library, stored in the job, checked at the door."""

import json

import mido
import numpy as np
import pytest
import tiny_model

import jukejax
from jukejax.config import Track, TracksConfig
from jukejax.errors import ConfigError, DataError
from jukejax.model_dir import load_prior
from jukejax.models.prior import Prior
from jukejax.sampling.resolve import resolve
from jukejax.sampling.sample_dir import read_job
from jukejax.tracks import ABSENT
from jukejax.tunes import Note, sung

ALONG = TracksConfig(
    (Track("notes", ("60", "61", "62"), places=2), Track("phones", ("aa", "b"))),
    parts=3, width=8, depth=2,
)  # fmt: skip
SONG = {"seconds": 0.05, "temperature": 5.0, "seed": 3, "levels": (2,)}
TUNE = {"notes": [("60", 0.0, 0.02), ("62", 0.02, 0.05)]}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("model"), tracks=ALONG)


@pytest.fixture(scope="module")
def loaded(model):
    return jukejax.load(model)


def command(folder, model, seconds, **more):
    """What the command makes of a tune."""
    (folder / "tune.json").write_text(json.dumps(TUNE))
    return tiny_model.sample(
        folder / f"{seconds}", model=model, tracks=folder / "tune.json", seconds=seconds, seed=3,
        temperature=(5.0,) * 3, **more,
    )  # fmt: skip


def test_the_tune_changes_the_codes_and_the_job_makes_them_again(model, loaded, tmp_path):
    out = command(tmp_path, model, 0.05)
    codes = tiny_model.codes(out, 2)[0]
    np.testing.assert_array_equal(codes, loaded.sample(tracks=TUNE, **SONG).codes[2])
    for other in ({"notes": [("61", 0.0, 0.05)]}, None):
        assert (codes != loaded.sample(tracks=other, **SONG).codes[2]).any()
    (item,) = read_job(out / "job.json")[1].items
    assert {track.name: list(track.events) for track in item.tracks} == TUNE
    tiny_model.assert_same(out, tiny_model.sample(tmp_path / "again", job=out / "job.json"))


def test_words_are_sung_to_the_melody_of_a_midi_file(tmp_path, capsys):
    tune = [Note(60, 0.0, 0.05), Note(62, 0.05, 0.1), Note(64, 0.1, 0.15)]
    words, midi = tmp_path / "words.txt", tmp_path / "tune.mid"
    words.write_text("go now\n")
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=480_000)])  # 1 ms a tick
    for note in tune:
        track.append(mido.Message("note_on", note=note.pitch, time=0))
        track.append(mido.Message("note_off", note=note.pitch, time=50))
    mido.MidiFile(type=0, tracks=[track]).save(midi)
    expected = sung("go now", tune)
    tracks = TracksConfig(
        (Track("notes", ("60", "62")), Track("phones", ("aw", "g", "n", "ow"))),
        parts=3, width=8, depth=2,
    )  # fmt: skip
    model = tiny_model.write(tmp_path, tracks=tracks)
    options = {"model": model, "lyrics": words, "seconds": 0.05, "levels": (2,)}
    out = tiny_model.sample(tmp_path / "out", tune=midi, **options)
    (item,) = read_job(out / "job.json")[1].items
    assert {track.name: track.events for track in item.tracks} == expected
    assert f"The words take 2 of the 3 notes of {midi}." in capsys.readouterr().out
    for wrong in ({"tune": midi, "tracks": words}, {"tune": midi, "lyrics": None}):
        with pytest.raises(ConfigError, match="--tune needs --lyrics, and takes the place of"):
            tiny_model.sample(tmp_path / "other", **options | wrong)
    with pytest.raises(DataError, match=r"--tune .*none\.mid: there is no such file"):
        tiny_model.sample(tmp_path / "other", tune=tmp_path / "none.mid", **options)


def test_a_song_that_is_continued_keeps_its_tracks(model, loaded, tmp_path):
    part = command(tmp_path, model, 0.03, total_seconds=0.06, levels=(2,))
    longer = loaded.request(continue_from=part, seconds=0.06, seed=3)
    assert longer.job.items == read_job(part / "job.json")[1].items
    with pytest.raises(ConfigError, match="--tracks cannot change in --continue-from"):
        loaded.request(continue_from=part, tracks=TUNE)


def test_guidance_draws_from_logits_moved_away_from_those_without_tracks(loaded):
    """The likeliest code at every position of a window, by the full pass over the window."""
    options = SONG | {"seconds": 0.032, "top_k": 1}  # a window of 16 codes
    guided = loaded.sample(tracks=TUNE, guidance=30.0, **options)
    request = loaded.request(tracks=TUNE, **options)
    level, directory = resolve(request, loaded.loaded)[0], loaded.loaded.directory
    prior = load_prior(directory.prior(2), loaded.loaded.mesh)
    batch = {"codes": guided.codes[2][None], **level.conditions(0)}
    without = batch | {name: np.full_like(batch[name], ABSENT) for name in ALONG.arrays}
    model = Prior(level.config)
    first, second = (model.apply({"params": prior.params}, x)[0][0] for x in (batch, without))
    expected = np.argmax(first + 30.0 * (first - second), -1)
    np.testing.assert_array_equal(guided.codes[2], expected)
    assert (expected != np.argmax(first, -1)).any()


def test_guided_songs_of_a_batch_with_chains_are_those_sampled_alone(loaded, tmp_path):
    options = SONG | {"levels": (2, 1), "tracks": TUNE, "guidance": 1.0, "parallel_segments": 2}
    alone = loaded.sample(**options)
    first, second = loaded.samples(count=2, **options)
    for level in (2, 1):
        np.testing.assert_array_equal(alone.codes[level], first.codes[level])
        assert (first.codes[level] != second.codes[level]).any()


def test_what_the_model_does_not_know_is_a_sentence(loaded, tmp_path):
    plain = jukejax.load(tiny_model.write(tmp_path))
    for model, given, words in (
        (loaded, {"chords": [("C", 0, 1)]}, "no track 'chords'; its tracks are notes, phones"),
        (plain, TUNE, "no track 'notes'; it was trained without tracks"),
        (loaded, {"notes": [("99", 0, 1)]}, "'notes' has '99', but the prior knows 60, 61, 62"),
    ):
        with pytest.raises(DataError, match=words):
            model.sample(tracks=given, **SONG)
    with pytest.raises(ConfigError, match="guidance is for priors that read tracks"):
        plain.sample(guidance=1.0, **SONG)


def test_a_window_is_conditioned_on_the_tracks_of_its_own_time(loaded):
    request = loaded.request(tracks=TUNE, **SONG | {"total_seconds": 0.2})
    level = resolve(request, loaded.loaded)[0]
    hop, rate = level.config.hop, level.config.sample_rate
    notes = level.conditions(8 * hop)["track_notes"][0, :, 0]
    expected = [
        next((int(what) - 60 for what, a, b in TUNE["notes"] if a <= t / rate < b), -1)
        for t in range(8 * hop, (8 + 16) * hop, hop)
    ]
    assert (notes // 3).tolist() == expected
    assert (level.conditions(8 * hop)["track_phones"] == -2).all()
