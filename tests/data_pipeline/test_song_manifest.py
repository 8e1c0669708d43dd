"""Every line of a manifest is checked, and every problem is reported with its line."""

import json

import pytest
import soundfile
from sounds import RATE, sound, write_lines, write_song

from data_pipeline.manifest import read_manifest, write_manifest
from data_pipeline.scan import scan_folder
from data_pipeline.songs import PreparedSong, prepared_songs, write_songs
from experiments.prepare import Scan, scan
from jukejax.errors import DataError


@pytest.fixture
def folder(tmp_path):
    write_song(tmp_path / "a.wav", 0.1)
    return tmp_path


def read(folder, *entries):
    return read_manifest(write_lines(folder / "songs.jsonl", list(entries)))


GOOD = {"id": "good", "audio": "a.wav"}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"id": "x", "audio": "a.wav", "artst": "y"}, ["'artst'", "'artist'"]),
        ({"id": "x", "audio": "nowhere.wav"}, ["nowhere.wav", "does not exist"]),
        ({"audio": "a.wav"}, ["'id'", "missing"]),
        ({"id": "x"}, ["'audio'", "missing"]),
        ({"id": "good", "audio": "a.wav"}, ["line 1"]),
        ({"id": "", "audio": "a.wav"}, ["'id'", "not empty"]),
        ({"id": 7, "audio": "a.wav"}, ["'id'", "7"]),
        ({"id": "x", "audio": "a.wav", "genres": "rock"}, ["'genres'", "list"]),
        ({"id": "x", "audio": "a.wav", "year": "1969"}, ["'year'", "whole number"]),
        ({"id": "x", "audio": "a.wav", "year": True}, ["'year'", "whole number"]),
        ({"id": "x", "audio": "a.wav", "split": "valid"}, ["'split'", "train", "test"]),
        ({"id": "x", "audio": "a.wav", "words": [["hi", 2, 1]]}, ["'words'", "start <= end"]),
        ({"id": "x", "audio": "a.wav", "words": [["hi", 0, float("inf")]]}, ["'words'"]),
        ({"id": "x", "audio": "a.wav", "lines": [["hi", 1, 2]]}, ["'lines'", "start_seconds]"]),
        ({"id": "x", "audio": "a.wav", "sections": [["A", 2, 1]]}, ["'sections'", "null"]),
        ({"id": "x", "audio": "a.wav", "lyrics": "a\0b"}, ["'lyrics'", "NUL"]),
        ({"id": "x", "audio": "a.wav", "stems": ["v.wav"]}, ["'stems'", "object"]),
        ({"id": "x", "audio": "a.wav", "lyrics": "a", "lyrics_file": "b"}, ["both", "keep one"]),
        ({"id": "x", "audio": "a.wav", "lyrics_file": "no.txt"}, ["no.txt", "cannot be read"]),
        ({"id": "x", "audio": "a.wav", "lyrics_file": "a\0b"}, ["'lyrics_file'", "path"]),
        ({"id": "x", "audio": "a.wav", "stems": {"v": "a\0b"}}, ["'stems'", "paths"]),
        ('{"id": "x", "audio": ', ["not JSON"]),
        ('["x", "a.wav"]', ["not a JSON object"]),
        ('{"id": "\\ud83d", "audio": "a.wav"}', ["\\u"]),
        ("[" * 100_000, ["not JSON"]),
    ],
)
def test_bad_line_is_said_and_the_others_go_on(folder, entry, words):
    manifest = read(folder, GOOD, entry, {"id": "last", "audio": "a.wav"})
    assert [song.id for song in manifest.songs] == ["good", "last"]
    (problem,) = manifest.problems
    assert problem.line == 2 and problem.skipped
    assert all(word in problem.text for word in words), problem.text


def test_every_problem_of_a_line_is_said(folder):
    manifest = read(folder, {"id": "x", "audo": "a.wav", "year": "x"})
    assert len(manifest.problems) == 3  # audio missing, audo unknown, year no number


def test_manifest_that_is_missing(tmp_path):
    with pytest.raises(DataError, match="scan FOLDER"):
        read_manifest(tmp_path / "none.jsonl")


def test_text_that_is_not_utf8(folder):
    path = folder / "songs.jsonl"
    path.write_bytes('{"id": "é", "audio": "a.wav"}\n'.encode("latin-1"))
    assert "UTF-8" in read_manifest(path).problems[0].text


def test_byte_order_mark_blank_lines_and_nulls_do_no_harm(folder):
    path = folder / "songs.jsonl"
    path.write_bytes(b'\xef\xbb\xbf\n\r\n{"id": "x", "audio": "a.wav", "year": null}\r\n\n')
    manifest = read_manifest(path)
    assert not manifest.problems and manifest.songs[0].year is None


def test_emoji_artist_and_long_lyrics_are_kept(folder):
    entry = GOOD | {"artist": "🎸 Ünïcode", "lyrics": "la " * 33_334}
    manifest = read(folder, entry)
    (song,), (problem,) = manifest.songs, manifest.problems
    assert song.artist == "🎸 Ünïcode" and song.lyrics == entry["lyrics"]
    assert not problem.skipped and "100,002 characters" in problem.text


def test_missing_stem_is_said_but_costs_nothing(folder):
    manifest = read(folder, GOOD | {"stems": {"vocals": "v.wav"}, "midi": "m.mid"})
    assert len(manifest.songs) == 1 and manifest.songs[0].stems == ()
    assert [p.skipped for p in manifest.problems] == [False, False]


def test_round_trip_of_all_keys(folder):
    write_song(folder / "v.wav", 0.1)
    (folder / "l.lrc").write_text("[ar:X]\n[00:01.50]Hello [00:02]you\n", encoding="utf-8")
    entry = GOOD | {"artist": "A", "album": "B", "genres": ["c", "d"], "year": 1999, "tags": ["t"]}
    entry |= {"lyrics_file": "l.lrc", "words": [["Hello", 1.5, 2.0]], "stems": {"v": "v.wav"}}
    entry |= {"midi": "v.wav", "licence": "CC0", "group": "g", "split": "test"}
    manifest = read(folder, entry)
    assert not manifest.problems and manifest.songs[0].lyrics == "Hello you\n"
    write_manifest(manifest.songs, folder / "again.jsonl")
    assert read_manifest(folder / "again.jsonl") == manifest


def test_times_and_sections_of_lyrics_are_kept(folder):
    text = "[00:01.00][Verse]\n[00:02.00]la la\n[00:04.00]li"
    (folder / "l.lrc").write_text(text, encoding="utf-8")
    file, given = GOOD | {"lyrics_file": "l.lrc"}, GOOD | {"id": "given", "lyrics": text}
    manifest = read(folder, file, given)
    for song in manifest.songs:
        assert song.lyrics == "la la\nli\n" and song.sections == (("Verse", 1.0, None),)
        assert song.lines == (("", 1.0), ("la la", 2.0), ("li", 4.0))
    write_manifest(manifest.songs, folder / "again.jsonl")
    again = read_manifest(folder / "again.jsonl")
    assert list(again.songs) == list(manifest.songs)
    # what the file says is read there again, not kept beside it
    assert "lines" not in (folder / "again.jsonl").read_text().splitlines()[0]
    (folder / "l.lrc").write_text(text.replace("00:04", "00:05"), encoding="utf-8")
    changed = read_manifest(folder / "again.jsonl")
    assert changed.songs[0].lines[-1] == ("li", 5.0) and changed.digest != again.digest


def test_scan_takes_labels_from_tags_and_lyrics_from_beside(tmp_path):
    (tmp_path / "sub").mkdir()
    for name, suffix in (("x", "flac"), ("y", "ogg"), ("z", "wav"), ("z", "mp3"), ("w", "opus")):
        path = tmp_path / "sub" / f"{name}.{suffix}"
        rate = 48_000 if suffix == "opus" else RATE
        container = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
        with soundfile.SoundFile(path, "w", rate, 2, **container) as file:
            file.artist, file.genre, file.date = "Ann 🎹", "Folk; Rock", "2001-02-03"
            file.write(sound(0.2))
    (tmp_path / "sub" / "x.lrc").write_text("[00:01.00]One\n[00:02.00]Two\n", encoding="utf-8")
    (tmp_path / "sub" / "y.txt").write_text("Words", encoding="utf-8")
    (tmp_path / "sub" / "._x.flac").write_bytes(b"mac")
    songs = {song.id: song for song in scan_folder(tmp_path)}
    assert set(songs) == {"sub/x", "sub/y", "sub/z.wav", "sub/z.mp3", "sub/w"}
    for name in ("sub/x", "sub/y", "sub/z.wav", "sub/w"):
        assert songs[name].artist == "Ann 🎹", name
        assert songs[name].genres == ("Folk", "Rock") and songs[name].year == 2001, name
    assert songs["sub/x"].lyrics == "One\nTwo\n" and songs["sub/y"].lyrics == "Words"
    write_manifest(songs.values(), tmp_path / "songs.jsonl")
    manifest = read_manifest(tmp_path / "songs.jsonl")
    assert not manifest.problems and set(manifest.songs) == set(songs.values())


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_scan_of_nothing(tmp_path, name):
    with pytest.raises(DataError, match="give"):
        scan_folder(tmp_path / name)


def test_scan_of_a_file(folder):
    with pytest.raises(DataError, match="is a file, not a folder"):
        scan_folder(folder / "a.wav")


def test_scan_leaves_out_hidden_folders_and_says_other_kinds(folder, capsys):
    (folder / ".trash" / "deep").mkdir(parents=True)
    for name in (".trash/b.wav", ".trash/deep/c.wav", ".trash/d.aiff", "e.AIFF", "f.mp4", "g.txt"):
        (folder / name).write_bytes((folder / "a.wav").read_bytes())
    assert [song.id for song in scan_folder(folder)] == ["a"]
    scan(Scan(folder, folder / "songs.jsonl"))
    assert "2 files of other kinds left out: .aiff 1, .mp4 1" in capsys.readouterr().out
    (folder / "a.wav").unlink()
    with pytest.raises(DataError, match=r"convert files of other kinds \(\.aiff, \.mp4\) or give"):
        scan_folder(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_samples", "9"), ("n_samples", 0), ("n_samples", 2**70), ("index", 5),
        ("genres", "jazz"), ("genres", [1]), ("words", [[1, 0, 1]]), ("words", [["a", "b", 1]]),
        ("id", None), ("year", "1969"), ("tracks", []), ("more", 1),
    ],
)  # fmt: skip
def test_a_damaged_line_of_prepared_songs_is_a_sentence(tmp_path, field, value):
    song = PreparedSong(0, "a", "train", 0, 0, 1, 100, "a.wav")
    write_songs(tmp_path, [song])
    assert list(prepared_songs(tmp_path)) == [song]
    row = json.loads((tmp_path / "songs.jsonl").read_text()) | {field: value}
    del row["crc32"]
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/songs.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=r"line 1 of .*songs\.jsonl is damaged.*; prepare the"):
        prepared_songs(tmp_path / "damaged")


def test_any_turned_bit_in_a_line_of_prepared_songs_is_seen(tmp_path):
    song = PreparedSong(0, "a", "train", 0, 0, 1, 100, "a.wav", artist="Zoë")
    write_songs(tmp_path, [song])
    line = (tmp_path / "songs.jsonl").read_bytes()
    row = json.loads(line)
    row.pop("crc32")
    (tmp_path / "songs.jsonl").write_text(json.dumps(row))  # of an earlier version
    assert list(prepared_songs(tmp_path)) == [song]
    for place in range(0, line.rindex(b"}"), 3):
        for bit in range(8):
            data = bytearray(line)
            data[place] ^= 1 << bit
            (tmp_path / "songs.jsonl").write_bytes(data)
            with pytest.raises(DataError, match=r"line \d of .*songs\.jsonl is damaged"):
                prepared_songs(tmp_path)
