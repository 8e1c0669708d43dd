"""Damage of an Ogg file is detected at any byte."""

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from sounds import sound

from data_pipeline import ogg


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    path = tmp_path_factory.mktemp("ogg") / "a.ogg"
    soundfile.write(path, sound(1.0), 44_100)
    return path


def problem(song, data):
    path = song.with_name("changed.ogg")
    path.write_bytes(data)
    return ogg.problem(path)


def test_undamaged_files(song):
    data = song.read_bytes()
    assert ogg.problem(song) == ""
    assert problem(song, data + b"garbage") == ""  # after the end
    assert "several Ogg streams" in problem(song, data + data)  # libsndfile reads the first


@given(st.data())
def test_any_flipped_bit_is_detected(song, data):
    changed = bytearray(song.read_bytes())
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    assert problem(song, changed)


def test_a_missing_page_and_a_cut_file_are_detected(song):
    data = song.read_bytes()
    starts = [i for i in range(len(data)) if data[i : i + 4] == b"OggS"]
    assert len(starts) >= 4
    without = data[: starts[2]] + data[starts[3] :]
    assert "missing" in problem(song, without)
    for end in (0, 10, starts[1], starts[2] + 27, len(data) - 1):
        assert "cut short" in problem(song, data[:end])
