"""Words to pronunciations and times, the voice, and what external tools write."""

import sys

import numpy as np
import pytest
import soundfile
from sounds import write_song

from data_pipeline.align import external, text, voice
from data_pipeline.manifest import Song
from jukejax.errors import DataError
from jukejax.text import pronunciation
from jukejax.text.transliterate import spoken

# From the tools' documentation and their users' files: they have not been run here.
AUTOLYRIX = "9.69 10.53 NO\n10.53 11.52 MORE\n11.52 12.03 BREATH*\n12.03 12.81 CARE\n"
TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2.5
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.51
            text = ""
        intervals [2]:
            xmin = 0.51
            xmax = 0.9
            text = "no"
        intervals [3]:
            xmin = 0.9
            xmax = 1.25
            text = "<unk>"
        intervals [4]:
            xmin = 1.25
            xmax = 2.5
            text = "care"
    item [2]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 2.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 2.5
            text = "spn"
"""


def test_headings_are_not_sung():
    assert text.lyric_words("[Chorus]\nOh, my\n(x2)\nBonnie - lies") == [
        *("Oh,", "my", "Bonnie", "-", "lies")
    ]


@pytest.mark.parametrize(
    "word, wanted",
    [("Bonnie,", "bonnie"), ("'Tis", "tis"), ("o’er", "o'er"), ("naïve", "naive"), ("--", "")],
)
def test_spoken_form(word, wanted):
    assert spoken(word) == wanted


@pytest.mark.parametrize(
    "ipa, phones",
    [
        ("sˈaɪn", "S AY N"),
        ("ɡɹˈiːnsliːvz", "G R IY N S L IY V Z"),
        ("fˈaɪɚ", "F AY ER"),
        ("bˈʌʔn̩", "B AH T AH N"),
        ("ʘa", None),
        ("", None),
    ],
)
def test_ipa_to_phones(ipa, phones):
    found = " ".join(pronunciation.from_ipa(ipa)).upper()
    assert found.replace("AX", "AH") == (phones or "")


def test_words_without_times_share_the_gap_by_letters():
    words = text.fill_gaps(["a", "bb", "c", "d"], [(1.0, 2.0), None, None, (5.0, 6.0)], 9.0)
    assert words == (("a", 1.0, 2.0), ("bb", 2.0, 4.0), ("c", 4.0, 5.0), ("d", 5.0, 6.0))


def test_words_without_times_at_the_ends_stay_inside_the_song():
    words = text.fill_gaps(["hello", "x", "world"], [None, (0.1, 0.2), None], 0.5)
    assert words == (("hello", 0.0, 0.1), ("x", 0.1, 0.2), ("world", 0.2, 0.5))


def test_centre_keeps_what_both_sides_share():
    t = np.arange(16_000) / 16_000
    middle, side = np.sin(2 * np.pi * 440 * t), np.sin(2 * np.pi * 1500 * t)
    sound = np.stack([middle + side, middle], axis=1).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(voice.centre(sound)[4000:12_000])) / 4000
    assert spectrum[220] == pytest.approx(1.0, abs=0.05)
    assert spectrum[750] < 0.1


def test_stem_is_taken_where_there_is_one(tmp_path):
    write_song(tmp_path / "mix.wav", 1.0, 0)
    write_song(tmp_path / "voice.wav", 0.5, 1)
    song = Song("a", tmp_path / "mix.wav", stems=(("vocals", tmp_path / "voice.wav"),))
    assert [voice.voice(song, s)[1] for s in ("stem", "none", "centre")] == [
        "stem",
        "mix",
        "centre",
    ]
    assert len(voice.voice(song, "stem")[0]) == 8000
    assert voice.voice(Song("a", tmp_path / "mix.wav"), "stem")[1] == "mix"


def test_lines_of_autolyrixalign():
    found = external.read_lines(AUTOLYRIX)
    assert found == [("NO", 9.69, 10.53), ("MORE", 10.53, 11.52), ("CARE", 12.03, 12.81)]
    assert external.read_lines("9.69,10.53,NO\n") == found[:1]
    with pytest.raises(DataError, match="line 1"):
        external.read_lines("word 1 2\n")


def test_words_of_a_textgrid():
    assert external.read_textgrid(TEXTGRID) == [("no", 0.51, 0.9), ("care", 1.25, 2.5)]
    with pytest.raises(DataError, match="no tier named words"):
        external.read_textgrid(TEXTGRID.replace('"words"', '"other"'))


def test_words_that_a_tool_left_out_have_no_time():
    timed = [("NO", 1.0, 2.0), ("CARE", 4.0, 5.0)]
    assert external.match(["no", "more", "care"], timed) == [(1.0, 2.0), None, (4.0, 5.0)]


def test_separator_is_a_command(tmp_path):
    write_song(tmp_path / "a b.wav", 1.0, 0)
    script = tmp_path / "separate.py"
    script.write_text(
        "import shutil, sys, pathlib\n"
        "out = pathlib.Path(sys.argv[1], 'htdemucs', 'song')\n"
        "out.mkdir(parents=True)\n"
        "shutil.copy(sys.argv[2], out / 'vocals.wav')\n"
        "shutil.copy(sys.argv[2], out / 'no_vocals.wav')\n"
    )
    command = f"{sys.executable} {script} {{out}} {{audio}}"
    song = Song("a", tmp_path / "a b.wav")
    sound, source = voice.voice(song, "demucs", command)
    assert source == "demucs" and len(sound) == 16_000


@pytest.mark.parametrize("tool, output", [("mfa", TEXTGRID), ("autolyricsalign", AUTOLYRIX)])
def test_aligner_is_a_command(tmp_path, tool, output):
    soundfile.write(tmp_path / "voice.wav", np.zeros(160), 16_000)
    (tmp_path / "output").write_text(output)
    target = "os.path.join(sys.argv[2], 'song.TextGrid')" if tool == "mfa" else "sys.argv[2]"
    make = "os.mkdir(sys.argv[2])" if tool == "mfa" else "None"
    script = tmp_path / "align.py"
    script.write_text(
        "import os, shutil, sys\n"
        "assert open(os.path.join(sys.argv[1], 'song.txt')).read() == 'no more care\\n'\n"
        f"{make}\nshutil.copy({str(tmp_path / 'output')!r}, {target})\n"
    )
    command = f"{sys.executable} {script} {{corpus}} {{out}}"
    work = tmp_path / "work"
    work.mkdir()
    found = external.align(tool, tmp_path / "voice.wav", ["no", "more", "care"], work, command)
    wanted = {
        "mfa": [(0.51, 0.9), None, (1.25, 2.5)],
        "autolyricsalign": [(9.69, 10.53), (10.53, 11.52), (12.03, 12.81)],
    }
    assert found == wanted[tool]


@pytest.mark.parametrize(
    "command, message",
    [
        ("no-such-program {audio}", "not installed.*pip install demucs.*--separator-command"),
        ("demucs {sound}", "cannot be parsed.*{audio}"),
        (f"{sys.executable} -c 'raise SystemExit(\"out of luck\")'", "code 1: out of luck"),
        (f"{sys.executable} -c pass", "no vocals"),
    ],
)
def test_tool_that_is_missing_or_fails_is_said(tmp_path, command, message):
    with pytest.raises(DataError, match=message):
        external.separate("demucs", tmp_path / "a.wav", tmp_path, command)
