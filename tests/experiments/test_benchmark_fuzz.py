"""Damaged sound files never stop the others, and never come out other than soundfile reads them."""

import os

import pytest

from data_pipeline import records
from data_pipeline.songs import prepared_songs
from experiments.benchmark import fuzz

MUTATIONS = int(os.environ.get("JUKEJAX_MUTATIONS", "500"))


def test_a_few(tmp_path, monkeypatch):
    found = fuzz.run(fuzz.Command(folder=tmp_path / "f", mutations=50, seconds=1.5))
    assert found["wrong"] == [] and found["others"] == []
    assert found["mutations"] == 50
    counts = [sum(row.values()) for row in found["table"].values()]
    assert sum(counts) == 55 and sum(row["whole"] for row in found["table"].values()) == 5
    assert sum(row.get("decoded", 0) for row in found["table"].values()) > 5
    assert "wrong: 0" in "\n".join(fuzz.lines(found))
    out = tmp_path / "f" / "records"  # the comparison sees one sample that differs
    song = next(song for song in prepared_songs(out) if song.id.endswith("wav"))
    pcm = records.read_audio(out, song, 0, song.n_samples).copy()
    assert fuzz.is_right(out, song)
    pcm[100, 0] ^= 1
    monkeypatch.setattr(records, "read_audio", lambda *args: pcm)
    assert not fuzz.is_right(out, song)


@pytest.mark.slow
def test_many(tmp_path):
    command = fuzz.Command(folder=tmp_path / "f", mutations=MUTATIONS, seed=1)
    found = fuzz.run(command)
    print("\n".join(fuzz.lines(found)))
    assert found["wrong"] == [] and found["mutations"] == MUTATIONS
