"""Lines that a model sings, judged by listeners that hear tones as words."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_model
from test_round_trip import Song

import data_pipeline
from data_pipeline import prepare
from data_pipeline.plan import Options
from experiments.codes import Encoding, write_codes
from experiments.evaluation_data import PreparedAudio, PreparedCodes
from jukejax.config import MeshConfig, Track, TracksConfig
from jukejax.evaluation import bootstrap, lines, melody, round_trip, singing, words
from jukejax.evaluation.embedding import Embedded
from jukejax.evaluation.subject import Generate, Lacking, Subject
from jukejax.evaluation.suites import run_suite
from jukejax.model_dir import load_vqvae, read_model_dir
from jukejax.parallel.mesh import make_mesh

RATE = tiny_model.RATE
VOCABULARY = ["moon", "rose", "tin", "boat", "hill", "bird", "song", "rain", "door", "milk", "sun"]
ALONG = TracksConfig(
    (Track("notes", ("60", "61", "62"), places=2), Track("phones", ("aa", "b"))),
    parts=3, width=8, depth=2,
)  # fmt: skip


def tone(word):
    """A word of 0.1 s at 8 kHz."""
    hertz = 300 + 250 * VOCABULARY.index(word)
    return 0.4 * np.sin(2 * np.pi * hertz * np.arange(RATE // 10) / RATE)


def heard(sound, rate):
    """[word, start] of the tones in a sound, tenth by tenth of a second from AHEAD on."""
    frames = sound[round(lines.AHEAD * rate) :]
    frames = frames[: len(frames) // 800 * 800].reshape(-1, 800)
    peaks = np.abs(np.fft.rfft(frames)).argmax(1) * rate / 800
    nearest = [min(range(11), key=lambda i, p=p: abs(300 + 250 * i - p)) for p in peaks]
    return [[VOCABULARY[i], lines.AHEAD + 0.1 * n] for n, i in enumerate(nearest)]


class Aligner:
    """Fits a text by the edits from the tones heard."""

    def phones(self, given):
        return [[word] for word in given]

    def fits(self, sound, rate, texts):
        found = heard(sound, rate)
        names, starts = [word for word, _ in found], [start for _, start in found]
        longer = starts + [9.0] * 9
        return [words.Fit(-words.edits(t, names), longer[: len(t)]) for t in texts]


class Recogniser:
    name = "a recogniser"

    def __call__(self, sound, rate):
        return " ".join(word for word, _ in heard(sound, rate))


class Loudness:
    """Embeds 0.1 s of sound as its level and its square."""

    seconds = 0.1

    def __call__(self, sound, rate):
        level = np.abs(sound[: len(sound) // 800 * 800].reshape(-1, 800)).mean(axis=1)
        return Embedded(np.stack([level, level**2], axis=1), np.zeros((len(level), 0)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model that reads tracks; six songs of random words as tones, four held out; codes."""
    folder = tmp_path_factory.mktemp("singing")
    rng, entries = np.random.default_rng(0), []
    for i in range(6):
        sung = rng.choice(VOCABULARY, 24)
        sound = np.concatenate([np.zeros(RATE // 5), *map(tone, sung), np.zeros(RATE // 5)])
        soundfile.write(folder / f"{i}.wav", sound, RATE, subtype="PCM_16")
        times = [(0.2 + 0.1 * n, 0.3 + 0.1 * n) for n in range(24)]
        tracks = {
            "notes": [[str(60 + n % 3), *time] for n, time in enumerate(times)],
            "phones": [["aa", *time] for time in times],
        }
        (folder / f"{i}.json").write_text(json.dumps(tracks))
        entries.append({
            "id": str(i), "audio": f"{i}.wav", "artist": "Ella",
            "split": "test" if i > 1 else "train",
            "words": [[word, *time] for word, time in zip(sung, times, strict=True)],
            "lyrics": " ".join(sung), "tracks_file": f"{i}.json",
        })  # fmt: skip
    (folder / "songs.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    options = Options(min_seconds=0, sample_rate=RATE)
    prepare.build(folder / "songs.jsonl", folder / "songs", options=options, show_progress=False)
    tiny_model.write(folder, tracks=ALONG, n_ctx=128)
    vqvae = load_vqvae(folder / "vqvae", make_mesh(MeshConfig()))
    write_codes(vqvae, Encoding(folder / "songs", folder / "codes", piece_seconds=1.0))
    return folder


@pytest.fixture
def subject(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(singing, "Whisper", Recogniser)
    monkeypatch.setattr(singing, "Musicnn", Loudness)
    monkeypatch.setattr(round_trip, "_missing", lambda name: "")
    monkeypatch.setattr(melody, "transcribe", _transcribe)
    return _subject(folder, tmp_path)


def _subject(folder, out, aligner=Aligner):
    return Subject(
        read_model_dir(folder / "model"), make_mesh(MeshConfig()), out,
        PreparedAudio(folder / "songs"), PreparedCodes(folder / "codes"),
        generate=Generate(lines=5, line_seconds=0.55), aligner=aligner,
    )  # fmt: skip


def _transcribe(sound, rate):
    """Notes of tones: the words' places in the vocabulary."""
    return [
        (start, start + 0.1, 60 + VOCABULARY.index(word) % 3) for word, start in heard(sound, rate)
    ]


def test_every_version_is_judged_and_the_original_picks_its_own_line(subject, capsys):
    result = run_suite("singing", subject)
    assert len(result["lines"]) == 5 and result["seconds"] == pytest.approx(0.55, abs=0.002)
    (table,) = singing.tables(result)
    assert [row[0] for row in table.rows] == [*singing.VERSIONS]
    cells = {row[0]: dict(zip(table.header[1:], row[1:], strict=True)) for row in table.rows}
    original = cells["original"]
    assert original["picked"].startswith("1.00") and original["WER"].startswith("0.00")
    assert float(original["onset error s"].split()[0]) < 0.003  # lines begin at whole codes
    assert original["with a path"] == "5 of 5" and original["FAD"].startswith("0.0 ")
    for name in singing.VERSIONS[1:]:
        assert float(cells[name]["WER"].split()[0]) > 0.5, name
    for line in result["lines"]:
        texts = line["texts"]
        assert len(texts) == 8 and {len(text) for text in texts} == {len(texts[0])}
        assert len(line["original"]["scores"]) == 8 and line["original"]["scores"][0] == 0
    assert "5 lines of 0.6 s, seed 0" in capsys.readouterr().out
    scores = {score.name: score for score in singing.scores(result)}
    assert scores["picked"].better == "higher" and scores["FAD"].value > 0
    # samples are kept, and the lines measured again give the same
    (job,) = (subject.out / "singing").glob("*/job.json")
    codes = next(job.parent.glob("level_2/codes.npz"))
    written = codes.stat().st_mtime_ns
    (subject.out / "singing.json").unlink()
    again = run_suite("singing", _subject(subject.songs.folder.parent, subject.out))
    assert again == result and codes.stat().st_mtime_ns == written


def test_sounds_beside_a_sample(subject):
    config = subject.prior_config(2)
    line = lines.choose(subject, config).chosen[1]
    sounds = lines.Beside(subject, 2)(line)
    assert line.start > 0 and len({len(sound) for sound in sounds.values()}) == 1
    codes = subject.codes.read(line.song)[2]
    (complete,) = [*lines.Beside(subject, 2).decoder(codes[None].astype(np.int32))][:1]
    length = len(sounds["round trip"])
    np.testing.assert_allclose(
        sounds["round trip"][: complete.shape[1] - line.start],
        np.clip(complete[0, line.start : line.start + length], -1, 1), atol=1e-6,
    )  # fmt: skip
    assert (sounds["round trip"] != sounds["shuffled codes"]).any()


def test_lines_hold_complete_words_and_begin_just_before_them():
    given = tuple((f"w{i}", 1 + 0.5 * i, 1.4 + 0.5 * i) for i in range(9))
    song = Song(n_samples=44_100 * 6, words=given)
    first, second, *_ = lines.of_song(song, 2 * 44_100 // 128 * 128, 128)
    assert first.text.printed == ["w0", "w1", "w2"]
    assert second.text.printed[0] == "w3"
    assert first.start % 128 == 0 and 0 <= 0.9 - first.start / 44_100 < 128 / 44_100
    assert first.text.starts[0] == pytest.approx(1 - first.start / 44_100)


def test_tracks_of_a_line_are_those_that_sound_in_it():
    tracks = {"notes": (("60", 0, 0.5), ("61", 0.5, 1.5), ("62", 1.9, 4.0), ("63", 2.0, 3.0))}
    line = round_trip.Excerpt(Song(tracks=tracks), 44_100, 88_200, None)
    assert lines.shifted(line) == {"notes": [("61", 0.0, 0.5), ("62", pytest.approx(0.9), 3.0)]}


def test_wrong_texts_are_of_other_songs_and_too_few_are_an_error():
    def line(song, *printed):
        return round_trip.Excerpt(Song(song), 0, 1, words.Sung(list(printed), [0.0] * len(printed)))

    pool = [line(f"{i}", "a", "b", f"c{i}", "d") for i in range(8)]
    right, *wrong = lines.texts(line("0", "x", "y", "z"), [line("0", "o", "o", "o"), *pool])
    assert right == ["x", "y", "z"] and sorted(wrong) == [["a", "b", f"c{i}"] for i in range(1, 8)]
    with pytest.raises(Lacking, match=r"7 lines of other.* 5 words|0 lines of other.* 5 words"):
        lines.texts(line("0", *"vwxyz"), pool)


def test_a_text_is_picked_where_it_alone_fits_best():
    text = words.Sung(["a", "b"], [0.5, 1.0])
    fit = words.Fit(-2.0, (0.6, None))
    found = singing.placed(text, [fit, words.Fit(-3.0, (0, 0)), None])
    assert found == {"picked": True, "scores": [-2.0, -3.0, None], "onsets": [pytest.approx(0.1)]}
    assert not singing.placed(text, [fit, fit])["picked"]
    assert singing.placed(text, [None, None]) == {
        "picked": False,
        "scores": [None] * 2,
        "onsets": [],
    }


def test_the_interval_of_a_median_draws_whole_songs():
    assert bootstrap.median_interval({"a": [1.0, 2.0], "b": []}) is None
    assert bootstrap.median_interval({"a": [1.0] * 9, "b": [3.0] * 9}) == (1.0, 3.0)


def test_what_is_missing_is_said(subject, folder, tmp_path, monkeypatch):
    with pytest.raises(Lacking, match="forced alignment"):
        singing.measure(_subject(folder, tmp_path, aligner=None))
    plain = dataclasses.replace(subject.prior_config(2), tracks=None)
    with pytest.raises(Lacking, match="reads no tracks"):
        lines.choose(subject, plain)
    other = dataclasses.replace(ALONG, tracks=(Track("chords", ("C",)),))
    with pytest.raises(Lacking, match="No two held-out songs have word times, the tracks chords"):
        lines.choose(subject, dataclasses.replace(plain, tracks=other))


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("pocketsphinx"), reason="needs pocketsphinx")
def test_pocketsphinx_picks_the_line_of_a_bundled_song():
    from experiments.word_aligner import WordAligner

    folder = Path(data_pipeline.__file__).parent / "demo_music"
    songs = {x["id"]: x for x in map(json.loads, (folder / "songs.jsonl").read_text().splitlines())}
    song = songs["daisy_bell"]
    sound, rate = soundfile.read(folder / song["audio"], dtype="float32")
    sung = [word for word in song["words"] if word[2] < 12]
    sound = sound.mean(axis=1)[: round((sung[-1][2] + 0.1) * rate)]
    others = [
        [word for word, *_ in x.get("words", [])][: len(sung)] for x in songs.values() if x != song
    ]
    texts = [[word for word, *_ in sung], *(x for x in others if len(x) == len(sung))][:8]
    assert len(texts) > 4
    aligner = WordAligner()
    plain = [words.plain_words(" ".join(text))[: len(sung)] for text in texts]
    fits = aligner.fits(sound, rate, plain)
    scores = [fit.score if fit else -np.inf for fit in fits]
    assert int(np.argmax(scores)) == 0
    backwards = aligner.fits(sound, rate, plain[::-1])
    assert backwards[-1] == fits[0]  # whatever was aligned before
