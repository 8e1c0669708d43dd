"""experiments.align as a whole: songs of a manifest, crashes and kills."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from sounds import write_lines, write_song

import data_pipeline
from data_pipeline.align import judge, sphinx
from data_pipeline.align.songs import Options, align_manifest, align_song
from data_pipeline.align.voice import RATE
from data_pipeline.manifest import Song, read_manifest
from jukejax.errors import DataError

# An aligner that counts its runs, and misbehaves as the first word of the lyrics tells it to.
TOOL = """
import os, signal, sys, time
audio, lyrics, out = sys.argv[1:4]
words = open(lyrics).read().split()
open({log!r}, "a").write(words[0] + "\\n")
if words[0] == "crash":
    os.kill(os.getppid(), signal.SIGSEGV)
    time.sleep(5)
if words[0] == "hang":
    time.sleep(60)
if words[0] == "fail":
    sys.exit("out of luck")
with open(out, "w") as file:
    for i, word in enumerate(words):
        file.write(f"{{i / 10}} {{i / 10 + 0.05}} {{word.upper()}}\\n")
"""


@pytest.fixture
def tool(tmp_path):
    """(options that call the tool, names of its runs)."""
    script, log = tmp_path / "tool.py", tmp_path / "log"
    log.touch()
    script.write_text(TOOL.format(log=str(log)))
    command = f"{sys.executable} {script} {{audio}} {{lyrics}} {{out}}"
    options = Options(aligner="autolyricsalign", aligner_command=command, time_limit=3.0)
    return options, lambda: sorted(log.read_text().split())


def manifest_of(folder, lyrics):
    """A manifest of songs by first word, all with the same sound."""
    write_song(folder / "song.wav", 2.0)
    entries = [{"id": text.split()[0], "audio": "song.wav", "lyrics": text} for text in lyrics]
    return write_lines(folder / "songs.jsonl", [*entries, {"id": "mute", "audio": "song.wav"}])


def test_crash_costs_one_song(tmp_path, tool):
    texts = ["good one", "crash now", "fail here", "hang on", "夜の 歌", "fine too"]
    manifest, out = manifest_of(tmp_path, texts), tmp_path / "out.jsonl"
    align_manifest(manifest, out, tool[0], workers=2, show_progress=False)
    found = {song.id: song for song in read_manifest(out).songs}
    assert not read_manifest(out).problems
    assert found["good"].words == (("good", 0.0, 0.05), ("one", 0.1, 0.15))
    assert found["fine"].alignment == {"method": "autolyricsalign", "voice": "mix"}
    reasons = {
        key: song.alignment["reason"]
        for key, song in found.items()
        if song.lyrics and not song.words
    }
    assert reasons["crash"] == "the aligner crashed"
    assert reasons["hang"] == "not done after 3 s"
    assert reasons["fail"] == "autolyricsalign ended with code 1: out of luck"
    assert found["mute"].alignment is None


def test_done_songs_are_not_done_again(tmp_path, tool):
    options, runs = tool
    manifest, out = manifest_of(tmp_path, ["a b", "c d"]), tmp_path / "out.jsonl"
    align_manifest(manifest, out, options, show_progress=False)
    first = out.read_bytes()
    journal = tmp_path / "out.jsonl.journal"
    lines = journal.read_text().splitlines()
    journal.write_text(lines[0] + "\n" + lines[1][:20])  # killed while it wrote the second
    out.unlink()
    align_manifest(manifest, out, options, show_progress=False)
    assert out.read_bytes() == first and len(runs()) == 3
    manifest_of(tmp_path, ["a b", "c d e"])
    align_manifest(manifest, out, options, show_progress=False)
    assert len(runs()) == 5  # the sound was written anew: both


def test_words_that_are_given_stay(tmp_path, tool):
    options, runs = tool
    manifest = manifest_of(tmp_path, ["a b"])
    entry = json.loads(manifest.read_text().splitlines()[0]) | {"words": [["a", 0.3, 0.4]]}
    write_lines(manifest, [entry])
    song = align_manifest(manifest, tmp_path / "out.jsonl", options, show_progress=False)[0]
    assert song.words == (("a", 0.3, 0.4),) and not runs()
    song = align_manifest(
        manifest, tmp_path / "out.jsonl", options, replace=True, show_progress=False
    )[0]
    assert len(song.words) == 2


def test_words_stay_inside_the_given_times_of_their_lines(tmp_path, tool):
    lines = "[00:00.00]a bb\n[00:01.00]ccc d\n[00:01.50]夜の 歌\n"
    manifest = manifest_of(tmp_path, [])
    write_lines(manifest, [{"id": "x", "audio": "song.wav", "lyrics": lines}])
    (song,) = align_manifest(manifest, tmp_path / "out.jsonl", tool[0], show_progress=False)
    assert song.words == (
        *(("a", 0.0, 0.05), ("bb", 0.1, 0.15)),  # as the tool says
        *(("ccc", 1.0, 1.24), ("d", 1.24, 1.32)),  # the tool says 0.2 and 0.3 s: outside
        *(("夜の", 1.5, 1.66), ("歌", 1.66, 1.74)),
    )
    assert song.alignment["aligned"] == 2 and song.alignment["lines"] == 3
    write_lines(manifest, [{"id": "x", "audio": "song.wav", "lyrics": "[00:09.00]late"}])
    (song,) = align_manifest(manifest, tmp_path / "out.jsonl", tool[0], show_progress=False)
    assert "a line starts at 9 s, but the song ends at 2.0 s" in song.alignment["reason"]


def test_pocketsphinx_hears_a_line_between_its_times(tmp_path, monkeypatch):
    heard = []

    def path(samples, words):
        heard.append((len(samples) / 2 / RATE, words))
        return sphinx.Path(tuple((i / 10, i / 10 + 0.1) for i in range(len(words))), -1.0)

    monkeypatch.setattr(sphinx, "best_path", path)
    monkeypatch.setattr(sphinx, "known", lambda words: [word != "xyz" for word in words])
    write_song(tmp_path / "song.wav", 2.0)
    lines = (("good one", 0.5), ("", 1.0), ("xyz fine", 1.25))
    song = Song("x", tmp_path / "song.wav", lyrics="good one\nxyz fine\n", lines=lines)
    aligned = align_song(song, Options())
    assert heard == [(0.5, ["good", "one"]), (0.75, ["fine"])]
    assert aligned.words == (
        ("good", 0.5, 0.6), ("one", 0.6, 0.7), ("xyz", 1.25, 1.25), ("fine", 1.25, 1.35),
    )  # fmt: skip


@pytest.mark.parametrize(
    "options, message",
    [
        (Options(separator="magic"), "--separator is 'magic'; choose from stem"),
        (Options(aligner="mfa", aligner_command="no-such-mfa"), "conda create"),
        (Options(time_limit=0.0), "--time-limit"),
    ],
)
def test_mistakes_are_said_before_work_starts(tmp_path, options, message):
    manifest = manifest_of(tmp_path, ["a b"])
    with pytest.raises(DataError, match=message):
        align_manifest(manifest, tmp_path / "out.jsonl", options)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    "score, shuffled, aligned",
    [
        (-5.0, (-6.0, -5.8), True),
        (-5.0, (-6.0, -4.9), False),
        (-5.0, (-5.05, -5.06), False),  # stands out too little
        (-5.0, (-6.0, -5.3), False),  # one of them does nearly as well
        (-5.0, (), False),
    ],
)
def test_rule_for_aligned_songs(score, shuffled, aligned):
    assert judge.Scores(score, shuffled).aligned == aligned


def test_shuffles_are_tried_until_one_does_as_well(monkeypatch):
    tried = []

    def path(samples, words):
        tried.append(words)
        return sphinx.Path((), -5.1 if len(tried) == 3 else -6.0)

    monkeypatch.setattr(sphinx, "best_path", path)
    words = [str(i) for i in range(50)]
    found = judge.score_words(b"", words, -5.0)
    assert found == judge.Scores(-5.0, (-6.0, -6.0, -5.1))
    assert all(sorted(t) == sorted(words) and t != words for t in tried)
    assert len({tuple(t) for t in tried}) == 3
    assert judge.score_words(b"", words, -3.0).shuffled == (-6.0,) * judge.SHUFFLES


def test_a_song_is_aligned_as_if_it_were_the_first():
    """Else a run that continues after an interruption would find other times."""
    pytest.importorskip("pocketsphinx")
    rate, rng = 16_000, np.random.default_rng(0)
    tremolo = np.sin(4 * np.pi * np.arange(2 * rate) / rate)
    first, other = (
        (0.3 * np.sin(2 * np.pi * hertz * np.arange(2 * rate) / rate) * tremolo)
        + 0.05 * rng.normal(size=2 * rate)
        for hertz in (660, 220)
    )
    alone = judge.place_words(first, ["la", "la"])
    judge.place_words(other, ["la", "la"])
    assert judge.place_words(first, ["la", "la"]) == alone


@pytest.mark.slow
def test_pocketsphinx_finds_the_words_that_are_sung_and_no_others(tmp_path):
    """A bundled song, voice over music, with its own lyrics and with another song's."""
    bundled = read_manifest(Path(data_pipeline.__file__).parent / "demo_music" / "songs.jsonl")
    own, other = (next(s for s in bundled.songs if s.id == n) for n in ("clementine", "jeanie"))
    entry = {"id": "own", "audio": str(own.audio), "lyrics": own.lyrics}
    rows = [entry, entry | {"id": "other", "lyrics": other.lyrics}]
    manifest = write_lines(tmp_path / "songs.jsonl", rows)
    found, refused = align_manifest(manifest, tmp_path / "out.jsonl", Options())
    assert found.alignment["method"] == "pocketsphinx"
    assert [word for word, _, _ in found.words] == [word for word, _, _ in own.words]
    onsets = [[start for _, start, _ in song.words] for song in (found, own)]
    assert np.median(np.abs(np.subtract(*onsets))) < 0.1
    assert refused.alignment["method"] == "linear"
    assert not refused.words
    assert refused.alignment["adherence"] < found.alignment["adherence"]
