"""Lyrics as people store them: what is sung, and when."""

import time

import pytest

from jukejax.errors import DataError
from jukejax.text import lyrics
from jukejax.text.labels import normalise
from jukejax.text.lyric_files import parse_lyrics, read_lyrics
from jukejax.text.normal import nfc


def test_several_times_on_a_line_are_put_in_order_and_the_offset_is_kept():
    sung = parse_lyrics(
        "[ti:x]\n[offset:+500]\n[00:04.00][00:08.00]sing again\n[00:02.00]first\n[00:06.00]second"
    )
    assert sung.text == "first\nsing again\nsecond\nsing again\n"
    starts = [("first", 1.5), ("sing again", 3.5), ("second", 5.5), ("sing again", 7.5)]
    assert list(sung.lines) == starts and not sung.words


def test_header_tags_are_no_words():
    tags = "[id: abc]\n[lang:en]\n[language:eyJ9]\n[total:12000]\n[lr: someone]\n[#: note]\n"
    assert parse_lyrics(tags + "[00:01.00]only words\n").text == "only words\n"
    assert parse_lyrics(tags + "no times\n").text == "no times\n"


@pytest.mark.parametrize(
    ("stamps", "seconds"),
    [
        (["[00:00:01.20]", "[01:00:05.30]"], [1.2, 3605.3]),
        (["[00:00:10]", "[00:01:10]"], [10.0, 70.0]),  # hours: no 0.1 s
        (["[00:12:34]", "[01:02:70]"], [12.34, 62.7]),  # hundredths
        (["[00:01]", "[02:03.5]"], [1.0, 123.5]),
        (["[00:01.123]", "[999:59:59.9]"], [1.123, 1e6]),  # the manifest's limit
    ],
)
def test_times(stamps, seconds):
    sung = parse_lyrics("\n".join(f"{stamp}la" for stamp in stamps))
    assert [at for _, at in sung.lines] == seconds


def test_times_of_words():
    sung = parse_lyrics(
        "[00:01.00] <00:01.10> one <00:01.60> two <00:02.10> three <00:02.60>\n"
        "[00:04.00][00:14.00] <00:04.10> fo<00:04.50>ur <00:05.10> five <00:06.00>\n"
    )
    assert sung.text == "one two three\nfour five\nfour five\n"
    assert sung.words == (
        *(("one", 1.1, 1.6), ("two", 1.6, 2.1), ("three", 2.1, 2.6)),
        *(("four", 4.1, 5.1), ("five", 5.1, 6.0)),
        *(("four", 14.1, 15.1), ("five", 15.1, 16.0)),
    )
    inline = parse_lyrics("[00:01.50]Hello [00:02.00]you\n[00:03.00]")
    assert inline.words == (("Hello", 1.5, 2.0), ("you", 2.0, 2.72))


def test_who_sings_is_no_word():
    assert parse_lyrics("[00:01.00]F: her line\n[00:04.00]D: both").text == "her line\nboth\n"


def test_headings_are_sections_and_not_sung():
    text = "[Verse 1: Ann]\nla\n(x2)\n\nChorus:\nli [oh]\n(ooh ooh)\n[Repeat chorus]\n(Bridge)\nlu"
    sung = parse_lyrics(text)
    assert sung.text == "la\n\nli [oh]\n(ooh ooh)\nlu"
    assert [name for name, *_ in sung.sections] == ["Verse 1: Ann", "Chorus", "Bridge"]
    timed = parse_lyrics("[00:01.0][Chorus]\n[00:02.0]la\n[00:04.0][Verse: X]\n[00:05.0]li")
    assert timed.sections == (("Chorus", 1.0, 4.0), ("Verse: X", 4.0, None))
    assert timed.text == "la\nli\n" and timed.lines[2:] == (("", 4.0), ("li", 5.0))


@pytest.mark.parametrize(
    "text",
    ["[Instrumental]", "Instrumental\n", "(instrumental)\r\n", "<!DOCTYPE html><p>la", "[00:00.00]",
     "[00:00.00]纯音乐，请欣赏", "Lyrics for this song have yet to be released.", " \n\n", ""],
)  # fmt: skip
def test_no_lyrics(text):
    assert parse_lyrics(text).text == "" and not parse_lyrics(text).sections


def test_what_sites_add_is_not_sung():
    text = "12 ContributorsTitle Lyrics\nla la\nYou might also like\nla li3Embed"
    assert parse_lyrics(text).text == "la la\nla li"
    text = "la la\n\n******* This Lyrics is NOT for Commercial use *******\n(1409618934)"
    assert parse_lyrics(text).text.strip() == "la la"


def test_chords_are_not_sung_and_letters_are():
    assert parse_lyrics("Am7  F  C/G\nla la\nC G\nli").text == "la la\nli"
    assert parse_lyrics("[Am]Hello [G]you").text == "Hello you"
    assert parse_lyrics("e|--3--2--|\nla").text == "la"
    for text in ("A B C\neasy as", "A\nE I O U\n", "I am a man\n", "Dad\n"):
        assert parse_lyrics(text).text == text


@pytest.mark.parametrize(
    "text",
    [
        "[00:01.00]Am7  G  C\n[00:02.00]la [G]la12Embed\n[00:03.00][ti:x]\n[00:04.00]C G\n",
        "[G][Chorus]\nla\nAm7 G7Embed\n[Am](x2)\n",
        "(x2)7Embed\nla [G]la\n[Am]\n",
    ],
)
def test_the_text_that_is_sung_is_parsed_as_itself(text):
    sung = parse_lyrics(text).text
    assert sung.split()[:2] == ["la", *(["la"] if "la [G]la" in text else [])]
    assert parse_lyrics(sung).text == sung


def test_all_ends_of_lines():
    ends = ["\n", "\r\n", "\r", "\u2028", "\u2029", "\x85", "\x0b", "\x0c"]
    for end in ends:
        assert parse_lyrics(f"[Chorus]{end}a{end}b").text == "a\nb"


def test_sung_text_stays_as_it_is():
    for text in ("la " * 3, "a\n\nb\n", " spaced\n", "日本\nЯ\n"):
        assert parse_lyrics(text).text == text


def test_utf16_with_a_mark_and_nuls(tmp_path):
    path = tmp_path / "a.txt"
    for order in ("utf-16-le", "utf-16-be"):
        path.write_bytes(("\ufeffdéjà\r\nvu").encode(order))
        assert read_lyrics(path).text == "déjà\nvu"
    for content, message in [
        (b"a\0b", "NUL"),
        (b"\xff\xfea", "damaged UTF-16"),
        (b"\xe9", "UTF-8"),
    ]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_lyrics(path)


def test_many_combining_marks_take_no_time():
    marks = "a" + "\u0301\u0323" * 25_000
    start = time.process_time()
    assert normalise(marks) == nfc(marks) == lyrics.clean(marks, "bytes")
    lyrics.token_counts(marks + "b", "bytes")
    assert time.process_time() - start < 1.5
    assert nfc(marks)[:3] == "\u1ea1\u0323\u0323" and nfc(marks)[-1] == "\u0301"


@pytest.mark.parametrize(
    "part", ["C/", "[00:01.00]", "<00:01.00>a ", "] ", "©", "9", "[", "A  ", "--"]
)
def test_long_hostile_texts_are_parsed_at_once(part):
    start = time.process_time()
    parse_lyrics("[00:01.00]" + part * 20_000)
    parse_lyrics((part * 20 + "\n") * 5_000)
    parse_lyrics(part * 20_000 + "!")
    assert time.process_time() - start < 5
