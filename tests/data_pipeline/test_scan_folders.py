"""What a scan of a folder lists, groups and leaves out, and that it says so."""

import shutil
import unicodedata

import mutagen
import pytest
import soundfile
from mutagen.apev2 import APEv2
from mutagen.id3 import SYLT, TALB, TCON, TDRC, TPE1, TPE2, USLT
from sounds import RATE, sound, write_song

from data_pipeline.manifest import read_manifest, write_manifest
from data_pipeline.prepare import load_songs
from data_pipeline.scan import Counts, scan_folder
from data_pipeline.splits import in_test
from experiments.prepare import Scan, scan


def listed(folder):
    counts = Counts()
    return {song.id: song for song in scan_folder(folder, counts)}, counts


def write_tags(path, *frames):
    tagged = mutagen.File(path)
    if tagged.tags is None:
        tagged.add_tags()
    for frame in frames:
        tagged.tags.add(frame)
    tagged.save()


def test_lyrics_beside_in_any_case_and_unicode_form(tmp_path):
    for i, (name, beside) in enumerate(
        [("a.wav", "a.TXT"), ("Böse.wav", unicodedata.normalize("NFD", "böse") + ".LRC")]
    ):
        write_song(tmp_path / name, 0.1 + i / 100)
        (tmp_path / beside).write_text("[00:01.00]la li" if i else "la li\n", encoding="utf-16")
    songs, counts = listed(tmp_path)
    assert [song.lyrics for song in songs.values()] == ["la li\n"] * 2
    assert counts.without == {"artist": 2, "genre": 2}
    assert songs["Böse"].lines == (("la li", 1.0),)


def test_id3_in_wav_with_lyrics_and_album_artist_alone(tmp_path):
    write_song(tmp_path / "a.wav", 0.1)
    frames = [TPE2(3, ["Ann"]), TCON(3, ["Rock\0Folk;Soul"]), TDRC(3, ["0000"]), TALB(3, ["B"])]
    text = "[Chorus]\nla li"
    write_tags(tmp_path / "a.wav", *frames, USLT(3, "eng", "", text))
    write_song(tmp_path / "b.wav", 0.2)
    sylt = SYLT(3, "eng", 2, 1, "", [("la", 1500), ("li", 61_000)])
    frames = [TPE1(3, ["Unknown Artist"]), TPE2(3, ["Various Artists"]), TDRC(3, ["1969-05"])]
    write_tags(tmp_path / "b.wav", *frames, TCON(3, ["(17)"]), sylt, USLT(3, "eng", "", "x"))
    songs, counts = listed(tmp_path)
    a, b = songs["a"], songs["b"]
    assert (a.artist, a.album, a.genres, a.year) == ("Ann", "B", ("Rock", "Folk", "Soul"), None)
    assert a.lyrics == "la li" and a.sections == (("Chorus", None, None),)
    assert (b.artist, b.genres, b.year) == ("", ("Rock",), 1969)
    assert b.lines == (("la", 1.5), ("li", 61.0)) and counts.without["artist"] == 1
    write_manifest(songs.values(), tmp_path / "songs.jsonl")
    assert list(read_manifest(tmp_path / "songs.jsonl").songs) == [a, b]


def test_tags_of_ape_and_of_vorbis(tmp_path):
    soundfile.write(tmp_path / "a.mp3", sound(0.2), RATE)
    ape = APEv2()
    ape["Artist"], ape["Year"] = ["Ann"], "1999"
    ape.save(tmp_path / "a.mp3")
    soundfile.write(tmp_path / "b.flac", sound(0.2), RATE)
    flac = mutagen.File(tmp_path / "b.flac")
    flac["albumartist"], flac["lyrics"] = unicodedata.normalize("NFD", "Zoé"), "la"
    flac["artist"] = ["!!!", "Ann"]
    flac.save()
    songs, _ = listed(tmp_path)
    assert (songs["a"].artist, songs["a"].year) == ("Ann", 1999)
    assert (songs["b"].artist, songs["b"].lyrics) == ("!!!", "la")


def test_linked_folders_are_listed_once(tmp_path):
    music, outside = tmp_path / "music", tmp_path / "outside"
    for folder in (music / "in", outside / "deep"):
        folder.mkdir(parents=True)
    write_song(music / "in" / "a.wav", 0.1)
    write_song(outside / "deep" / "b.wav", 0.2)
    links = {"0 again": music / "in", "1 out": outside, "2 out": outside, "3 up": tmp_path}
    for name, target in links.items():
        (music / name).symlink_to(target, target_is_directory=True)
    (outside / "loop").symlink_to(outside, target_is_directory=True)
    (music / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    songs, counts = listed(music)
    assert list(songs) == ["1 out/deep/b", "in/a"]
    assert counts.left_out == {
        "links to folders that are listed elsewhere": 4,
        "links to files that do not exist": 1,
    }


@pytest.mark.parametrize("name", ["$RECYCLE.BIN", "@eaDir", "#snapshot", "__MACOSX"])
def test_bins_and_snapshots_are_left_out_and_said(tmp_path, capsys, name):
    (tmp_path / name).mkdir()
    (tmp_path / ".hidden").mkdir()
    write_song(tmp_path / "a.wav", 0.1)
    shutil.copy(tmp_path / "a.wav", tmp_path / name / "b.wav")
    scan(Scan(tmp_path, tmp_path / "songs.jsonl"))
    said = capsys.readouterr().out
    assert "1 left out: recycle bins, snapshots and system folders" in said
    assert "1 left out: hidden folders" in said
    assert "Of 1 songs: 1 without artist, 1 without genre, 1 without lyrics" in said


def test_build_of_a_folder_says_what_it_left_out(tmp_path, caplog):
    (tmp_path / "in" / "@eaDir").mkdir(parents=True)
    write_song(tmp_path / "in" / "a.wav", 0.1)
    (tmp_path / "in" / "b.mp4").write_bytes(b"x")
    (tmp_path / "out").mkdir()
    assert len(load_songs(tmp_path / "in", tmp_path / "out").songs) == 1
    assert "1 files of other kinds left out: .mp4 1; convert them" in caplog.messages
    assert "1 left out: recycle bins, snapshots and system folders" in caplog.messages


def test_ids_do_not_collide(tmp_path):
    for i, name in enumerate(["x.wav", "x.mp3", "x.wav.mp3", "y.wav"]):
        soundfile.write(tmp_path / name, sound(0.2, i), RATE)
    songs, _ = listed(tmp_path)
    assert {song.audio.name: name for name, song in songs.items()} == {
        "x.wav": "x.wav", "x.mp3": "x.mp3", "x.wav.mp3": "x.wav.mp3", "y.wav": "y"
    }  # fmt: skip


def test_copies_share_a_group_and_so_a_split(tmp_path):
    (tmp_path / "album").mkdir()
    for i in range(8):
        for suffix in ("flac", "mp3"):
            soundfile.write(tmp_path / f"song {i}.{suffix}", sound(0.2, i), RATE)
        write_song(tmp_path / "album" / f"track {i}.wav", 0.2, i + 8)
        shutil.copy(tmp_path / f"album/track {i}.wav", tmp_path / f"album/track {i} (1).wav")
    shutil.copy(tmp_path / "song 0.mp3", tmp_path / "album" / "other.mp3")
    write_song(tmp_path / "alone.wav", 0.2, 99)
    songs, counts = listed(tmp_path)
    groups = {}
    for song in songs.values():
        groups.setdefault(song.group, set()).add(song.id)
    assert groups.pop("") == {"alone"} and counts.grouped == 33
    pairs = [{f"song {i}.flac", f"song {i}.mp3"} for i in range(8)]
    pairs[0].add("album/other")
    pairs += [{f"album/track {i}", f"album/track {i} (1)"} for i in range(8)]
    assert sorted(map(sorted, groups.values())) == sorted(map(sorted, pairs))
    assert not any(str(tmp_path) in group for group in groups)
    order = [songs[name] for name in sorted(songs)]
    for seed in range(5):
        held_out = in_test(order, 0.3, seed)
        test = {song.id for song, is_test in zip(order, held_out, strict=True) if is_test}
        assert test and all(pair <= test or not pair & test for pair in pairs)
