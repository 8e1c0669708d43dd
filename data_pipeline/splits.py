"""Which songs are for training and which for testing."""

import hashlib
from collections.abc import Sequence

from data_pipeline.labels import normalise
from data_pipeline.manifest import Song


def assign_splits(songs: Sequence[Song], test_fraction: float, seed: int = 0) -> dict[str, str]:
    """ "train" or "test" for each song id; songs of one group are never parted.

    A split given in the manifest wins for its whole group (the first song by id decides when they
    differ). The other groups are laid out artist by artist, in the order of a hash of
    (seed, group), and every 1/test_fraction-th one is a test group: each artist gives its share
    to within one group. With a fraction inside (0, 1) a lone group goes to "train", and two or
    more leave neither side empty.
    """
    groups: dict[str, list[Song]] = {}
    for song in sorted(songs, key=lambda song: song.id):
        groups.setdefault(song.group or f"id:{song.id}", []).append(song)
    split: dict[str, str] = {}
    free: list[str] = []
    for group, members in groups.items():
        given = [song.split for song in members if song.split]
        if given:
            split[group] = given[0]
        else:
            free.append(group)

    def place(group: str) -> tuple[str, ...]:
        artist = normalise(groups[group][0].artist)
        return _hash(seed, "artist", artist), artist, _hash(seed, "group", group), group

    free.sort(key=place)
    phase = int(_hash(seed, "phase", "")[:8], 16) / 2**32
    for position, group in enumerate(free):
        here, after = (int((position + i) * test_fraction + phase) for i in (0, 1))
        split[group] = "test" if after > here else "train"
    _keep_both(free, split, test_fraction)
    return {song.id: split[group] for group, members in groups.items() for song in members}


def conflicts(songs: Sequence[Song]) -> list[str]:
    """Sentences about groups whose songs ask for different splits."""
    asked: dict[str, set[str]] = {}
    for song in songs:
        if song.group and song.split:
            asked.setdefault(song.group, set()).add(song.split)
    return [
        f"the group {group!r} asks for both splits; its first song by id decides for all"
        for group, wanted in sorted(asked.items())
        if len(wanted) > 1
    ]


def _keep_both(free: list[str], split: dict[str, str], test_fraction: float) -> None:
    """Moves one group over when chance left a side without any; a lone one is for training."""
    if not 0 < test_fraction < 1 or not free:
        return
    if len(split) == 1:
        split[free[0]] = "train"
        return
    for missing in {"train", "test"} - set(split.values()):
        split[free[0]] = missing


def _hash(seed: int, what: str, text: str) -> str:
    return hashlib.sha256(f"{seed}\0{what}\0{text}".encode()).hexdigest()
