"""Tracks from the manifest to the batches that a prior trains on."""

import itertools
import json

import numpy as np
import pytest
import tiny_codes
from batches import code_batches

from data_pipeline.code_loader import code_windows
from data_pipeline.manifest import read_manifest, write_manifest
from data_pipeline.songs import prepared_songs
from experiments import data
from jukejax import tracks
from jukejax.config import ConfigError, PriorConfig, PriorExperiment, Track, TracksConfig
from jukejax.errors import DataError

EVENTS = {
    "0": {"notes": [["60", 0.0, 0.4], ["7", 0.3, 1.0]], "phones": [["aa", 0.0, 1.0]]},
    "1": {"notes": [["72", 0.2, 0.9]]},
}
ALONG = TracksConfig((Track("notes", places=2), Track("phones")), parts=4, width=4, depth=1)
PRIOR = PriorConfig(codes=16, n_ctx=64, width=8, depth=1, blocks=4, tracks=ALONG)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("songs")
    for name, events in EVENTS.items():
        (path / f"{name}.json").write_text(json.dumps(events))
    tiny_codes.write(path, [{"tracks_file": "0.json"}, {"tracks_file": "1.json"}, {}])
    return path


@pytest.fixture(scope="module")
def fitted(folder):
    return data.fit_tracks(PriorExperiment(PRIOR), folder / "codes").model


def test_tracks_come_with_the_songs(folder):
    songs = prepared_songs(folder / "codes")
    for song in songs:
        expected = {k: tuple(map(tuple, v)) for k, v in EVENTS.get(song.id, {}).items()}
        assert song.tracks == expected
    again = folder / "again.jsonl"
    write_manifest(read_manifest(folder / "songs.jsonl").songs, again)
    assert list(read_manifest(again).songs) == list(read_manifest(folder / "songs.jsonl").songs)


def test_another_track_file_changes_the_manifest(folder):
    before, path = read_manifest(folder / "songs.jsonl").digest, folder / "1.json"
    text = path.read_text()
    path.write_text(text.replace("72", "73"))
    assert read_manifest(folder / "songs.jsonl").digest != before
    path.write_text("{")
    (problem,) = read_manifest(folder / "songs.jsonl").problems
    assert problem.skipped and "1.json is not JSON" in problem.text
    path.write_text(text)
    assert read_manifest(folder / "songs.jsonl").digest == before


def test_events_are_those_of_the_data_numbers_by_value(fitted, folder):
    assert [track.events for track in fitted.tracks.tracks] == [("7", "60", "72"), ("aa",)]
    assert data.fit_tracks(PriorExperiment(fitted), folder / "codes").model == fitted
    named = data.fit_tracks(PriorExperiment(), folder / "codes", ("notes:3", "phones")).model
    assert [track.places for track in named.tracks.tracks] == [3, 1]
    assert [t.events for t in named.tracks.tracks] == [t.events for t in fitted.tracks.tracks]
    with pytest.raises(ConfigError, match="--tracks notes:x: give NAME or NAME:PLACES"):
        data.fit_tracks(PriorExperiment(), folder / "codes", ("notes:x",))
    unknown = PriorConfig(n_ctx=64, blocks=4, tracks=TracksConfig((Track("chords"),)))
    with pytest.raises(ConfigError, match=r"no song of .* has such a track"):
        data.fit_tracks(PriorExperiment(unknown), folder / "codes")


def test_every_window_has_its_own_stretch_of_the_tracks(folder, fitted):
    songs = prepared_songs(folder / "codes")
    seen = 0
    for batch in code_windows(folder / "codes", fitted, None, split="train", batch_size=4):
        for row in np.flatnonzero(batch["valid"]):
            song, first = songs[int(batch["song"][row])], int(batch["offset"][row])
            expected = tracks.window(fitted.tracks, song.tracks, 44_100, first, 128, 64)
            for name, array in expected.items():
                np.testing.assert_array_equal(batch[name][row], array)
                seen += int((array >= 0).sum())
    assert seen > 900


def test_each_track_is_dropped_by_itself_and_nothing_else_changes(folder, fitted):
    options = {"batch_size": 64, "seed": 3, "split": "train"}
    plain = next(code_batches(folder / "codes", fitted, None, **options))
    batches = code_batches(folder / "codes", fitted, None, track_dropout=0.5, **options)
    dropped = next(batches)
    for name in plain.keys() - {"track_notes", "track_phones"}:
        np.testing.assert_array_equal(plain[name], dropped[name])
    absent = [(dropped[name] == tracks.ABSENT).all((1, 2)) for name in fitted.tracks.arrays]
    for name, gone in zip(fitted.tracks.arrays, absent, strict=True):
        np.testing.assert_array_equal(plain[name][~gone], dropped[name][~gone])
    had = (plain["track_phones"] != tracks.ABSENT).all((1, 2))  # song 0
    notes, phones = absent[0][had], absent[1][had]
    for both in itertools.product((False, True), repeat=2):
        assert ((notes, phones) == np.array(both)[:, None]).all(0).any()
    again = code_batches(folder / "codes", fitted, None, track_dropout=0.5, start_step=1, **options)
    second = next(batches)
    for name, array in next(again).items():
        np.testing.assert_array_equal(array, second[name])


def test_an_event_that_the_prior_does_not_know_is_a_sentence(folder):
    few = TracksConfig((Track("notes", ("60", "7")),))
    config = PriorConfig(codes=16, n_ctx=64, width=8, depth=1, blocks=4, tracks=few)
    with pytest.raises(DataError, match="song '1': the track 'notes' has '72'"):
        list(code_windows(folder / "codes", config, None, split="train", batch_size=4))
