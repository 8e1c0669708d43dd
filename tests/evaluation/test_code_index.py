"""The index of codes against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jukejax.config import ConfigError
from jukejax.evaluation import code_index
from jukejax.evaluation.code_index import CodeIndex, nearest, suffix_order

codes = st.lists(st.integers(0, 2), max_size=40)


def brute(songs, query):
    """The longest run from each code of the query on, by comparing with everything."""
    best = [0] * len(query)
    for i in range(len(query)):
        for song in songs:
            for j in range(len(song)):
                n = 0
                while i + n < len(query) and j + n < len(song) and query[i + n] == song[j + n]:
                    n += 1
                best[i] = max(best[i], n)
    return best


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_suffix_order_sorts_suffixes(values):
    found = suffix_order(np.array(values))
    assert found.tolist() == sorted(range(len(values)), key=lambda i: values[i:])


@settings(max_examples=40)
@given(songs=st.lists(codes, max_size=5), query=codes, shard=st.sampled_from([1, 30, 1000]))
def test_longest_runs_are_those_of_brute_force(tmp_path_factory, songs, query, shard):
    index = CodeIndex(tmp_path_factory.mktemp("index"), "level 2")
    index.add([(f"song {i}", lambda s=s: np.array(s, int)) for i, s in enumerate(songs)], shard)
    found = index.longest(np.array(query, int))
    assert found.length.tolist() == brute(songs, query)
    for i, (length, song, place) in enumerate(zip(*found, strict=True)):
        if length:
            assert songs[song][place : place + length] == query[i : i + length]
        else:
            assert song == -1


def test_runs_longer_than_what_is_compared_at_first(tmp_path):
    rng = np.random.default_rng(0)
    song = np.concatenate([np.zeros(400, int), rng.integers(0, 500, 3000), np.zeros(700, int)])
    index = CodeIndex(tmp_path, "level 2")
    index.add([("a", lambda: rng.integers(0, 500, 2000)), ("b", lambda: song)])
    query = np.concatenate([song[500:1100], np.zeros(650, int), [7]])
    found = index.longest(query)
    assert found.length[0] == 600 and index.songs[found.song[0]] == "b" and found.place[0] == 500
    assert found.length[600] == 650
    assert index.song(1).tolist() == song.tolist() and index.codes == 2000 + len(song)


def test_songs_are_added_once_and_a_killed_run_goes_on(tmp_path):
    kills = [KeyboardInterrupt]

    def read(i):
        if i == 3 and kills:
            raise kills.pop()
        return np.arange(10) + 10 * i

    songs = [(f"{i}", lambda i=i: read(i)) for i in range(6)]
    with pytest.raises(KeyboardInterrupt):
        CodeIndex(tmp_path, "x").add(songs, shard=20)
    index = CodeIndex(tmp_path, "x")
    assert index.songs == ["0", "1"]
    index.add(songs, shard=20)
    assert index.songs == list("012345") and len(index.shards) == 3
    index.add(songs, shard=20)
    assert len(CodeIndex(tmp_path, "x").shards) == 3
    assert index.longest(np.arange(32, 36)).song.tolist() == [3] * 4
    with pytest.raises(ConfigError, match="index of x"):
        CodeIndex(tmp_path, "y")
    with pytest.raises(ConfigError, match="outside"):
        index.add([("z", lambda: np.array([65535]))])


def test_nearest_is_the_stretch_that_agrees_most(tmp_path):
    rng = np.random.default_rng(1)
    song = rng.integers(0, 500, 1000)
    index = CodeIndex(tmp_path, "x")
    index.add([("other", lambda: rng.integers(0, 500, 1000)), ("song", lambda: song)])
    window = song[300:400].copy()
    window[::10] = 499 - window[::10]
    found = nearest(index, window, index.longest(window))
    assert found is not None and (found.song, found.start) == (1, 300)
    assert found.share == np.mean(window == song[300:400])
    early = np.concatenate([np.full(20, 600), song[:30]])
    assert nearest(index, early, index.longest(early)) == code_index.Near(0.6, 1, -20)
    none = np.full(4, 999)
    assert nearest(index, none, index.longest(none)) is None
