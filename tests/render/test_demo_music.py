"""The bundled demo songs: a well-formed manifest, sound files, licences and word times."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

FOLDER = Path(__file__).parents[2] / "data_pipeline" / "demo_music"
KEYS = {"id", "audio", "artist", "album", "genres", "year", "tags", "lyrics", "words"}
KEYS |= {"licence", "group", "split"}
PERMISSIVE = {"BSD-2-Clause", "MIT", "MIT-Festival AND MIT"}


@pytest.fixture(scope="module")
def songs():
    lines = (FOLDER / "songs.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def seconds(song):
    return soundfile.info(FOLDER / song["audio"]).duration


def test_rows_have_known_keys_and_unique_ids(songs):
    assert len({song["id"] for song in songs}) == len(songs)
    for song in songs:
        assert set(song) <= KEYS
        assert all(song[key] for key in ("id", "audio", "artist", "genres", "licence"))
        assert song["split"] in ("train", "test")
        assert ("lyrics" in song) == ("words" in song)


def test_audio_is_44k_stereo_and_complete(songs):
    for song in songs:
        info = soundfile.info(FOLDER / song["audio"])
        assert (info.samplerate, info.channels, info.format) == (44_100, 2, "OGG")
        assert 20 < info.duration < 80
    on_disk = {path.name for path in (FOLDER / "audio").iterdir()}
    assert on_disk == {Path(song["audio"]).name for song in songs}


def test_audio_is_small_enough_to_bundle():
    assert sum(path.stat().st_size for path in (FOLDER / "audio").iterdir()) < 15e6


def test_recorded_artists_and_genres(songs):
    recorded = [song for song in songs if "lyrics" not in song]
    assert len({song["artist"] for song in recorded}) >= 3
    assert len({genre for song in recorded for genre in song["genres"]}) >= 3


def test_words_cover_the_lyrics_in_order(songs):
    sung = [song for song in songs if "lyrics" in song]
    assert len(sung) >= 8
    for song in sung:
        assert [text for text, _, _ in song["words"]] == song["lyrics"].split()
        times = np.array([word[1:] for word in song["words"]])  # (words, 2)
        assert times[0, 0] > 0 and times[-1, 1] < seconds(song)
        assert (times[:, 1] > times[:, 0]).all()
        assert (times[1:, 0] >= times[:-1, 1] - 2e-3).all()  # rounded to milliseconds


def test_held_out_songs(songs):
    held_out = [song for song in songs if song["split"] == "test"]
    trained = {song["artist"] for song in songs if song["split"] == "train"}
    assert {song["artist"] for song in held_out} <= trained
    assert sum("lyrics" in song for song in held_out) == 2
    share = sum(map(seconds, held_out)) / sum(map(seconds, songs))
    assert 0.12 < share < 0.22


def test_groups_do_not_cross_the_split(songs):
    splits = {}
    for song in songs:
        assert splits.setdefault(song["group"], song["split"]) == song["split"]


def test_licences_are_permissive_and_listed(songs):
    text = (FOLDER / "LICENCES.md").read_text(encoding="utf-8")
    for song in songs:
        assert song["licence"] in PERMISSIVE
        assert f"`{song['audio']}`" in text


def test_every_score_is_rendered(songs):
    scores = {path.stem for path in (FOLDER / "scores").glob("*.json")}
    assert scores == {song["id"] for song in songs if "lyrics" in song}


@pytest.mark.parametrize("name", ["jeanie", "sectoid_feelings"])
def test_loudness_and_headroom(name):
    sound, _ = soundfile.read(FOLDER / "audio" / f"{name}.ogg")
    assert 0.08 < np.sqrt(np.mean(sound**2)) < 0.12
    assert np.abs(sound).max() < 0.95
    assert np.abs(sound[:8]).max() < 0.02 and np.abs(sound[-8:]).max() < 0.02
