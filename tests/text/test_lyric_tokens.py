"""Alphabets, cleaning and windows of lyrics; ids of names."""

import json
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jukejax.errors import DataError
from jukejax.label_kinds import ARTIST, GENRE
from jukejax.text import lyrics, transliterate
from jukejax.text.labels import Vocabulary, normalise

# The alphabets once more, written another way.
PUNCTUATION = {"v2": ".,:;!?-+'\"()[]", "v3": ".,:;!?-'\"()[]"}
LETTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits


@pytest.mark.parametrize("alphabet", ["v2", "v3"])
def test_ids_follow_the_published_order(alphabet):
    order = LETTERS + PUNCTUATION[alphabet] + " \t\n"
    assert lyrics.encode(order, alphabet).tolist() == list(range(1, len(order) + 1))
    assert lyrics.size(alphabet) == {"v2": 80, "v3": 79}[alphabet] == len(order) + 1


@pytest.mark.parametrize(
    ("text", "v2", "v3"),
    [
        ("old town", [41, 38, 30, 77, 46, 41, 49, 40], [41, 38, 30, 76, 46, 41, 49, 40]),
        ("1+1=2", [54, 70, 54, 55], [54, 54, 55]),
        ("a\tb\nc\\d", [27, 78, 28, 79, 29, 79, 30], [27, 77, 28, 78, 29, 78, 30]),
        ("\r\x00~@#", [], []),
        ("", [], []),
    ],
)
def test_known_tokens(text, v2, v3):
    assert lyrics.encode(text, "v2").tolist() == v2
    assert lyrics.encode(text, "v3").tolist() == v3


def test_cleaning_transliterates():
    assert lyrics.clean("Élan — “Straße” œuvre ＡＢＣ！") == 'Elan -- "Strasse" oeuvre ABC!'
    assert lyrics.clean("👩\u200d👧 日本") == " Ri Ben "


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("½ © ™ 5−2 №", " 1/2  (c) (tm) 5-2 No. "),
        ("シャツ ちっち しつ", "shiyatsu chitsuchi shitsu"),
        ("объект Єва", "ob'ekt Ieva"),
        ("אחץצשױ־", "AKHTSTSSHOY-"),
        ("Ⓐ 𝓛𝓪 ➓ ℝ", "A La  R"),
        ("\u2060\ue000\u0870\u18ff", ""),
        ("\\ ＼", "\n \n"),
    ],
)
def test_transliteration_is_that_of_the_published_lyrics(text, plain):
    """What Unidecode 1.1.1 gives, noted once."""
    assert transliterate.to_ascii(text).replace("\\", "\n") == plain


@given(st.text())
def test_transliteration_is_ascii_and_by_character(text):
    plain = transliterate.to_ascii(text)
    assert plain.isascii()
    assert plain == "".join(map(transliterate.to_ascii, text))


@given(st.text(), st.sampled_from(["v2", "v3"]))
def test_decoding_gives_the_cleaned_text(text, alphabet):
    tokens = lyrics.encode(text, alphabet)
    assert tokens.dtype == np.int32
    assert lyrics.decode(np.concatenate([[0, 0], tokens]), alphabet) == lyrics.clean(text, alphabet)


def test_mistaken_alphabets():
    with pytest.raises(DataError, match="v4"):
        lyrics.encode("a", "v4")
    with pytest.raises(DataError, match=r"0\.\.78"):
        lyrics.decode([79], "v3")


def test_short_lyrics_are_padded_on_the_left():
    tokens = np.array([5, 6, 7], np.int32)
    assert lyrics.window(tokens, 5, 1000, 0, 10).tolist() == [0, 0, 5, 6, 7]
    assert lyrics.window(tokens, 3, 1000, 999, 10).tolist() == [5, 6, 7]
    assert lyrics.window(tokens[:0], 2, 1000, 0, 10).tolist() == [0, 0]
    assert lyrics.window(tokens, 0, 1000, 0, 10).shape == (0,)


@given(
    st.integers(1, 600),
    st.integers(1, 40),
    st.integers(1000, 10_000_000),
    st.floats(-0.1, 1.2),
    st.integers(1, 2_000_000),
)
def test_windows_follow_the_published_rule(length, n, total, place, duration):
    tokens = np.arange(1, length + 1, dtype=np.int32)
    offset = int(place * total)
    if length < n:
        expected = [0] * (n - length) + tokens.tolist()
    else:
        mid = int(length * (offset + duration / 2.0) / total)
        mid = min(max(mid, n // 2), length - (n - n // 2))
        expected = tokens[mid - n // 2 : mid - n // 2 + n].tolist()
    window = lyrics.window(tokens, n, total, offset, duration)
    assert window.tolist() == expected and window.dtype == np.int32 and len(window) == n


@pytest.mark.parametrize(
    ("offset", "float64", "float32"),
    [(0, 1947, 1947), (2_421_273, 12_122, 12_122), (18_812_843, 81_007, 81_008),
     (22_178_949, 95_154, 95_153)],
)  # fmt: skip
def test_windows_of_the_published_training_and_sampling(offset, float64, float32):
    """A song of 9 minutes with 100,078 characters, in a window of 512 over 1,048,576 samples."""
    place = (100_078, 512, 23_814_007, offset, 1_048_576)
    assert lyrics.window_start(*place) == float64
    assert lyrics.window_start(*place, np.float32) == float32


def test_vocabulary():
    vocabulary = Vocabulary.build(["The  Beatles", "the beatles", "Björk", ""], ["Rock", "Folk"])
    assert vocabulary.artists == ("unknown", "björk", "the beatles")
    assert vocabulary.ids(ARTIST, "THE BEATLES ") == 2 and vocabulary.ids(ARTIST, "nobody") == 0
    assert vocabulary.ids(ARTIST, "Bjo\u0308rk") == 1  # decomposed
    assert vocabulary.ids(GENRE, ["rock", "x", "FOLK"], 5).tolist() == [2, 0, 1, -1, -1]
    assert vocabulary.ids(GENRE, ["rock", "folk"], 1).tolist() == [2]
    assert vocabulary.ids(GENRE, [], 2).tolist() == [0, -1]
    assert vocabulary.ids(GENRE, [], 0).shape == (0,)
    with pytest.raises(DataError, match="'the beatles'"):
        vocabulary.require(ARTIST, "Beetles")
    assert vocabulary.require(ARTIST, "björk") == 1


@given(st.lists(st.text()), st.lists(st.text()))
def test_vocabulary_round_trip(artists, genres):
    vocabulary = Vocabulary.build(artists, genres)
    text = json.dumps(vocabulary.to_json())
    assert Vocabulary.from_json(json.loads(text)) == vocabulary
    for name in artists:
        known = normalise(name) not in ("", "unknown")
        assert (vocabulary.ids(ARTIST, name) > 0) == known


def test_damaged_vocabulary(tmp_path):
    with pytest.raises(DataError, match="prepare"):
        Vocabulary.from_json({"artists": [1], "genres": []})
    with pytest.raises(DataError, match=r"labels\.json"):
        Vocabulary.load(tmp_path / "labels.json")
