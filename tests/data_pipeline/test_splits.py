"""Which songs are held out: by group, by artist, as asked."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.manifest import Song
from data_pipeline.splits import conflicts, in_test

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


def assign_splits(songs, fraction, seed=0):
    """The split of every id."""
    songs = sorted(songs, key=lambda song: song.id)
    found = in_test(songs, fraction, seed)
    return {s.id: "test" if x else "train" for s, x in zip(songs, found, strict=True)}


def by_the_book(songs, fraction, seed):
    """The same rule without numpy, on whole hashes and names."""

    def digest(what, text):
        return hashlib.sha256(f"{seed}\0{what}\0{text}".encode()).hexdigest()

    groups = {}
    for song in sorted(songs, key=lambda song: song.id):
        groups.setdefault(song.group or f"id:{song.id}", []).append(song)
    split = {}
    for group, members in groups.items():
        split[group] = next((song.split for song in members if song.split), "")

    def place(group):
        artist = " ".join(groups[group][0].artist.casefold().split())
        return digest("artist", artist), artist, digest("group", group), group

    free = sorted((group for group in groups if not split[group]), key=place)
    phase = int(digest("phase", "")[:8], 16) / 2**32
    for i, group in enumerate(free):
        more = int((i + 1) * fraction + phase) > int(i * fraction + phase)
        split[group] = "test" if more else "train"
    if 0 < fraction < 1 and free:
        if len(split) == 1:
            split[free[0]] = "train"
        for missing in {"train", "test"} - set(split.values()) if len(split) > 1 else ():
            split[free[0]] = missing
    return {song.id: split[group] for group, members in groups.items() for song in members}


@given(SONGS, st.floats(0, 1), st.integers(0, 99))
def test_splits_are_those_of_the_rule(songs, fraction, seed):
    assert assign_splits(songs, fraction, seed) == by_the_book(songs, fraction, seed)


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
