"""The report on a data set: figures against known signals, duplicates, going on, the page."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from data_pipeline import prepare
from data_pipeline.plan import Options
from data_pipeline.report import collect, make, page
from data_pipeline.report.fingerprint import fingerprint
from data_pipeline.songs import prepared_songs
from jukejax.errors import DataError

RATE = 44_100
MUSIC = Path(prepare.__file__).parent / "demo_music" / "songs.jsonl"
SECONDS = 12


def excerpts():
    """{name: (samples, 2)} of four bundled songs by different artists."""
    found, artists = {}, set()
    for entry in map(json.loads, MUSIC.read_text().splitlines()):
        if entry["artist"] not in artists and len(found) < 4:
            artists.add(entry["artist"])
            audio, rate = soundfile.read(MUSIC.parent / entry["audio"], frames=SECONDS * RATE)
            audio = audio if audio.ndim == 2 else np.stack([audio, audio], 1)
            found[entry["id"]] = audio if rate == RATE else soxr.resample(audio, rate, RATE)
    return found


def write(path, audio, rate=RATE, **how):
    with soundfile.SoundFile(path, "w", rate, 2, **how) as file:
        for start in range(0, len(audio), 65_536):
            file.write(audio[start : start + 65_536])


def prepared(folder, entries):
    """A data set of manifest entries."""
    (folder / "songs.jsonl").write_text("\n".join(map(json.dumps, entries)))
    options = Options(min_seconds=0, test_fraction=0.25)
    prepare.build(folder / "songs.jsonl", folder / "songs", options=options, show_progress=False)
    return folder / "songs"


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """(data set, its report) of four songs, and copies of three of them."""
    folder = tmp_path_factory.mktemp("music")
    songs = excerpts()
    a, b, c, d = songs
    for name, audio in songs.items():
        write(folder / f"{name}.wav", audio)
    shutil.copy(folder / f"{d}.wav", folder / "same.wav")
    write(folder / "mp3.mp3", songs[a], format="MP3", subtype="MPEG_LAYER_III")
    write(folder / "ogg.ogg", songs[b], format="OGG", subtype="VORBIS")
    opus = soxr.resample(songs[c], RATE, 48_000)
    write(folder / "opus.opus", opus, 48_000, format="OGG", subtype="OPUS")
    shifted = 0.6 * np.concatenate([np.zeros((54_321, 2)), songs[a]])
    write(folder / "shifted.wav", shifted)
    names = [*(f"{name}.wav" for name in songs), "same.wav", "mp3.mp3", "ogg.ogg", "opus.opus"]
    entries = [{"id": x.split(".")[0], "audio": x} for x in [*names, "shifted.wav"]]
    data = prepared(folder, entries)
    return data, make.make_report(data, folder / "report", show_progress=False), list(songs)


def test_copies_across_splits_are_marked(music):
    data, report, _ = music
    splits = {song.id: song.split for song in prepared_songs(data)}
    twins = report["duplicates"]
    copies = [*twins["exact"], *(pair["songs"] for pair in twins["near"])]
    expected = [ids for ids in copies if len({splits[x] for x in ids}) == 2]
    assert expected and len(expected) < len(copies)
    assert twins["across_splits"] == expected
    assert f"{len(expected)} of these are in train and in test" in "\n".join(make.lines(report))
    page = (data.parent / "report" / "index.html").read_text(encoding="utf-8")
    assert f"{len(expected)} of these are in train and in test" in page


def test_copies_are_found_and_other_songs_are_not(music):
    _, report, (a, b, c, d) = music
    assert report["duplicates"]["exact"] == [sorted([d, "same"])]
    pairs = {frozenset(pair["songs"]): pair for pair in report["duplicates"]["near"]}
    alike = [(a, "mp3"), (a, "shifted"), ("mp3", "shifted"), (b, "ogg"), (c, "opus")]
    assert set(pairs) == set(map(frozenset, alike))
    shift = pairs[frozenset((a, "shifted"))]["shift_seconds"]
    assert abs(shift) == pytest.approx(54_321 / RATE, abs=0.05)


def test_a_fingerprint_does_not_depend_on_the_blocks():
    x = np.random.default_rng(0).normal(size=RATE * 3).astype(np.float32) * 0.1
    whole = fingerprint([x], RATE)
    assert len(whole) > 5
    np.testing.assert_array_equal(fingerprint(np.split(x, [5, 999, 70_001]), RATE), whole)
    assert len(fingerprint([0 * x], RATE)) == len(fingerprint([x[:999]], RATE)) == 0


@pytest.fixture(scope="module")
def signals(tmp_path_factory):
    """(folder, data set) of signals whose figures are known."""
    folder = tmp_path_factory.mktemp("signals")
    time = np.arange(4 * RATE)[:, None] / RATE
    sine = np.sin(2 * np.pi * 997 * time) * np.ones(2)
    half = np.where(np.arange(4 * RATE)[:, None] < 2 * RATE, 0.1 * sine, 0)
    clipped = 0.5 * sine
    clipped[1000:1100, 0] = 1.0  # a run of 100 samples in one channel
    clipped[2000:2002] = -1.0  # too short a run
    sounds = {"tone": 0.1 * sine, "half": half, "quiet": 1e-4 * sine, "clipped": clipped}
    extra = {
        "tone": {"artist": "<b>Ann & Bo</b>", "genres": ["pop", "rock"], "lyrics": "one two three",
                 "words": [["one", 0, 1], ["two", 1, 2], ["three", 2, 3]],
                 "alignment": {"method": "pocketsphinx", "score": -1.5, "adherence": 0.8}},
        "half": {"artist": "Cy", "genres": ["pop"], "lyrics": "la la",
                 "alignment": {"method": "linear", "score": None}},
        "clipped": {"artist": "Cy"}, "quiet": {},
    }  # fmt: skip
    for name, sound in sounds.items():
        write(folder / f"{name}.wav", sound, subtype="PCM_16")
    entries = [{"id": name, "audio": f"{name}.wav"} | extra[name] for name in sounds]
    return folder, prepared(folder, entries)


@pytest.fixture(scope="module")
def report(signals):
    return make.make_report(signals[1], signals[0] / "report", show_progress=False)


def test_figures_of_known_signals(signals, report):
    with collect.opened(signals[0] / "report") as database:
        rows = database.execute("select id, loudness, peak_db, silence, clipped from songs")
        found = {name: figures for name, *figures in rows}
    # BS.1770: 997 Hz at full scale in one channel is -3.01 LUFS, so in two 0, and a tenth -20
    assert found["tone"][:2] == [pytest.approx(-20.0, abs=0.1), pytest.approx(-20.0, abs=0.02)]
    assert found["quiet"] == [None, pytest.approx(-80, abs=2), 1.0, 0.0]
    assert found["half"][2] == pytest.approx(0.5, abs=0.01)
    assert found["clipped"][1:] == [pytest.approx(0, abs=0.01), 0.0, 100 / (8 * RATE)]
    assert report["songs"] == 4
    assert report["hours"] == pytest.approx(16 / 3600)
    assert sum(split["songs"] for split in report["splits"].values()) == 4
    assert report["loudness_lufs"]["songs"] == 3
    assert sum(report["minutes"]["histogram"]["counts"]) == 4
    assert report["silence_percent"]["most"] == [["quiet", 100.0]]
    assert report["silence_percent"]["of_all_time"] == pytest.approx(37.5, abs=0.5)
    assert [name for name, _ in report["clipping"]["most"]] == ["clipped"]


def test_labels_lyrics_and_alignment(report):
    assert report["artists"]["count"] == 2
    assert report["artists"]["songs_without"] == 1
    assert [row[:2] for row in report["artists"]["most"]] == [["Cy", 2], ["<b>Ann & Bo</b>", 1]]
    assert [row[:2] for row in report["genres"]["most"]] == [["pop", 2], ["rock", 1]]
    assert report["lyrics"] == {"songs": 2, "share_of_time": 0.5, "words": 5}
    assert report["alignment"]["songs"] == 1
    assert report["alignment"]["methods"] == {"linear": 1, "pocketsphinx": 1}
    assert report["alignment"]["score"]["median"] == -1.5
    assert report["alignment"]["adherence"]["median"] == 0.8


class Checked(HTMLParser):
    """Texts of a page, while looking that all tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page(signals, report):
    found = Checked()
    text = (signals[0] / "report" / "index.html").read_text()
    found.feed(text)
    assert not found.open
    assert "<b>Ann & Bo</b>" in found.text and "<b>Ann" not in text  # names are text, not markup
    assert text.count("<svg") == text.count('role="img"') == 5
    assert "pocketsphinx" in found.text and 'name="viewport"' in text
    assert json.loads((signals[0] / "report" / "report.json").read_text()) == report


def test_what_was_left_out_and_why(tmp_path):
    write(tmp_path / "good.wav", excerpts().popitem()[1])
    write(tmp_path / "silent.wav", np.zeros((RATE, 2)))
    audio = np.random.default_rng(0).uniform(-0.3, 0.3, (RATE, 1))
    write(tmp_path / "<i>.wav", np.concatenate([audio, -audio], 1))
    names = ("good", "silent", "<i>")
    data = prepared(tmp_path, [{"id": x, "audio": f"{x}.wav", "artist": x} for x in names])
    report = make.make_report(data, tmp_path / "report", show_progress=False)
    assert {song["id"] for song in report["skipped"]} == {"silent", "<i>"}
    assert "2 songs were left out when the data were built" in make.lines(report)
    found = Checked()
    found.feed((tmp_path / "report" / "index.html").read_text())
    assert not found.open and "Left out, and why" in found.text
    for song in report["skipped"]:
        assert song["id"] in found.text and song["reason"] in found.text
    (data / "report.json").write_text('{"skipped": 1}')
    with pytest.raises(DataError, match="field 'skipped' is 1, not a list; build the data set"):
        make.make_report(data, tmp_path / "report", show_progress=False)


def test_it_goes_on_where_it_was_killed(signals, report, tmp_path, monkeypatch):
    done = []

    def dying(data, song):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(song.id)
        return real(data, song)

    real = collect.measure
    monkeypatch.setattr(collect, "measure", dying)
    monkeypatch.setattr(collect, "_COMMIT", 1)
    with pytest.raises(KeyboardInterrupt):
        make.make_report(signals[1], tmp_path, show_progress=False)
    assert not (tmp_path / "report.json").exists()
    monkeypatch.setattr(collect, "measure", real)
    again = make.make_report(signals[1], tmp_path, show_progress=False)
    assert again["measured_now"] == 2
    volatile = {"made": 0, "measured_now": 0}
    assert again | volatile == report | volatile
    assert make.make_report(signals[1], tmp_path, show_progress=False)["measured_now"] == 0


def test_songs_that_have_left_are_forgotten(signals, tmp_path):
    make.make_report(signals[1], tmp_path / "report", show_progress=False)
    lines = (signals[0] / "songs.jsonl").read_text().splitlines()[:1]
    entries = [json.loads(line) for line in lines]
    entries[0] |= {"audio": str(signals[0] / "tone.wav"), "artist": "New"}
    fewer = prepared(tmp_path, entries)
    found = make.make_report(fewer, tmp_path / "report", show_progress=False)
    assert found["songs"] == 1
    assert [row[0] for row in found["artists"]["most"]] == ["New"]


@pytest.mark.slow
def test_workers_find_the_same(signals, report, tmp_path):
    found = make.make_report(signals[1], tmp_path, workers=2, show_progress=False)
    assert found | {"made": 0} == report | {"made": 0}


def test_bad_input_is_one_sentence(signals, tmp_path):
    data = signals[1]
    with pytest.raises(DataError, match="another --out"):
        make.make_report(data, data)
    with pytest.raises(DataError, match="not a prepared data set"):
        make.make_report(tmp_path, tmp_path / "report")
    with pytest.raises(DataError, match="--workers is 0"):
        make.make_report(data, tmp_path / "report", workers=0, show_progress=False)
    (tmp_path / "report" / collect.NAME).write_bytes(b"no database " * 100)
    with pytest.raises(DataError, match="remove it"):
        make.make_report(data, tmp_path / "report", show_progress=False)
    assert page.histogram({"histogram": {"edges": [0, 1], "counts": [3]}}, "s").startswith("<svg")
