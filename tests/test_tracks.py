"""Events of tracks on the grid of the codes, against an event at a time; track files."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jukejax.config import ConfigError, Track, TracksConfig
from jukejax.errors import DataError
from jukejax.tracks import ABSENT, EMPTY, read_tracks, require_known, song_tracks, window

RATE, HOP, CODES, PARTS = 100, 10, 12, 4  # ten codes a second
NOTES = TracksConfig((Track("notes", ("60", "61", "62"), places=2),), parts=PARTS)


def grid(events, first=0):
    return window(NOTES, {"notes": events}, RATE, first, HOP, CODES)["track_notes"]


def test_an_event_has_its_first_code_and_then_equal_parts():
    (column,) = grid([("61", 0.2, 0.9)]).T[:1]
    assert column.tolist() == [EMPTY, EMPTY, 4, 5, 5, 6, 6, 7, 7, EMPTY, EMPTY, EMPTY]


def test_a_short_event_has_one_code_and_a_window_sees_the_middle_of_a_long_one():
    assert grid([("60", 0.51, 0.51)])[:, 0].tolist() == [-1] * 5 + [0] + [-1] * 6
    assert grid([("62", 0.0, 9.0)], first=300)[:, 0].tolist() == [10] * 12


def test_of_too_many_events_those_that_began_last_are_read():
    events = [("60", 0.0, 1.2), ("61", 0.3, 1.2), ("62", 0.6, 1.2)]
    names = grid(events) // PARTS
    assert names[2].tolist() == [0, -1]
    assert names[4].tolist() == [1, 0]
    assert names[8].tolist() == [2, 1]
    np.testing.assert_array_equal(grid(events[::-1]) // PARTS, names)


def test_a_track_that_a_song_does_not_have_is_absent_not_empty():
    assert (window(NOTES, {"phones": ()}, RATE, 0, HOP, CODES)["track_notes"] == ABSENT).all()
    assert (grid([]) == EMPTY).all()


times = st.integers(0, 300).map(lambda x: x / RATE)
events = st.lists(st.tuples(st.sampled_from(["60", "61", "62"]), times, times), max_size=6)


@given(events, st.integers(0, 20).map(lambda x: x * HOP))
def test_windows_are_cut_out_of_the_song(drawn, first):
    drawn = [(what, min(a, b), max(a, b)) for what, a, b in drawn]
    song = window(NOTES, {"notes": drawn}, RATE, 0, HOP, 40)["track_notes"]
    np.testing.assert_array_equal(grid(drawn, first), song[first // HOP :][:CODES])
    for step, places in enumerate(song):
        begun = [(what, a, b) for what, a, b in drawn if round(a * RATE) < (step + 1) * HOP]
        sounding = {int(what) - 60 for what, _, b in begun if round(b * RATE) > (step + 0.5) * HOP}
        found = set((places[places >= 0] // PARTS).tolist())
        assert found <= {int(what) - 60 for what, _, _ in begun}
        assert (places >= 0).all() or sounding <= found


def test_a_file_is_read_and_its_tracks_survive_a_job(tmp_path):
    path = tmp_path / "song.json"
    path.write_text(json.dumps({"notes": [["60", 0, 0.5], ["61", 0.5, 2]], "phones": []}))
    tracks = read_tracks(path)
    assert tracks == {"notes": (("60", 0.0, 0.5), ("61", 0.5, 2.0)), "phones": ()}
    assert {track.name: track.events for track in song_tracks(tracks)} == tracks


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "not JSON"),
        ("[]", "must be an object"),
        ('{"notes": 3}', "track 'notes' must be a list"),
        ('{"notes": [["60", 2, 1]]}', r"\['60', 2, 1\]"),
        ('{"notes": [["60", 0, NaN]]}', "start <= end"),
        ('{"notes": [[60, 0, 1]]}', "what"),
        ('{"notes": [["60", true, 1]]}', "start_seconds"),
    ],
)
def test_a_damaged_file_is_a_sentence(tmp_path, text, words):
    (tmp_path / "song.json").write_text(text)
    with pytest.raises(DataError, match=words) as error:
        read_tracks(tmp_path / "song.json")
    assert "song.json" in str(error.value)


def test_a_missing_file_and_an_unknown_event_are_sentences(tmp_path):
    with pytest.raises(DataError, match=r"none.json cannot be read \(No such file"):
        read_tracks(tmp_path / "none.json")
    with pytest.raises(DataError, match="song 'a': the track 'notes' has '99', but the prior know"):
        require_known(NOTES, {"notes": [("60", 0, 1), ("99", 1, 2)]}, "song 'a'")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Track("no name"), "name"),
        (lambda: Track("notes", places=0), "places"),
        (lambda: Track("notes", ("60", "60")), "twice"),
        (lambda: TracksConfig(), "at least one"),
        (lambda: TracksConfig((Track("a"), Track("a"))), "each once"),
        (lambda: TracksConfig((Track("a"),), parts=1), "parts"),
        (lambda: TracksConfig((Track("a"),), depth=0), "depth"),
    ],
)
def test_impossible_settings(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
