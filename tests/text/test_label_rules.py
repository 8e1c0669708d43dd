"""Vocabularies of the published rules: spelling, against an independent one; id files; JSON."""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jukejax.errors import DataError
from jukejax.label_kinds import ARTIST, GENRE
from jukejax.text.labels import Vocabulary, labels_digest, normalise

ARTISTS = "unknown;0\nqueen;1\nac_dc;2\n;0\nvarious;0\nqueen;3\nr_b;4\n"
GENRES = "unknown;0\nhip;1\nhop;2\nrock;3\nr;4\nb;5\n"


def read(folder, rule="v2", artists=ARTISTS, genres=GENRES, counts=(5, 6)):
    for name, text in (("artists", artists), ("genres", genres)):
        (folder / name).write_text(text, encoding="utf-8")
    return Vocabulary.from_id_files(folder / "artists", folder / "genres", rule, *counts)


@given(st.text(string.ascii_letters + string.digits + " _-/&éİß\n"))
def test_the_v2_spelling_is_words_joined_by_one_underscore(name):
    kept = "".join(c if c in string.ascii_lowercase + string.digits else " " for c in name.lower())
    assert normalise(name, "v2") == "_".join(kept.split())


@pytest.mark.parametrize(
    ("name", "v2", "v3"),
    [
        ("AC/DC", "ac_dc", "ac/dc"),
        ("  R&B ", "r_b", "  r&b "),
        ("Beyoncé", "beyonc", "beyoncé"),
        ("İX", "i_x", "i̇x"),
        ("!!!", "", "!!!"),
    ],
)
def test_known_spellings(name, v2, v3):
    assert (normalise(name, "v2"), normalise(name, "v3")) == (v2, v3)


def test_ids_of_the_v2_rule(tmp_path):
    vocabulary = read(tmp_path)
    assert vocabulary.artists == ("unknown", "queen", "ac_dc", "queen", "r_b")
    assert [vocabulary.ids(ARTIST, x) for x in ("AC/DC", "various", "", "nobody")] == [2, 0, 0, 0]
    assert vocabulary.ids(ARTIST, "QUEEN!") == 3  # the last line of a name that has two ids
    assert vocabulary.ids(GENRE, ["Hip-Hop", "x rock"], 5).tolist() == [1, 2, 0, 3, -1]
    assert vocabulary.ids(GENRE, ["R&B"], 3).tolist() == [4, 5, -1]
    assert vocabulary.ids(GENRE, [], 2).tolist() == [0, -1]
    assert vocabulary.ids(GENRE, ["hip hop rock r b rock"], 5).tolist() == [1, 2, 3, 4, 5]


def test_ids_of_the_v3_rule(tmp_path):
    genres = "unknown;0\nhip hop;1\nrock\u200e;2\n"
    vocabulary = read(tmp_path, "v3", genres=genres, counts=(5, 3))
    assert vocabulary.ids(GENRE, ["Hip Hop"], 1).tolist() == [1]
    assert vocabulary.ids(GENRE, ["rock"], 1).tolist() == [0]
    assert vocabulary.ids(GENRE, ["Rock\u200e"], 1).tolist() == [2]  # the name as it stands
    assert vocabulary.ids(ARTIST, "AC/DC") == 0


def test_what_sampling_refuses(tmp_path):
    vocabulary = read(tmp_path)
    assert vocabulary.require(ARTIST, "Ac Dc") == 2 and vocabulary.require(ARTIST, "unknown") == 0
    assert vocabulary.require(GENRE, ("hip hop",), 2).tolist() == [1, 2]
    assert vocabulary.require(GENRE, (), 2).tolist() == [0, -1]
    with pytest.raises(DataError, match=r"artist 'AC-DG'.*nearest are 'ac_dc'"):
        vocabulary.require(ARTIST, "AC-DG")
    with pytest.raises(DataError, match=r"genre 'hap'.*'hip'"):
        vocabulary.require(GENRE, ("hap hop",), 5)
    with pytest.raises(DataError, match=r"'hip', 'hop', 'rock' are 3 genres.*at most 2"):
        vocabulary.require(GENRE, ("Hip Hop", "Rock"), 2)
    names = Vocabulary.build([], ["rock", "pop"])
    with pytest.raises(DataError, match="2 genres"):
        names.require(GENRE, ("rock", "pop"), 1)


@pytest.mark.parametrize(
    ("artists", "message"),
    [
        ("unknown;0\nqueen\n", "artists, line 2: 'queen' is no name;id with an id below 5"),
        ("unknown;0\n\nqueen;five\n", "line 3"),
        ("unknown;0\nqueen;5\n", "line 2: 'queen;5' .* below 5"),
        ("unknown;0\nqueen;1\n", "names for 2 of the model's 5 ids"),
        ("\ud800", "UTF-8"),
    ],
)
def test_a_wrong_id_file_is_refused(tmp_path, artists, message):
    if artists == "\ud800":
        (tmp_path / "bad").write_bytes(b"\xff\xfe;0")
        with pytest.raises(DataError, match=message):
            Vocabulary.from_id_files(tmp_path / "bad", tmp_path / "bad", "v2", 5, 6)
    else:
        with pytest.raises(DataError, match=message):
            read(tmp_path, artists=artists)


def test_a_missing_id_file_is_said(tmp_path):
    with pytest.raises(DataError, match="none cannot be read"):
        Vocabulary.from_id_files(tmp_path / "none", tmp_path / "none", "v2", 5, 6)


def test_ids_without_a_name_are_not_found(tmp_path):
    lines = "".join(f"n{i};{i}\n" for i in range(19))
    vocabulary = read(tmp_path, artists=lines, counts=(20, 6))
    assert vocabulary.artists[19] == "" and len(vocabulary.artists) == 20
    assert vocabulary.ids(ARTIST, "") == 0 == vocabulary.ids(ARTIST, "n0")


def test_placeholders():
    vocabulary = Vocabulary.placeholder(3, 2)
    assert vocabulary.artists == ("unknown", "artist 1", "artist 2")
    assert vocabulary.require(ARTIST, "Artist 2") == 2
    assert vocabulary.require(GENRE, ("genre 1",), 5).tolist() == [1, -1, -1, -1, -1]


def test_json_round_trip_and_older_files(tmp_path):
    vocabulary = read(tmp_path)
    vocabulary.save(tmp_path / "labels.json")
    value = json.loads((tmp_path / "labels.json").read_text())
    assert set(value) == {"artists", "genres", "rule", "artist_aliases"}
    assert value["artist_aliases"] == {"": 0, "various": 0, "queen": 3}
    assert Vocabulary.load(tmp_path / "labels.json") == vocabulary
    older = {"artists": ["unknown", "a"], "genres": ["unknown"]}
    names = Vocabulary.from_json(older)
    assert names.rule == "names" and names.to_json() == older


def test_the_digest_of_older_vocabularies_stays():
    names = Vocabulary.build(["Queen", "Björk"], ["rock"])
    assert labels_digest(names) == "92f9a006ddf720a5"


@pytest.mark.parametrize(
    "change",
    [
        {"rule": "v4"},
        {"artist_aliases": {"x": 7}},
        {"artist_aliases": {"x": "0"}},
        {"genre_aliases": [1]},
        {"tables": 3},
    ],
)
def test_damaged_labels_are_refused(change):
    with pytest.raises(DataError, match="labels must be"):
        Vocabulary.from_json({"artists": ["unknown"], "genres": ["unknown"], **change})
