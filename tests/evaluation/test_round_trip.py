"""What survives a round trip: rates computed by hand, listeners that hear what they are given."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import data_pipeline
from experiments.evaluation_data import PreparedAudio, PreparedCodes
from jukejax.config import MeshConfig, RendererConfig, RendererExperiment, RendererLoss
from jukejax.errors import DataError
from jukejax.evaluation import excerpts, fidelity, melody, round_trip, words
from jukejax.evaluation.embedding import Embedded
from jukejax.evaluation.subject import Subject
from jukejax.model_dir import read_model_dir
from jukejax.models import renderer
from jukejax.parallel.mesh import make_mesh

WORDS = (("Oh", 0.1, 0.2), ("my", 0.3, 0.4), ("dar-ling!", 0.5, 0.7), ("lost", 0.8, 2.0))
PHONES = {"oh": "OW", "my": "M AY", "dar": "D AA R", "ling": "L IH NG", "pie": "P AY"}


class Aligner:
    """Places word i at 0.35 s * i, and fits as given, call by call; None: no path."""

    def __init__(self, fits):
        self.fits, self.asked = iter(fits), []

    def phones(self, words):
        return [PHONES.get(word, "").split() for word in words]

    def align(self, sound, rate, words):
        self.asked.append(list(words))
        fit = next(self.fits)
        starts = [None if word == "my" else 0.35 * i for i, word in enumerate(words)]
        return None if fit is None else round_trip.words.Placed(starts, fit, fit > 0.4)


@pytest.mark.parametrize(
    ("wanted", "heard", "errors"),
    [
        ("kitten", "sitting", 3),
        ("", "abc", 3),
        ("abc", "", 3),
        ("abc", "abc", 0),
        ("abcd", "bcde", 2),  # one deleted, one inserted, not four substituted
        ("abab", "baba", 2),
    ],
)
def test_fewest_edits(wanted, heard, errors):
    assert words.edits(wanted, heard) == errors


def test_rates_and_onsets_of_an_excerpt():
    text = words.Sung([word for word, *_ in WORDS[:3]], [0.1, 0.3, 0.5])
    aligner = Aligner([0.9, -0.5, None])
    heard = {"original": "Oh, my DAR-LING.", "level 0": "Oh pie pie ling oh"}
    sounds = {name: np.full(8, i, np.float32) for i, name in enumerate(heard)}
    rows = words.heard(text, sounds, 44_100, lambda x, rate: [*heard.values()][int(x[0])], aligner)
    assert [*rows] == ["original", "shuffled words", "level 0"]
    counts = {
        name: (row["words"], row["word_errors"], row["phones"], row["phone_errors"])
        for name, row in rows.items()
    }
    assert counts["original"] == (4, 0, 9, 0)
    # oh my dar ling / oh pie pie ling oh: two substituted, one inserted
    # OW M AY D AA R L IH NG / OW P AY P AY L IH NG OW: M, D, AA substituted, R deleted, OW inserted
    assert counts["level 0"] == (4, 3, 9, 5)
    assert counts["shuffled words"][1] > 0 and rows["shuffled words"]["heard"] == heard["original"]
    assert sorted(aligner.asked[1]) == sorted(aligner.asked[0]) == ["darling", "my", "oh"]
    assert aligner.asked[1] != aligner.asked[0] == aligner.asked[2]
    # "my" has no pronunciation: 0 against 0.1, and 0.7 against 0.5
    assert rows["original"]["onset_error"] == pytest.approx(0.15)
    assert (rows["original"]["fits"], rows["shuffled words"]["fits"]) == (True, False)
    assert (
        rows["level 0"] | {"fits": False, "adherence": None, "onset_error": None}
        == (rows["level 0"])
    )


@dataclasses.dataclass(frozen=True)
class Song:
    id: str = "song"
    n_samples: int = 44_100
    sample_rate: int = 44_100
    words: tuple = ()
    tracks: dict = dataclasses.field(default_factory=dict)


def test_an_excerpt_holds_complete_words_alone(monkeypatch):
    part = round_trip.excerpt(Song(words=WORDS))
    assert (part.start, part.stop) == (0, round(0.8 * 44_100))  # 0.1 s after "dar-ling!"
    assert part.text == words.Sung(["Oh", "my", "dar-ling!"], [0.1, 0.3, 0.5])
    later = tuple((word, start + 3, end + 3) for word, start, end in WORDS)
    part = round_trip.excerpt(Song(n_samples=6 * 44_100, words=later))
    assert part.start == round(2.6 * 44_100) and len(part.text.printed) == 4
    assert part.text.starts == pytest.approx([0.5, 0.7, 0.9, 1.2])
    assert round_trip.excerpt(Song(words=(("...", 0.1, 0.2),))).text is None
    monkeypatch.setattr(round_trip, "SECONDS", 0.5)
    part = round_trip.excerpt(Song())
    assert (part.start, part.stop, part.text) == (11_025, 33_075, None)


def test_notes_of_the_score_are_those_that_begin_in_the_excerpt():
    events = (("60", 0.9, 2), ("61", 1.0, 1.5), ("62", 2.4, 9), ("63", 2.5, 3), ("64", 2, 2))
    part = round_trip.Excerpt(Song(tracks={"notes": events}), 44_100, 110_250, None)
    assert round_trip.score_notes(part) == [(0.0, 0.5, 61), (pytest.approx(1.4), 8.0, 62)]
    assert round_trip.score_notes(round_trip.excerpt(Song())) == []


def test_songs_with_words_come_first(monkeypatch):
    monkeypatch.setattr(round_trip, "SONGS", 3)
    songs = [Song(str(i), words=WORDS if i % 4 == 1 else ()) for i in range(8)]
    assert [part.song.id for part in round_trip.chosen(songs)] == ["1", "5", "0"]


def test_notes_from_peaks_of_onsets_and_their_f1(monkeypatch):
    note, onset = np.zeros((100, 88)), np.zeros((100, 88))
    note[10:30, 39] = 0.8  # C4, struck again at frame 20
    onset[[10, 20], 39] = 0.9
    note[40:45, 0] = 0.9  # A0
    onset[39:42, 0] = 0.2, 0.6, 0.55
    onset[70, 5] = 0.4  # too faint
    monkeypatch.setattr(melody, "activations", lambda sound, rate: (note, onset))
    found = melody.transcribe(np.zeros(5), 22_050)
    frame = 256 / 22_050
    wanted = [(10, 20, 60), (20, 30, 60), (40, 45, 21)]
    assert found == [(pytest.approx(a * frame), pytest.approx(b * frame), k) for a, b, k in wanted]
    assert melody.note_f1(found, found) == 1.0
    # one a semitone off, one 60 ms late, one 40 ms late, one too many: 1 of 3 and 1 of 4
    (a, b, c) = found
    off = [(a[0], a[1], 61), (b[0] + 0.06, b[1] + 1, 60), (c[0] + 0.04, c[1], 21), (3.0, 3.1, 40)]
    assert melody.note_f1(found, off) == pytest.approx(2 / 7)
    assert melody.note_f1(found, []) == 0.0


class Songs(PreparedAudio):
    """Prepared songs of which the first test song has words."""

    def split(self, name):
        first, *others = super().split(name)
        tracks = {"notes": (("60", 0.2, 0.4), ("61", 0.4, 0.4), ("62", 5.0, 6.0))}
        return [dataclasses.replace(first, words=WORDS[:3], tracks=tracks), *others]


@pytest.fixture
def subject(trained, tmp_path):
    return Subject(
        read_model_dir(trained / "model"),
        make_mesh(MeshConfig()),
        tmp_path,
        Songs(trained / "songs"),
        PreparedCodes(trained / "codes"),
        aligner=lambda: Aligner([0.9, 0.1, 0.6, None, 0.2]),
    )


class Loudness:
    """Embeds 0.1 s of sound as its level and its square."""

    seconds = 0.1

    def __call__(self, sound, sample_rate):
        pieces = sound[: len(sound) // 4410 * 4410].reshape(-1, 4410)
        level = np.abs(pieces).mean(axis=1)
        return Embedded(np.stack([level, level**2], axis=1), np.zeros((len(level), 0)))


class Recogniser:
    """Hears other texts, call by call."""

    name = "a recogniser"

    def __init__(self, texts=("Oh my dar ling", "oh my", "oh oh oh oh", "", "oh my")):
        self.texts = iter(texts)

    def __call__(self, sound, rate):
        return next(self.texts)


@pytest.fixture
def listeners(monkeypatch):
    """Listeners without published weights; notes are one per tenth of loud sound."""

    def transcribe(sound, rate):
        loud = Loudness()(sound, rate).vectors[:, 0]
        return [(0.1 * i, 0.1 * i + 0.1, round(60 + 400 * x)) for i, x in enumerate(loud)]

    monkeypatch.setattr(round_trip, "Whisper", Recogniser)
    monkeypatch.setattr(round_trip, "Musicnn", Loudness)
    monkeypatch.setattr(melody, "transcribe", transcribe)
    monkeypatch.setattr(round_trip, "_missing", lambda name: "")


def test_excerpts_are_parts_of_complete_songs(subject):
    part = round_trip.excerpt(subject.songs.split("test")[0])
    part = dataclasses.replace(part, start=5003)
    sounds = round_trip.versions(subject, part)
    assert [*sounds] == ["original", "level 0", "level 1", "level 2"]
    np.testing.assert_array_equal(
        sounds["original"], subject.songs.audio(part.song, 5003, part.stop)
    )
    for level, codes in enumerate(subject.codes.read(part.song)):
        complete = np.concatenate([*fidelity.decode_pieces(subject.vqvae, level, codes)])
        np.testing.assert_array_equal(
            sounds[f"level {level}"], np.clip(complete[5003 : part.stop], -1, 1)
        )


@pytest.fixture
def with_renderer(subject, make_run, tmp_path):
    """The subject, its model with a renderer of the middle level."""
    config = RendererConfig(
        vqvae=subject.vqvae.config, level=1, width=4, depth=1, hop=16, synthesis=64,
        loss=RendererLoss(adversarial=0.0, features=0.0),
    )  # fmt: skip
    note = {"fingerprint": subject.vqvae.fingerprint}
    make_run(tmp_path / "renderer", RendererExperiment(config), note=note)
    directory = dataclasses.replace(subject.directory, renderer=tmp_path / "renderer")
    return Subject(
        directory, subject.mesh, tmp_path, subject.songs, subject.codes,
        aligner=lambda: Aligner([0.9, 0.1, 0.6, None, 0.2, 0.5]),
    )  # fmt: skip


def test_a_renderer_is_measured_beside_the_levels(with_renderer, listeners, monkeypatch):
    subject = with_renderer
    songs = subject.songs.split("test")
    part = dataclasses.replace(round_trip.excerpt(songs[0]), start=5003)
    config, model = subject.vqvae.config, subject.systems["renderer"][1]
    codes = subject.codes.read(part.song)[1][None].astype(np.int32)
    whole = renderer.render(model.config, model.params, subject.vqvae.books[1].codes, codes)
    found = round_trip.versions(subject, part)["renderer"]
    np.testing.assert_allclose(found, np.clip(whole[0, 5003 : part.stop, 0], -1, 1), atol=1e-5)
    start, sound = excerpts.excerpt(subject, songs[0])
    found = excerpts.rebuild(subject, songs[0], start, len(sound))["renderer"]
    np.testing.assert_allclose(found, whole[0, start : start + len(sound), 0], atol=1e-5)
    result = round_trip.measure(subject, songs)
    assert [*result["fad"]] == ["original", "level 0", "level 1", "level 2", "renderer"]
    assert "renderer" in result["words"] and "renderer" in result["notes"]
    names = {score.name for score in round_trip.scores(result)}
    assert {f"renderer: {kind}" for kind in ("WER", "PER", "note F1", "FAD")} <= names
    monkeypatch.setattr(excerpts, "CODECS", ())
    beside = {row["system"]: row for row in excerpts.measure(subject, list(songs))["excerpts"]}
    assert [*beside] == ["level 0", "level 1", "level 2", "renderer"]
    kbps = config.sample_rate / config.hops[1] * np.log2(config.codes) / 1000
    assert beside["renderer"]["kbps"] == pytest.approx(kbps)
    assert beside["renderer"]["mel"] != pytest.approx(beside["level 1"]["mel"], rel=1e-3)
    assert len([*(subject.out / "sounds").glob("song_*/renderer.wav")]) == len(songs)


def test_what_survives_each_level(subject, listeners):
    songs = subject.songs.split("test")
    result = json.loads(json.dumps(round_trip.measure(subject, songs), allow_nan=False))
    heard, notes, fad = result["words"], result["notes"], result["fad"]
    names = ["level 0", "level 1", "level 2"]
    assert [*heard] == ["original", "shuffled words", *names]
    assert {*notes} == {"original", "another song", *names}
    assert {*result["score_notes"]} == {"original", *names}  # of one song
    assert {*result["score_notes"]["original"]} == {songs[0].id} and [*fad] == ["original", *names]
    assert all([*rows] == [songs[0].id] for rows in heard.values())
    assert set(notes["original"].values()) == {1.0} and len(notes["original"]) == 2
    assert fad["original"]["value"] == pytest.approx(0, abs=1e-9)
    assert all(fad[name]["value"] > 1e-6 for name in names)
    table = [[cell.split(" [")[0] for cell in row] for row in round_trip.tables(result)[0].rows]
    assert table[0] == ["original", "0.00 –", "0.00 –", "0.90 –", "1 of 1", "0.150"]
    assert [row[0] for row in table] == [*heard]
    assert table[2][1:2] + table[2][3:] == ["0.50 –", "0.60 –", "1 of 1", "0.150"]
    assert table[3][1:2] + table[3][3:] == ["0.75 –", "–", "0 of 1", "–"]
    assert table[4][1:] == ["1.00 –", "1.00 –", "0.20 –", "0 of 1", "0.150"]
    scores = {score.name: score for score in round_trip.scores(result)}
    assert len(scores) == 3 * 4
    assert [scores[f"{name}: WER"].value for name in names] == [0.5, 0.75, 1.0]
    for name in names:
        by_song = scores[f"{name}: note F1"].by_song
        assert scores[f"{name}: note F1"].value == np.mean([x for x, _ in by_song.values()])


def test_intervals_are_over_songs_weighted_by_words():
    def row(errors, of):
        return {"word_errors": errors, "words": of, "phone_errors": 0, "phones": 9,
                "fits": False, "adherence": None, "onset_error": None}  # fmt: skip

    by_song = {"a": row(1, 10), "b": row(20, 30)}
    result = {
        "words": {"original": by_song, "level 0": by_song},
        "notes": {},
        "score_notes": {},
        "fad": {},
    }
    (table,) = round_trip.tables(result)
    assert table.rows[1][1] == "0.53 [0.10, 0.67]"  # 21 of 40; one song alone, or the other
    assert round_trip.scores(result)[0].value == pytest.approx(21 / 40)


def test_what_is_missing_is_named(subject, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("JUKEJAX_CACHE", str(tmp_path / "empty"))
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "whisper" in name else there(name)
    )
    monkeypatch.setattr(round_trip, "Musicnn", Loudness)
    round_trip._missing.cache_clear()
    try:
        assert round_trip.measures(subject) == []  # no weights are fetched in tests
        result = round_trip.measure(subject, subject.songs.split("test"))
    finally:
        round_trip._missing.cache_clear()
    assert result == {"words": {}, "notes": {}, "score_notes": {}, "fad": {}}
    assert round_trip.tables(result) == round_trip.scores(result) == []
    printed = capsys.readouterr().out
    assert "faster_whisper missing: pip install 'jukejax[evaluate]'" in printed
    assert "basic_pitch" in printed and "could not be downloaded" in printed

    def broken():
        raise DataError("pocketsphinx is missing")

    monkeypatch.setattr(round_trip, "_missing", lambda name: "")
    subject.aligner = broken
    assert round_trip.measures(subject) == ["notes", "fad"]
    subject.aligner = None
    assert round_trip.measure(subject, subject.songs.split("test")) is None


@pytest.mark.slow
def test_whisper_and_pocketsphinx_hear_a_bundled_song(published_weights):
    pytest.importorskip("faster_whisper")
    from experiments.word_aligner import WordAligner
    from jukejax.evaluation.whisper import Whisper

    folder = Path(data_pipeline.__file__).parent / "demo_music"
    songs = map(json.loads, (folder / "songs.jsonl").read_text().splitlines())
    song = next(song for song in songs if song["id"] == "daisy_bell")
    sound, rate = soundfile.read(folder / song["audio"], dtype="float32")
    sung = [word for word in song["words"] if word[2] < 30]
    sound = sound.mean(axis=1)[: round((sung[-1][2] + 0.1) * rate)]
    noise = 0.3 * np.random.default_rng(0).normal(size=len(sound)).astype(np.float32)
    text = words.Sung([word for word, *_ in sung], [start for _, start, _ in sung])
    sounds = {"original": sound, "noise": noise}
    rows = words.heard(text, sounds, rate, Whisper(), WordAligner())
    rates = {name: row["word_errors"] / row["words"] for name, row in rows.items()}
    assert rates["original"] < 0.6 < 0.8 < min(rates["noise"], rates["shuffled words"])
    phones = {name: row["phone_errors"] / row["phones"] for name, row in rows.items()}
    assert phones["original"] < 0.5 < 0.7 < phones["noise"]
    assert rows["original"]["fits"] and rows["original"]["onset_error"] < 0.1
    assert not rows["noise"]["fits"] and not rows["shuffled words"]["fits"]
