"""Songs from a seed: tunes, forms and words without tools, and sound where the tools are there."""

import importlib.util
import json
import shutil
import struct
from itertools import pairwise

import numpy as np
import pytest

from data_pipeline.manifest import read_manifest
from data_pipeline.render import band, corpus, forms, scores, tunes, voices
from jukejax.errors import DataError

TOOLS = {"flite": shutil.which("flite"), "the font": band.SOUND_FONT.exists()}
TOOLS |= {name: importlib.util.find_spec(name) for name in ("pyworld", "tinysoundfont", "soxr")}
MISSING = [name for name, there in TOOLS.items() if not there]
needs_tools = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
WORDS = ("rain", "stone", "river", "golden", "the", "away", "melody")


def lines(tune):
    return [line for part in tune.parts.values() for line in part]


@pytest.mark.parametrize("number", [0, 5, *range(20, 50)])
def test_chords_last_as_long_as_the_notes(number):
    tune = tunes.make_tune(3, number)
    assert min(tune.pitches()) > 30
    for line in lines(tune):
        sung = sum(beats for notes in line.syllables for _, beats in notes)
        assert sung == pytest.approx(line.beats)


def test_a_tune_is_a_function_of_seed_and_number():
    assert tunes.make_tune(3, 40) == tunes.make_tune(3, 40)
    assert tunes.make_tune(3, 40).parts != tunes.make_tune(3, 41).parts
    assert tunes.make_tune(3, 40).parts != tunes.make_tune(4, 40).parts


def test_parts_of_composed_tunes_end_on_the_tonic_and_stay_in_their_scale():
    for number in range(20, 60):
        tune = tunes.make_tune(0, number)
        steps = tunes.MAJOR if tune.mode == "major" else (*tunes.MINOR, 11)
        assert {pitch % 12 for pitch in tune.pitches()} <= set(steps)
        for part in ("verse", "chorus"):
            sung = [n for notes in tune.parts[part][-1].syllables for n in notes if n[0]]
            assert sung[-1][0] % 12 == 0


def test_tunes_differ():
    starts = [tuple(tunes.make_tune(0, n).pitches()[:12]) for n in range(20, 120)]
    assert len(set(starts)) == 100


def test_transposing_moves_notes_and_chords_alike():
    line = tunes.Line((((60, 1.0),), ((0, 1.0),)), (("Bb7", 2.0),))
    moved = tunes.transpose(line, 3)
    assert moved == tunes.Line((((63, 1.0),), ((0, 1.0),)), (("Db7", 2.0),))
    assert tunes.transpose(moved, -3) == line


def test_songs_are_as_planned():
    plans = [corpus.plan_song(0, index) for index in range(60)]
    for plan in plans:
        score = plan.score
        melody = score["lead_in"] + sum(
            beats for line in score["lines"] for _, notes in line for _, beats in notes
        )
        assert melody == pytest.approx(sum(beats for _, beats in score["chords"]))
        assert 15 < scores.score_seconds(score) < 120
        sections = score["sections"]
        assert sections[0][1] == 0 and sections[-1][2] == pytest.approx(melody)
        assert all(left[2] == right[1] for left, right in pairwise(sections))
        shortest = min(b - a for s in scores.score_syllables(score) for _, a, b in s.notes)
        assert shortest > forms.SHORTEST_NOTE_S - 1e-6
    assert {plan.voice.artist for plan in plans} == {
        voice.artist for name, voice in voices.VOICES.items() if name != voices.HELD_OUT
    }
    assert {plan.genre for plan in plans} == set(forms.GENRES)
    assert all(p.score["bar"] % 3 == 0 for p in plans if p.genre == "waltz")


def test_a_chorus_has_the_same_words_each_time_and_verses_others():
    plan = next(
        p
        for p in (corpus.plan_song(0, i) for i in range(99))
        if [s[0] for s in p.score["sections"]].count("chorus") > 1
    )
    sung = [s[0] for s in plan.score["sections"] if s[0] in ("verse", "chorus", "bridge")]
    words, texts = iter(plan.score["lines"]), {"verse": [], "chorus": [], "bridge": []}
    tune = tunes.make_tune(0, int(plan.tune.removeprefix("composed-")))
    for part in sung:
        text = [scores.line_words(next(words)) for _ in tune.parts[part]]
        texts[part].append(text)
    assert texts["chorus"][0] == texts["chorus"][1]
    assert texts["verse"][0] != texts["verse"][1]


def test_held_out_tunes_are_in_no_training_song():
    plans = [corpus.plan_song(0, index) for index in range(400)]
    by_album = {}
    for plan in plans:
        by_album.setdefault(plan.album, set()).add(plan.tune)
    train = by_album["Rendered songs"]
    assert not train & by_album["Held-out tunes"]
    groups = {}
    for plan in plans:
        split = plan.album == "Rendered songs"
        assert groups.setdefault(plan.group, split) == split
    shares = [sum(p.album == album for p in plans) / 400 for album in by_album]
    assert min(shares) > 0.01 and len(shares) == 3
    assert all(plan.voice.artist != voices.VOICES[voices.HELD_OUT].artist for plan in plans)


def test_pieces_of_a_word_are_its_syllables():
    assert "".join(forms._pieces("melody")).replace("-", "") == "melody"
    assert [piece.endswith("-") for piece in forms._pieces("melody")] == [True, True, False]


def read_melody(data):
    """(pitch, start and end in seconds) of the voice's notes in a format 0 MIDI file."""
    ticks, at, clock, status, beat_s = struct.unpack(">H", data[12:14])[0], 22, 0, 0, 0.5
    open_notes, out = {}, []
    while at < len(data):
        delta = 0
        while True:
            byte, at = data[at], at + 1
            delta = delta << 7 | byte & 0x7F
            if byte < 0x80:
                break
        clock += delta
        status, at = data[at], at + 1
        if status == 0xFF:
            kind, size = data[at], data[at + 1]
            if kind == 0x51:
                beat_s = int.from_bytes(data[at + 2 : at + 5], "big") / 1e6
            at += 2 + size
            continue
        pitch = data[at]
        if status == 0x90 | band.VOICE:
            open_notes[pitch] = clock
        elif status == 0x80 | band.VOICE:
            out.append((pitch, open_notes.pop(pitch) * beat_s / ticks, clock * beat_s / ticks))
        at += 1 if status >> 4 == 0xC else 2
    return sorted(out, key=lambda note: note[1])


@pytest.fixture
def small(monkeypatch):
    """Songs of a few seconds and seven words."""
    lexicon = {word: voices.lexicon()[word] for word in WORDS}
    for module in (voices, forms):
        monkeypatch.setattr(module, "lexicon", lambda: lexicon)
    monkeypatch.setattr(forms, "SHORTEST_S", 3.0)
    monkeypatch.setattr(forms, "LONGEST_S", 5.0)


def files_of(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@needs_tools
def test_a_run_that_was_killed_ends_with_the_same_bytes(tmp_path, small):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    renderer = corpus.Renderer(whole, seed=5, stems=True)
    corpus.render(renderer, 20 / 3600)
    want = files_of(whole)
    assert sum(name.startswith("audio/") for name in want) >= 2

    renderer.folder = killed
    shutil.copytree(whole, killed)
    first, second, *_ = sorted((killed / "truth").iterdir())
    second.unlink()  # killed before the truth was written
    (killed / "audio" / f"{first.stem}.flac").write_bytes(b"half a file")
    (killed / "songs.jsonl").unlink()
    corpus.render(renderer, 20 / 3600)
    assert files_of(killed) == want

    with pytest.raises(DataError, match="give another folder"):
        corpus.render(corpus.Renderer(killed, seed=5), 20 / 3600)


@needs_tools
def test_truth_agrees_with_manifest_midi_and_sound(tmp_path, small):
    import librosa
    import soundfile

    corpus.render(corpus.Renderer(tmp_path, seed=2, only_voice="slt", stems=True), 25 / 3600)
    manifest = read_manifest(tmp_path / "songs.jsonl")
    assert not manifest.problems and {song.artist for song in manifest.songs} == {"Flite SLT"}
    errors = []
    for song in manifest.songs:
        truth = json.loads((tmp_path / "truth" / f"{song.id}.json").read_text())
        assert [word for word, *_ in song.words] == song.lyrics.split()
        assert all(0 <= a < b < truth["seconds"] for _, a, b in song.words)
        phones = [p for word, *_ in song.words for p in voices.lexicon()[word]]
        assert [name for name, *_ in truth["phones"]] == phones
        for name, start, end, word in truth["phones"]:
            assert song.words[word][1] - 1e-3 <= start < end <= song.words[word][2] + 1e-3, name
        melody = read_melody(song.midi.read_bytes())
        assert [n[0] for n in melody] == [n[0] for n in truth["notes"]]
        np.testing.assert_allclose(
            [n[1:] for n in melody], [n[1:] for n in truth["notes"]], atol=3e-3
        )
        assert [[float(what), *span] for what, *span in song.tracks["notes"]] == truth["notes"]
        assert [what for what, *_ in song.tracks["phones"]] == phones
        ends = [end for _, _, end in song.tracks["chords"]]
        assert [start for _, start, _ in song.tracks["chords"]] == [0.0, *ends[:-1]]
        assert ends[-1] == pytest.approx(truth["seconds"] - corpus.TAIL_S, abs=2e-3)
        mix, rate = soundfile.read(song.audio)
        assert rate == corpus.RATE
        assert len(mix) / rate == pytest.approx(truth["seconds"], abs=1e-3)
        stems = dict(song.stems)
        sound = soundfile.read(stems["vocals"])[0] if stems else mix
        if stems:
            both = sound + soundfile.read(stems["band"])[0]
            assert np.corrcoef(both, mix)[0, 1] > 0.99
        pitch, _, _ = librosa.pyin(sound[: 12 * rate], fmin=150, fmax=900, sr=rate, hop_length=256)
        times = np.arange(len(pitch)) * 256 / rate  # the first 12 s: pyin is slow
        for midi, start, end in truth["notes"]:
            near = pitch[(times > start + 0.06) & (times < end - 0.1) & ~np.isnan(pitch)]
            if len(near) > 3:
                errors.append(abs(69 + 12 * np.log2(np.median(near) / 440) - midi))
    assert len(errors) > 20 and np.mean(np.array(errors) < 0.5) > 0.9
