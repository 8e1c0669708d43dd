"""Lyrics in any language: bytes, and alphabets of one's own."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jukejax.config import ConfigError, LyricsConfig
from jukejax.errors import DataError
from jukejax.text import lyrics

TEXTS = {
    "japanese": "さくら さくら\nやよいの空は\n見渡す限り",
    "arabic": "يا ليلي يا عيني\nطال اللّيل",
    "combining": "Cafe\u0301 du Nord, A\u030angstro\u0308m, ç",
    "emoji": "love 💖 family 👨‍👩‍👧‍👦 🇫🇷",
    "korean": "\u1112\u1161\u11ab\u1100\u1173\u11af 아리랑",
    "hebrew": "שָׁלוֹם עֲלֵיכֶם",
}


def own(text):
    return lyrics.alphabet_of([text])


@pytest.mark.parametrize("name", TEXTS)
def test_round_trip(name):
    text = TEXTS[name]
    for alphabet in ("bytes", own(text)):
        tokens = lyrics.encode(text, alphabet)
        assert tokens.dtype == np.int32 and tokens.min() > 0
        assert tokens.max() < lyrics.size(alphabet) == LyricsConfig(alphabet=alphabet).vocabulary
        decoded = lyrics.decode(tokens, alphabet)
        assert decoded == unicodedata.normalize("NFC", text) == lyrics.clean(text, alphabet)
        assert (lyrics.encode(unicodedata.normalize("NFD", text), alphabet) == tokens).all()
    assert len(lyrics.encode(text, own(text))) == len(unicodedata.normalize("NFC", text))


def test_ids_of_bytes_are_the_bytes_and_one():
    assert lyrics.encode("aé\r\n", "bytes").tolist() == [0x61 + 1, 0xC3 + 1, 0xA9 + 1, 0x0A + 1]
    assert lyrics.size("bytes") == 257
    assert lyrics.decode([0, 0, 0xC3 + 1], "bytes") == "\ufffd"
    with pytest.raises(
        DataError, match=r"alphabet bytes are in 0\.\.256, but these are in 5\.\.257"
    ):
        lyrics.decode([5, 257], "bytes")


def test_characters_outside_an_alphabet_of_ones_own_are_dropped():
    alphabet = lyrics.alphabet_of(["さくら", "ら a\r\n"])
    assert alphabet == "characters:\n aくさら"
    assert lyrics.decode(lyrics.encode("さくらんぼ a💖", alphabet), alphabet) == "さくら a"
    with pytest.raises(DataError, match="no song has lyrics"):
        lyrics.alphabet_of(["", ""])


@given(st.text(), st.booleans())
def test_any_text_comes_back(text, as_bytes):
    expected = unicodedata.normalize("NFC", text).replace("\r\n", "\n")
    expected = "".join(c for c in expected if not "\ud800" <= c <= "\udfff")
    alphabet = "bytes" if as_bytes or not expected else own(text)
    assert lyrics.decode(lyrics.encode(text, alphabet), alphabet) == expected


@given(
    st.text(st.characters(exclude_categories=["Cs"])) | st.text("ae\u0301\u0327\r\n각ᄀ\u1161💖")
)
def test_every_token_belongs_to_a_character(text):
    for alphabet in ("bytes", "v2", "characters:aeé\n가"):
        counts = lyrics.token_counts(text, alphabet)
        assert len(counts) == len(text) and min(counts, default=0) >= 0
        if alphabet != "v2":  # its transliteration may look at neighbours
            assert sum(counts) == len(lyrics.encode(text, alphabet))


def test_joined_characters_give_their_tokens_at_the_first():
    assert lyrics.token_counts("xe\u0301\r\n音", "bytes") == [1, 2, 0, 1, 0, 3]
    assert lyrics.token_counts("a\u0327\u0301", "bytes") == [4, 0, 0]


@given(
    st.text("aé音💖\u0301", max_size=60),
    st.integers(1, 40),
    st.integers(1, 1000),
    st.integers(0, 1200),
)
def test_windows_of_bytes_hold_whole_characters(text, n, total, offset):
    tokens = lyrics.encode(text, "bytes")
    place = n, total, offset, 100
    window = lyrics.window(tokens, *place, alphabet="bytes")
    assert window.shape == (n,)
    padding = int(np.argmax(window > 0)) if window.any() else n
    said = (window[padding:] - 1).astype(np.uint8).tobytes().decode("utf-8")  # strict
    assert said in lyrics.clean(text, "bytes")
    # nothing is lost but parts of a character at each end, of 3 bytes at most
    start = max(0, lyrics.window_start(len(tokens), *place))
    assert len(said.encode()) >= min(n, len(tokens)) - 6
    first, stop = lyrics.window_span(tokens, *place, alphabet="bytes")
    assert start <= first <= start + 3 or first == stop
    assert stop - first == n - padding


@given(st.text("ab c", min_size=1, max_size=60), st.integers(1, 20), st.integers(0, 900))
def test_windows_of_ascii_are_those_of_the_published_rule(text, n, offset):
    place = n, 1000, offset, 100
    tokens = lyrics.encode(text, "bytes")
    plain = lyrics.window(lyrics.encode(text, "v2"), *place)
    assert (lyrics.window(tokens, *place, alphabet="bytes") > 0).tolist() == (plain > 0).tolist()
    assert lyrics.decode(lyrics.window(tokens, *place, alphabet="bytes"), "bytes") == lyrics.decode(
        plain, "v2"
    )


@pytest.mark.parametrize("alphabet", ["v4", "", "characters:", "characters:aa", "Bytes"])
def test_unknown_alphabets_are_refused(alphabet):
    with pytest.raises(ConfigError, match=r"lyrics\.alphabet is"):
        LyricsConfig(alphabet=alphabet)


def test_an_unknown_alphabet_is_said_before_reading():
    with pytest.raises(DataError, match="alphabet 'v4' is unknown"):
        lyrics.encode("a", "v4")
