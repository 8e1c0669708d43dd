"""Lines read on demand are those of the file, sorted texts those of `sorted`."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sounds import write_lines, write_song

from data_pipeline import lines, plan
from data_pipeline.manifest import read_manifest
from data_pipeline.plan import Options, make_plan
from data_pipeline.songs import prepared_songs
from jukejax.errors import DataError


@given(st.lists(st.binary(max_size=9).map(lambda x: x.replace(b"\n", b"")), max_size=20))
def test_places_are_those_of_the_lines(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("lines") / "a"
    path.write_bytes(b"\n".join(rows))
    found = lines.Lines(path, lines.read_places(path), bytes)
    assert list(found) == path.read_bytes().splitlines(keepends=True) or b"\r" in b"".join(rows)
    assert [row.rstrip(b"\n") for row in found] == (rows[:-1] if rows[-1:] == [b""] else rows)
    assert list(found[::-1]) == list(found)[::-1]
    assert pickle.loads(pickle.dumps(found)) == found


def test_a_file_that_becomes_shorter(tmp_path):
    path = write_lines(tmp_path / "a", [{"x": 1}, {"x": 2}])
    found = lines.Lines(path, lines.read_places(path), json.loads)
    assert found[1] == {"x": 2}
    path.write_bytes(b"{}")
    with pytest.raises(DataError, match="was changed while it was read"):
        found[1]


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(0, 5)), max_size=60), st.integers(1, 9))
def test_texts_are_sorted(pairs, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_SORTED_AT_ONCE", at_once)
        patch.setattr(lines, "_READ_AT_ONCE", 2)
        assert list(lines.sorted_texts(iter(pairs))) == sorted(pairs)


def test_a_plan_places_songs_as_a_list_would(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "_SHORTEST", 2.0)
    rng = np.random.default_rng(0)
    seconds = rng.uniform(0.1, 1.5, 40)
    names = [f"{x:03d}" for x in rng.permutation(40)]
    for name, length in zip(names, seconds, strict=True):
        write_song(tmp_path / f"{name}.wav", length)
    entries = [{"id": name, "audio": f"{name}.wav"} for name in names]
    entries.insert(7, {"id": names[2], "audio": "000.wav"})  # taken by line 3
    listed = read_manifest(write_lines(tmp_path / "songs.jsonl", entries))
    assert [str(p) for p in listed.problems] == [
        f"line 8, song {names[2]!r}: the id is taken by line 3; give each song its own id"
    ]
    found = make_plan(listed, Path("out"), Options(test_fraction=0.25))
    by_split = {"train": [], "test": []}
    for task in found:
        assert task.index == len(by_split[task.split])
        by_split[task.split].append([song.id for song in task.songs])
    assert sorted(x for shards in by_split.values() for shard in shards for x in shard) == sorted(
        names
    )
    sizes = {name: (tmp_path / f"{name}.wav").stat().st_size / 176_400 for name in names}
    limit = max(sum(sizes[name] for name in names) / 32, 2.0)
    for shards in by_split.values():
        flat = [name for shard in shards for name in shard]
        assert flat == sorted(flat)
        for shard in shards[:-1]:
            assert sum(sizes[x] for x in shard) >= limit > sum(sizes[x] for x in shard[:-1])
    assert [task.count for task in found] == [len(by_split[task.split]) for task in found]


def test_columns_are_those_of_the_songs(dataset):
    songs = prepared_songs(dataset[0])
    for name in ("n_samples", "first_record", "shard", "sample_rate", "index"):
        assert songs.column(name).tolist() == [getattr(song, name) for song in songs]
    assert [song.id for song in songs.of_split("test")] == ["e", "f"]
    assert songs.of_split("test").column("index").tolist() == [4, 5]
    assert pickle.loads(pickle.dumps(songs)) == songs


def test_songs_by_shard_are_those_that_name_it(dataset):
    songs = prepared_songs(dataset[0])
    for split in ("train", "test", "none"):
        inside = songs.of_split(split)
        expected = {}
        for song in inside:
            expected.setdefault(song.shard, []).append(song)
        assert {shard: list(part) for shard, part in inside.by_shard().items()} == expected
    shards = np.array([3, 1, 3, 0])
    mixed = songs.take(slice(0, 4))
    mixed.columns = mixed.columns.copy()
    mixed.columns["shard"] = shards
    parts = {shard: [song.index for song in part] for shard, part in mixed.by_shard().items()}
    assert parts == {0: [3], 1: [1], 3: [0, 2]}
