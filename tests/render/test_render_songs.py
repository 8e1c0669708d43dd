"""Scores to note times, phones on beats, pitch, chords, MIDI and .deb reading: no tools needed."""

import io
import json
import struct
import tarfile
from itertools import pairwise

import numpy as np
import pytest

from data_pipeline.render import band as singing_band
from data_pipeline.render import scores
from data_pipeline.render import songs as render_songs
from data_pipeline.render import sound as singing_audio
from data_pipeline.render import tracks as fetch_tracks
from jukejax import locks
from jukejax.errors import FolderInUse
from jukejax.text import singing
from jukejax.text.singing import Phone, Segment

SCORE = {
    "id": "test",
    "tempo": 120,
    "bar": 4,
    "lead_in": 2,
    "style": "strum",
    "programs": {"chord": 0},
    "lines": [
        [["A-", [[60, 1]]], ["maz-", [[62, 2]]], ["ing", [[64, 0.5], [62, 0.5]]], ["", [[0, 1]]]],
        [["grace!", [[60, 3]]]],
    ],
    "chords": [["C", 4], ["G7", 6]],
}
AMAZING = [
    Phone(*p)
    for p in [
        ("ax", 0.2, 0.3),
        ("m", 0.3, 0.36),
        ("ey", 0.36, 0.5),
        ("z", 0.5, 0.6),
        ("ih", 0.6, 0.7),
        ("ng", 0.7, 0.8),
    ]
]
GRACE = [Phone("g", 0.1, 0.15), Phone("r", 0.15, 0.2), Phone("ey", 0.2, 0.4), Phone("s", 0.4, 0.6)]


@pytest.fixture
def segments():
    return singing.place_phones(scores.score_syllables(SCORE), [AMAZING, GRACE])


def test_score_text():
    assert scores.score_words(SCORE) == ["Amazing", "grace!"]
    assert scores.score_lyrics(SCORE) == "Amazing\ngrace!"


def test_score_syllables_in_seconds():
    syllables = scores.score_syllables(SCORE)
    assert [s.word for s in syllables] == [0, 0, 0, 1]
    assert [s.start for s in syllables] == pytest.approx([1.0, 1.5, 2.5, 3.5])
    assert syllables[2].notes == ((64.0, 2.5, 2.75), (62.0, 2.75, 3.0))
    assert [s.ends_line for s in syllables] == [False, False, True, True]
    assert scores.score_seconds(SCORE) == pytest.approx(5.0)


def test_a_word_may_not_cross_a_line():
    with pytest.raises(ValueError, match="inside the word"):
        scores.line_words([["half-", [[60, 1]]]])


def test_load_score_compares_beats(tmp_path):
    path = tmp_path / "score.json"
    path.write_text(json.dumps(SCORE))
    assert scores.load_score(path)["id"] == "test"
    path.write_text(json.dumps(SCORE | {"chords": [["C", 4]]}))
    with pytest.raises(ValueError, match="beats"):
        scores.load_score(path)


def test_split_syllables_gives_the_onset_to_the_right():
    assert singing.split_syllables(["k", "ah", "n", "t", "r", "iy"], 2) == [(0, 1, 3), (3, 5, 6)]
    assert singing.split_syllables(["s", "ih", "ng", "ih", "ng"], 2) == [(0, 1, 3), (3, 3, 5)]
    with pytest.raises(ValueError, match="vowels"):
        singing.split_syllables(["ay"], 2)


def test_vowels_start_on_the_beat(segments):
    vowels = [s for s in segments if s.phone in singing.VOWELS]
    assert [s.target[0] for s in vowels] == pytest.approx([1.0, 1.5, 2.5, 3.5])


def test_segments_follow_each_other(segments):
    assert all(s.target[1] > s.target[0] for s in segments)
    for left, right in pairwise(segments):
        assert right.target[0] >= left.target[1] - 1e-9


def test_word_times_hold_the_consonants(segments):
    (start, end), (grace_start, grace_end) = scores.word_times(segments, 2)
    assert start == pytest.approx(1.0)  # begins with a vowel
    assert end < 3.0  # a breath before the rest
    assert 3.3 < grace_start < 3.5  # "gr" before the beat
    assert 4.5 < grace_end < 5.0


@pytest.mark.parametrize("phone", ["aa", "ay", "s"])
@pytest.mark.parametrize("held", [0.05, 1.5])
def test_source_times_are_monotone_and_reach_both_ends(phone, held):
    segment = Segment(0, phone, (0.2, 0.4), (3.0, 3.0 + held))
    at = scores.source_times(segment, np.linspace(3.0, 3.0 + held, 200))
    assert at[0] == pytest.approx(0.2) and at[-1] == pytest.approx(0.4)
    assert (np.diff(at) >= 0).all()


def test_long_vowels_keep_their_natural_start():
    segment = Segment(0, "aa", (0.2, 0.4), (3.0, 5.0))
    assert scores.source_times(segment, np.array([3.03]))[0] == pytest.approx(0.23)


def test_pitch_contour_sings_the_notes():
    syllables = scores.score_syllables(SCORE)
    pitch = scores.pitch_contour(syllables, 1000)  # (F,)
    midi = 69 + 12 * np.log2(pitch / 440)
    for syllable in syllables:
        for note, start, end in syllable.notes:
            middle = slice(int((start + 0.07) / 0.005), int((end - 0.1) / 0.005))
            assert abs(np.median(midi[middle]) - note) < 0.2
    assert np.abs(np.diff(midi)).max() < 0.5  # glides, no steps


def test_chords():
    assert singing_band.chord_pitches("C") == (36, [55, 60, 64])
    bass, pitches = singing_band.chord_pitches("Bb7")
    assert bass == 46 and {p % 12 for p in pitches} == {10, 2, 5, 8}
    with pytest.raises(ValueError, match="chord symbol"):
        singing_band.chord_pitches("H")


@pytest.mark.parametrize("style", sorted(singing_band.STYLES))
def test_accompaniment_stays_inside_the_song(style):
    notes = singing_band.accompany(SCORE | {"style": style, "drums": "soft"})
    assert min(n[0] for n in notes) == 0
    assert max(n[0] for n in notes) < 10
    assert all(0 < n[3] < 128 and 0 < n[4] < 128 for n in notes)


def test_midi_file_is_well_formed():
    data = singing_band.midi_bytes(singing_band.accompany(SCORE), 120, {"bass": 32})
    assert data[:14] == b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480)
    assert struct.unpack(">I", data[18:22])[0] == len(data) - 22
    assert data.endswith(b"\xff\x2f\x00")


def test_level_reaches_the_target_without_clipping():
    rng = np.random.default_rng(0)
    sound = rng.standard_normal((44_100, 2)) * 3
    levelled = singing_audio.level(sound)
    assert singing_audio.rms(levelled) == pytest.approx(singing_audio.TARGET_RMS, rel=0.01)
    assert np.abs(singing_audio.level(sound**5)).max() < 1


def test_manifest_rows_merge_by_id(tmp_path):
    path = tmp_path / "songs.jsonl"
    singing_audio.update_manifest(path, [{"id": "b", "n": 1}, {"id": "c", "n": 1}])
    singing_audio.update_manifest(path, [{"id": "a", "n": 2}, {"id": "b", "n": 2}])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["id"], row["n"]) for row in rows] == [("a", 2), ("b", 2), ("c", 1)]


def test_every_score_loads_and_names_its_singer():
    paths = sorted(render_songs.SCORES.glob("*.json"))
    assert len(paths) >= 8
    for path in paths:
        score = scores.load_score(path)
        assert score["id"] == path.stem and score["singer"] in render_songs.ARTISTS
        assert all(word for word in scores.score_words(score))
        singing_band.accompany(score)


@pytest.mark.parametrize("module", [render_songs, fetch_tracks])
def test_two_at_once_are_refused(module, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["render", "--out", str(tmp_path)])
    with locks.writing(tmp_path), pytest.raises(FolderInUse, match="is being written by process"):
        module.main()
    assert not list(tmp_path.iterdir())


def test_deb_files_reads_an_ar_of_tars():
    tar_bytes = io.BytesIO()
    with tarfile.open(fileobj=tar_bytes, mode="w:xz") as tar:
        info = tarfile.TarInfo("./usr/share/x.ogg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    deb = b"!<arch>\n"
    for name, data in (("debian-binary", b"2.0\n"), ("data.tar.xz", tar_bytes.getvalue())):
        deb += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data
        deb += b"\n" * (len(data) % 2)
    assert fetch_tracks.deb_files(deb, ["usr/share/x.ogg"]) == {"usr/share/x.ogg": b"abc"}
    with pytest.raises(ValueError, match="not in the package"):
        fetch_tracks.deb_files(deb, ["y"])
    with pytest.raises(ValueError, match="ar archive"):
        fetch_tracks.deb_files(b"zip", [])


def test_recorded_tracks_have_a_row_and_a_package():
    tracks = fetch_tracks.load_tracks()
    rows = {row["id"]: row for row in singing_audio.read_rows(singing_audio.MUSIC / "songs.jsonl")}
    assert {track.id for track in tracks} == {id for id in rows if "lyrics" not in rows[id]}
    for track in tracks:
        assert rows[track.id]["audio"] == f"audio/{track.id}.ogg"
        assert track.paths[0].startswith(track.package.folder) and track.paths[0].endswith(".ogg")
