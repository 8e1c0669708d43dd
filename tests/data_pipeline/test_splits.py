"""Which songs are held out: by group, by artist, as asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.manifest import Song
from data_pipeline.splits import assign_splits, conflicts

SONGS = st.lists(
    st.builds(
        Song,
        id=st.uuids().map(str),
        audio=st.none(),
        artist=st.sampled_from(["", "A", "a", "B"]),
        group=st.sampled_from(["", "", "g1", "g2"]),
        split=st.sampled_from(["", "", "train", "test"]),
    ),
    max_size=40,
    unique_by=lambda song: song.id,
)


@given(SONGS, st.floats(0, 1), st.integers(0, 99), st.randoms())
def test_splits_keep_groups_whole(songs, fraction, seed, random):
    splits = assign_splits(songs, fraction, seed)
    assert set(splits) == {song.id for song in songs}
    shuffled = random.sample(songs, len(songs))
    assert assign_splits(shuffled, fraction, seed) == splits
    for group in ("g1", "g2"):
        assert len({splits[song.id] for song in songs if song.group == group}) <= 1
    asked = {song.group for song in songs if song.split}
    for song in songs:
        if song.split and (not song.group or not conflicts(songs)):
            assert splits[song.id] == song.split
    free = [song for song in songs if not song.split and (song.group or song.id) not in asked]
    if len(free) > 1 and 0 < fraction < 1:
        assert set(splits.values()) == {"train", "test"} or len({s.group for s in songs}) < 3


@pytest.mark.parametrize("group", ["", "g"])
def test_a_lone_group_is_trained_on(group):
    songs = [Song(id=name, audio=None, group=group) for name in ("ab" if group else "a")]
    for seed in range(20):
        assert set(assign_splits(songs, 0.5, seed).values()) == {"train"}
    assert set(assign_splits(songs, 1.0).values()) == {"test"}


def test_every_artist_gives_its_share():
    songs = [
        Song(id=f"{artist}-{number}", audio=None, artist=artist)
        for artist in "abcdefgh"
        for number in range(25)
    ]
    splits = assign_splits(songs, 0.2, seed=5)
    counts = [
        sum(splits[song.id] == "test" for song in songs if song.artist == artist)
        for artist in "abcdefgh"
    ]
    assert counts == [5] * 8
    assert assign_splits(songs, 0.2, seed=6) != splits
