"""Batches straight from the files of a manifest are those of the records."""

import numpy as np
import pytest
import soundfile
from batches import audio_batches
from sounds import RATE, sound, write_lines, write_song

from data_pipeline import audio
from data_pipeline.plan import Options
from data_pipeline.song_files import SongFiles
from data_pipeline.windows import whole_pass
from jukejax.errors import DataError

OPTIONS = Options(min_seconds=0.25)


@pytest.mark.parametrize("split", ["train", "test"])
def test_batches_are_those_of_the_records(library, dataset, split):
    arguments = {"split": split, "samples": 20_001, "batch_size": 4, "seed": 3, "start_step": 7}
    files = SongFiles(library[0], OPTIONS)
    ours, theirs = (audio_batches(data, **arguments) for data in (files, dataset[0]))
    for _ in range(3):
        np.testing.assert_array_equal(next(ours)["audio"], next(theirs)["audio"])


def test_reading_on_gives_every_sample_of_the_songs(library):
    reader = SongFiles(library[0], OPTIONS).reader("test", RATE)
    found = reader.read(*whole_pass(reader.lengths, RATE))
    expected = [library[1][name][: len(library[1][name]) // RATE * RATE] for name in "ef"]
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(expected))


ANY, CODED = (8_000, 44_099, 44_100, 48_000, 96_000), (8_000, 48_000)
KINDS = {"flac": ANY, "ogg": ANY, "mp3": CODED, "opus": CODED}


@pytest.mark.parametrize(("suffix", "rate"), [(x, rate) for x in KINDS for rate in KINDS[x]])
def test_a_part_is_that_of_the_whole(tmp_path, suffix, rate):
    path = tmp_path / f"a.{suffix}"
    container = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
    soundfile.write(path, sound(3.0, rate=rate), rate, **container)
    whole = np.concatenate(list(audio.decode(path)))
    assert audio.length(path) == len(whole)
    for start, stop in ((0, 500), (0, len(whole)), (70_001, 90_000), (100_000, len(whole) + 9)):
        part = audio.decode_part(path, start, stop)
        assert part.shape == whole[start:stop].shape
        # resampled: the same sums in another order
        near = 1 if rate != RATE else 0
        assert np.abs(part.astype(int) - whole[start:stop]).max() <= near


def test_bad_songs_give_way_to_good_ones(tmp_path):
    good = write_song(tmp_path / "c.wav", 2.0)
    soundfile.write(tmp_path / "b.flac", sound(2.0), RATE)
    data = bytearray((tmp_path / "b.flac").read_bytes())
    data[3_000:] = bytes(len(data) - 3_000)  # the header is whole
    (tmp_path / "b.flac").write_bytes(data)
    (tmp_path / "a.wav").write_text("no sound")
    lines = [{"id": x, "audio": x} for x in ("a.wav", "b.flac", "c.wav")]
    path = write_lines(tmp_path / "songs.jsonl", lines)
    reader = SongFiles(path, Options(test_fraction=0.0)).reader("train", RATE)
    assert reader.lengths.tolist() == [2 * RATE, 2 * RATE]
    chunks = reader.read(np.array([1, 0]), np.array([500, 500]))
    np.testing.assert_array_equal(chunks[0], good[500 : RATE + 500])
    np.testing.assert_array_equal(chunks[1], good[:RATE])
    assert sorted(reader.skipped) == [0, 1]
    (tmp_path / "c.wav").write_bytes(b"")
    with pytest.raises(DataError, match="in a row cannot be decoded"):
        reader.read(np.array([1]), np.array([0]))
    with pytest.raises(DataError, match="no songs in the split 'test'"):
        audio_batches(
            SongFiles(path, Options(test_fraction=0.0)),
            split="test", samples=9, batch_size=1, seed=0,
        )  # fmt: skip
