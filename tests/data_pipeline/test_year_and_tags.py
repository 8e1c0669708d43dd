"""Years, tags, counts and cut-off of vocabularies; years and tags of batches."""

import itertools

import numpy as np
import pytest
from batches import code_batches, prior
from sounds import write_lines, write_song

from data_pipeline import prepare
from data_pipeline.code_loader import code_windows
from data_pipeline.codes import CodesWriter, codes_length
from data_pipeline.songs import prepared_songs
from jukejax.errors import DataError
from jukejax.label_kinds import ARTIST, GENRE, TAG, YEAR
from jukejax.text.labels import Vocabulary

MANY = Vocabulary.build(
    ["Björk", "BJÖRK", "Nina"], ["rock", "rock", "jazz"], [1999, 1990, 2003, None],
    ["calm", "Calm", "dance"],
)  # fmt: skip


def test_names_of_few_songs_are_unknown():
    few = Vocabulary.build(
        ["Björk", "björk", "Nina"], ["rock", "rock", "jazz"], [1999, 1990, 2003],
        ["calm", "dance", " CALM "], min_count=2,
    )  # fmt: skip
    assert few.artists == ("unknown", "björk") and few.genres == ("unknown", "rock")
    assert few.years == ("unknown", "1990s") and few.tags == ("unknown", "calm")
    assert few.ids(ARTIST, "Nina") == few.ids(YEAR, 2003) == 0
    assert few.ids(GENRE, ("jazz", "rock"), 2).tolist() == [0, 1]


def test_years_fall_into_decades_or_are_named():
    assert MANY.years == ("unknown", "1990s", "2000s")
    assert [MANY.ids(YEAR, y) for y in (1990, 1999, 2000, 1989, None)] == [1, 1, 2, 0, 0]
    single = Vocabulary(("unknown",), ("unknown",), years=("unknown", "1990s", "1999"))
    assert [single.ids(YEAR, y) for y in (1998, 1999, 2000)] == [1, 2, 0]


def test_tags_are_a_bag():
    assert MANY.ids(TAG, ("dance", "CALM"), 4).tolist() == [2, 1, -1, -1]
    assert MANY.ids(TAG, ("loud", "dance", "dance", "calm"), 1).tolist() == [2]
    assert MANY.ids(TAG, ("loud",), 2).tolist() == MANY.ids(TAG, (), 2).tolist() == [0, -1]
    with pytest.raises(DataError, match="3 tags, but the model takes at most 2"):
        MANY.require(TAG, ("calm", "dance", "calm"), 2)


def test_years_and_tags_are_saved_and_read(tmp_path):
    MANY.save(tmp_path / "labels.json")
    assert Vocabulary.load(tmp_path / "labels.json") == MANY
    assert "years" not in Vocabulary.build(["a"], ["b"]).to_json()
    with pytest.raises(DataError, match="labels must be"):
        Vocabulary.from_json(MANY.to_json() | {"tags": "calm"})
    with pytest.raises(DataError, match="json does not exist; prepare"):
        Vocabulary.load(tmp_path / "other.json")
    (tmp_path / "other.json").write_text("{")
    with pytest.raises(DataError, match="json is damaged: it is not JSON"):
        Vocabulary.load(tmp_path / "other.json")


def test_published_names_grow_by_their_rule():
    v2 = Vocabulary(("unknown", "abba", ""), ("unknown", "rock", "pop"), "v2", {"a_b_b_a": 1})
    grown = v2.grown(["A.B.B.A", "AC/DC"], ["Hard Rock", "pop"], [1980], ["Late Night"])
    assert grown.artists == ("unknown", "abba", "", "ac_dc") and grown.rule == "v2"
    assert grown.genres == ("unknown", "rock", "pop", "hard")
    assert grown.tags == ("unknown", "late night") and grown.ids(ARTIST, "ABBA") == 1
    assert grown.first(artists=3, genres=3, years=0, tags=0) == v2
    assert grown.grown(["ac dc"], ["hard rock"], [1989], ["late night"]) == grown


@pytest.fixture(scope="module")
def codes(tmp_path_factory):
    """Codes of three songs, one without year and tags, built with --min-count 2."""
    folder = tmp_path_factory.mktemp("tagged")
    labels = [
        {"year": 1961, "tags": ["calm", "solo"]},
        {"year": 1968, "tags": ["dance", "calm"]},
        {"tags": []},
        {"year": 1984, "tags": ["dance"]},
    ]
    entries = []
    for seed, more in enumerate(labels):
        write_song(folder / f"{seed}.wav", 2.0, seed)
        entries.append({"id": str(seed), "audio": f"{seed}.wav", "split": "train", **more})
    manifest = write_lines(folder / "songs.jsonl", entries)
    prepare.build(manifest, folder / "data", min_count=2, show_progress=False)
    writer = CodesWriter(folder / "data", folder / "codes", (8, 32), "x", codes=9)
    for shard in writer.pending_shards():
        encoded = [
            (s, [np.zeros(codes_length(s.n_samples, hop, 32), int) for hop in (8, 32)])
            for s in shard.songs
        ]
        writer.write_shard(shard, encoded)
    writer.finish()
    return folder / "codes"


def options(codes, **more):
    labels = Vocabulary.load(codes / "labels.json")
    config = prior(1, 64, max_genres=1, years=-1, tags=-1, max_tags=3)
    return {"config": config, "vocabulary": labels, "split": "train", "batch_size": 16, **more}


def test_batches_have_the_year_and_tags_of_their_song(codes):
    songs = prepared_songs(codes)
    vocabulary = Vocabulary.load(codes / "labels.json")
    assert vocabulary.years == ("unknown", "1960s")
    assert vocabulary.tags == ("unknown", "calm", "dance")
    expected = {0: (1, [1, -1, -1]), 1: (1, [2, 1, -1]), 2: (0, [0, -1, -1]), 3: (0, [2, -1, -1])}
    found = {}
    for batch in code_windows(codes, **options(codes)):
        for song, year, tags, valid in zip(
            batch["song"], batch["year"], batch["tags"], batch["valid"], strict=True
        ):
            if valid:
                found[int(songs[song].id)] = int(year), tags.tolist()
    assert found == expected


def test_dropout_takes_all_names_of_an_example_together(codes):
    drawn = code_batches(codes, **options(codes, seed=3, label_dropout=0.5, batch_size=64))
    kept = code_batches(codes, **options(codes, seed=3, batch_size=64))
    a, b = next(drawn), next(kept)
    dropped = (a["year"] != b["year"]) | (a["tags"] != b["tags"]).any(1)
    assert 8 < dropped.sum() < 56
    assert (a["year"][dropped] == 0).all() and (a["tags"][dropped] == [0, -1, -1]).all()
    assert a["year"].dtype == a["tags"].dtype == np.int32
    again = itertools.islice(
        code_batches(codes, **options(codes, seed=3, start_step=2, batch_size=64)), 1
    )
    np.testing.assert_array_equal(next(again)["tags"], list(itertools.islice(kept, 2))[1]["tags"])


def test_another_min_count_makes_new_labels(codes, tmp_path):
    manifest, out = codes.parent / "songs.jsonl", tmp_path / "data"
    prepare.build(manifest, out, show_progress=False)
    assert len(Vocabulary.load(out / "labels.json").tags) == 4
    assert not prepare.build(manifest, out, min_count=2, show_progress=False).up_to_date
    assert len(Vocabulary.load(out / "labels.json").tags) == 3
    assert prepare.build(manifest, out, min_count=2, show_progress=False).up_to_date
    with pytest.raises(DataError, match="--min-count is 0"):
        prepare.build(manifest, out, min_count=0, show_progress=False)
