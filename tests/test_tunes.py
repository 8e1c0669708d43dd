"""Words and MIDI files as tracks of phones and notes."""

import mido
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jukejax.errors import DataError
from jukejax.text.pronunciation import phones
from jukejax.text.singing import VOWELS
from jukejax.tunes import Note, read_midi, sung

TUNE = [Note(60 + i, 0.5 * i + 1.0, 0.5 * i + 1.5) for i in range(12)]


def starts(tracks):
    """Vowels with their starts."""
    return [(what, start) for what, start, _ in tracks["phones"] if what in VOWELS]


def test_each_syllable_takes_a_note_and_its_vowel_begins_with_it():
    tracks = sung("Twinkle, little star!", TUNE)
    names = " ".join(what for what, _, _ in tracks["phones"])
    assert names == "t w ih ng k ax l l ih t ax l s t aa r"
    assert tracks["notes"] == tuple((str(n.pitch), n.start, n.end) for n in TUNE[:5])
    assert [start for _, start in starts(tracks)] == [n.start for n in TUNE[:5]]
    times = np.array([event[1:] for event in tracks["phones"]])
    assert (times[:, 0] < times[:, 1]).all() and (times[1:, 0] >= times[:-1, 1] - 1e-4).all()
    assert 0 < TUNE[0].start - times[0, 0] < 0.25  # "tw" is sung before the beat
    assert times[-1, 1] < TUNE[4].end  # a breath at the end of the line


def test_a_hyphen_holds_a_syllable_and_a_rest_is_silent():
    tune = [*TUNE[:3], Note(70, 4.0, 5.0)]
    tracks = sung("go - -\nnow", tune)
    assert starts(tracks) == [("ow", 1.0), ("aw", 4.0)]
    held = next(event for event in tracks["phones"] if event[0] == "ow")
    assert held[2] == pytest.approx(2.5 - 0.16, abs=0.01)  # three notes, then a breath
    assert [what for what, _, _ in tracks["notes"]] == ["60", "61", "62", "70"]
    assert not any(2.5 < start < 3.8 for _, start, _ in tracks["phones"])


WORDS = ("go", "little", "remember", "a", "strength")


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=9))
def test_phones_are_those_of_the_words_in_order(words):
    tune = [Note(60, 1 + 0.7 * i, 1.6 + 0.7 * i) for i in range(30)]
    tracks = sung(" ".join(words), tune)
    assert [what for what, _, _ in tracks["phones"]] == [p for word in words for p in phones(word)]


@pytest.mark.parametrize(
    ("lyrics", "match"),
    [
        ("one two three four five six seven eight nine ten eleven twelve", "12 notes end before"),
        ("oh psst", "'psst' has no vowel"),
        ("...", "no words to sing"),
        ("", "no words to sing"),
    ],
)
def test_words_that_cannot_be_sung_are_named(lyrics, match):
    with pytest.raises(DataError, match=match):
        sung(lyrics, TUNE)


# --- MIDI files -----------------------------------------------------------------------------------


def write(path, *tracks, ticks=480, kind=1):
    """A file of tracks: a name, and messages as (ticks from the start, message)."""
    file = mido.MidiFile(type=kind, ticks_per_beat=ticks)
    for name, messages in tracks:
        track, before = mido.MidiTrack(), 0
        track.append(mido.MetaMessage("track_name", name=name))
        for tick, message in sorted(messages, key=lambda pair: pair[0]):
            track.append(message.copy(time=tick - before))
            before = tick
        file.tracks.append(track)
    file.save(path)
    return path


def note(pitch, start, end, channel=0):
    on, off = (mido.Message(kind, note=pitch, channel=channel) for kind in ("note_on", "note_off"))
    return [(start, on), (end, off)]


def tempo(tick, beats_per_minute):
    return [(tick, mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(beats_per_minute)))]


def test_the_melody_is_the_named_track_in_seconds_of_the_tempo_map(tmp_path):
    path = write(
        tmp_path / "a.mid",
        ("conductor", [*tempo(0, 60), *tempo(960, 120)]),
        ("Drums", note(38, 0, 480, channel=9)),
        ("Piano", [*note(48, 0, 960), *note(52, 0, 960)]),
        ("Lead vocals", [*note(69, 480, 960), *note(71, 960, 1440), *note(72, 1920, 2400)]),
    )
    expected = [(69, 1.0, 2.0), (71, 2.0, 2.5), (72, 3.0, 3.5)]
    np.testing.assert_allclose(read_midi(path), expected)


def test_without_a_name_it_is_the_voice_or_the_first_instrument(tmp_path):
    chords, tune = [*note(50, 0, 480, channel=1)], note(60, 0, 480, channel=3)
    voice = [(0, mido.Message("program_change", program=53, channel=3))]
    path = write(tmp_path / "a.mid", ("", chords + tune), kind=0)
    assert [n.pitch for n in read_midi(path)] == [50]
    path = write(tmp_path / "b.mid", ("", chords + voice + tune), kind=0)
    assert [n.pitch for n in read_midi(path)] == [60]


def test_notes_do_not_overlap_and_chords_become_their_highest_note(tmp_path):
    again = [(960, mido.Message("note_on", note=65)), (1200, mido.Message("note_on", note=65))]
    last = [(1440, mido.Message("note_on", note=65, velocity=0))]
    chord = [*note(60, 0, 700), *note(64, 5, 600), *note(62, 480, 960)]
    path = write(tmp_path / "a.mid", ("", [*chord, *again, *last]))
    expected = [(64, 5 / 960, 0.5), (62, 0.5, 1.0), (65, 1.0, 1.25), (65, 1.25, 1.5)]
    np.testing.assert_allclose(read_midi(path), expected)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda path: path.write_bytes(b"RIFF of something else"), "cannot be read as a MIDI file"),
        (lambda path: path.write_bytes(b""), "cannot be read as a MIDI file"),
        (lambda path: write(path, ("x", tempo(0, 60))), "has no notes"),
        (lambda path: write(path, ("x", note(38, 0, 480, channel=9))), "has no notes"),
        (lambda path: write(path, ("x", note(60, 0, 480)), kind=2), "a MIDI file of patterns"),
    ],
)
def test_files_without_a_tune_are_refused(make, match, tmp_path):
    make(tmp_path / "a.mid")
    with pytest.raises(DataError, match=match):
        read_midi(tmp_path / "a.mid")
