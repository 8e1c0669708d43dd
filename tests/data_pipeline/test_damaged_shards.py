"""Damaged record shards: readers name shard and remedy, `--verify` makes them again."""

import shutil

import numpy as np
import pytest
from batches import audio_batches, code_batches, prior
from sounds import write_lines, write_song

from data_pipeline import plan, records
from data_pipeline.codes import read_song_codes
from data_pipeline.songs import prepared_songs
from experiments import prepare as command
from jukejax.errors import DataError

AUDIO = {"split": "train", "samples": 20_000, "batch_size": 8, "seed": 3}
CODES = {
    "config": prior(1, 512, 4),
    "vocabulary": None,
    "split": "train",
    "batch_size": 8,
    "seed": 3,
}


def contents(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def turn_bits(shard):
    """Turns a bit of every byte in the first half of a shard; its size stays."""
    data = np.fromfile(shard, np.uint8)
    data[: len(data) // 2] ^= 4
    shard.write_bytes(data.tobytes())


def shards(folder, split="train"):
    return sorted(folder.glob(f"songs-{split}.array_record-*"))


@pytest.fixture
def built(tmp_path, monkeypatch):
    """A data set of three songs, a shard each, and the options that built it."""
    monkeypatch.setattr(plan, "_SHORTEST", 0.1)
    monkeypatch.setattr(plan, "_SHARDS", 10_000)
    for seed, name in enumerate("abc"):
        write_song(tmp_path / f"{name}.wav", 1.5, seed)
    entries = [{"id": x, "audio": f"{x}.wav", "split": "train"} for x in "abc"]
    manifest = write_lines(tmp_path / "songs.jsonl", entries)
    options = ["build", "--manifest", str(manifest), "--out", str(tmp_path / "set")]
    command.main(options)
    return tmp_path / "set", options


@pytest.mark.parametrize("damage", ["bits", "another shard", "a damaged note"])
def test_verify_makes_a_damaged_shard_again(built, damage, capsys, caplog):
    out, options = built
    whole = contents(out)
    shard, other, _ = shards(out)
    if damage == "bits":
        turn_bits(shard)
    elif damage == "another shard":
        shutil.copy(other, shard)  # of the same size, and good in itself
    else:
        note = out / "shards" / "train-00000-of-00003.json"
        note.write_text(note.read_text().replace('"n_samples": 66150', '"n_samples": 66151'))
    damaged = contents(out)
    command.main(options)  # believes sizes
    assert contents(out) == damaged and "nothing to do" in capsys.readouterr().out
    others = {path: path.stat().st_mtime_ns for path in (other, shards(out)[2])}
    command.main([*options, "--verify"])
    assert contents(out) == whole
    assert str(shard) in caplog.text and "It is made again." in caplog.text
    assert {path: path.stat().st_mtime_ns for path in others} == others


def test_verify_of_a_whole_data_set_changes_nothing(built, caplog):
    out, options = built
    whole = contents(out)
    command.main([*options, "--verify"])
    assert contents(out) == whole and not caplog.text


def copy(folder, tmp_path, damage):
    """A copy of a data set whose training shards are damaged, and the first of these."""
    shutil.copytree(folder, tmp_path / "copy")
    for shard in shards(tmp_path / "copy"):
        turn_bits(shard) if damage == "bits" else shard.unlink()
    return tmp_path / "copy"


@pytest.mark.parametrize("damage", ["bits", "missing"])
def test_readers_of_songs_name_shard_and_remedy(dataset, tmp_path, damage):
    folder = copy(dataset[0], tmp_path, damage)
    words = f"{folder}/songs-train.array_record-0.* is missing or damaged.*build` with --verify"
    with pytest.raises(DataError, match=words) as error:
        next(audio_batches(folder, **AUDIO))
    assert "\n" not in str(error.value)
    song = next(song for song in prepared_songs(folder) if song.split == "train")
    with pytest.raises(DataError, match=words):
        records.read_audio(folder, song, 0, song.n_samples)


@pytest.mark.parametrize("damage", ["bits", "missing"])
def test_readers_of_codes_name_shard_and_remedy(codes_set, tmp_path, damage):
    folder = copy(codes_set[0], tmp_path, damage)
    words = f"{folder}/songs-train.array_record-0.*remove it and run the same `jukejax encode`"
    with pytest.raises(DataError, match=words) as error:
        next(code_batches(folder, **CODES))
    assert "\n" not in str(error.value)
    song = next(song for song in prepared_songs(folder) if song.split == "train")
    with pytest.raises(DataError, match=words):
        read_song_codes(folder, song.id)


def test_a_failure_that_is_no_damage_stays_what_it_is(dataset, monkeypatch):
    import tensorflow as tf

    from data_pipeline.loader import AudioReader

    monkeypatch.setattr(AudioReader, "read", lambda *_: 1 / 0)
    with pytest.raises(tf.errors.OpError, match="ZeroDivisionError"):
        next(audio_batches(dataset[0], **AUDIO))
