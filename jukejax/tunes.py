"""Words and a tune as tracks: what a prior conditioned on phones and notes sings."""

from __future__ import annotations

import bisect
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from jukejax.errors import DataError
from jukejax.text import pronunciation
from jukejax.text.lyric_files import parse_lyrics
from jukejax.text.singing import VOWELS, Phone, Syllable, place_phones
from jukejax.text.transliterate import spoken
from jukejax.tracks import Event

HOLD = "-"  # in lyrics: the syllable before it is held for one more note
DRUMS = 9  # the channel of General MIDI
VOICES = (53, 54, 85)  # its programs "voice oohs", "synth voice" and "lead (voice)", from 0
CHORD_S = 0.03  # notes that begin within this time sound together
SHORTEST_S = 0.01  # of a note
_MELODY = re.compile("voice|vocal|melod|lead|sing", re.IGNORECASE)
# Seconds of spoken consonants, of flite's voices.
_SPOKEN_S = {
    "b": 0.084, "ch": 0.153, "d": 0.081, "dh": 0.062, "f": 0.109, "g": 0.094, "hh": 0.093,
    "jh": 0.113, "k": 0.121, "l": 0.115, "m": 0.088, "n": 0.082, "ng": 0.124, "p": 0.118,
    "r": 0.080, "s": 0.127, "sh": 0.144, "t": 0.095, "th": 0.139, "v": 0.069, "w": 0.088,
    "y": 0.093, "z": 0.109, "zh": 0.100,
}  # fmt: skip


class Note(NamedTuple):
    """A note: its MIDI number (69 is 440 Hz), and when it begins and ends, in seconds."""

    pitch: int
    start: float
    end: float


def sung(lyrics: str, tune: Sequence[Note]) -> dict[str, tuple[Event, ...]]:
    """The tracks `phones` and `notes` of lyrics sung to a tune, a syllable a note.

    A "-" among the words holds the syllable before it for one more note; a line ends in a breath.
    Words are pronounced by espeak-ng's rules for English. Notes after the last syllable are left
    out. `jukejax.text.singing` says how phones are placed.

    Raises:
      DataError: there are no words, too few notes, or a word cannot be pronounced; or
        espeakng-loader is not installed.
    """
    notes = iter(tune)
    words: list[list[Phone]] = []
    syllables: list[Syllable] = []
    for line in parse_lyrics(lyrics).text.splitlines():
        before = len(syllables)
        for word in line.split():
            if word == HOLD and syllables:
                held = (*syllables[-1].notes, _next(notes, word, len(tune)))
                syllables[-1] = replace(syllables[-1], notes=held)
            elif spoken(word):
                words.append(_phones(word))
                for _ in range(sum(phone.name in VOWELS for phone in words[-1])):
                    note = _next(notes, word, len(tune))
                    syllables.append(Syllable(len(words) - 1, (note,), ends_line=False))
        if len(syllables) > before:
            syllables[-1] = replace(syllables[-1], ends_line=True)
    if not syllables:
        raise DataError("The lyrics have no words to sing.")
    placed = [(s.phone, *s.target) for s in place_phones(syllables, words)]
    used = [(str(pitch), start, end) for s in syllables for pitch, start, end in s.notes]
    return {"phones": _rounded(placed), "notes": _rounded(used)}


def _phones(word: str) -> list[Phone]:
    """The phones of a word, each as long as it is when spoken."""
    names = pronunciation.phones(spoken(word))
    if not VOWELS.intersection(names):
        raise DataError(f"The word {word!r} has no vowel to sing a note on; spell it otherwise.")
    return [Phone(name, 0.0, _SPOKEN_S.get(name, 0.0)) for name in names]


def _next(notes: Iterator[Note], word: str, count: int) -> Note:
    """The next note."""
    try:
        return next(notes)
    except StopIteration:
        raise DataError(
            f"The tune's {count} notes end before the word {word!r}; give fewer words or a longer "
            "tune. Each syllable takes a note."
        ) from None


def _rounded(events: Iterable[Event]) -> tuple[Event, ...]:
    """Events in milliseconds' tenths, without those that last no time."""
    rounded = ((what, round(start, 4), round(end, 4)) for what, start, end in events)
    return tuple(event for event in rounded if event[2] > event[1])


# --- MIDI files -----------------------------------------------------------------------------------


def read_midi(path: str | Path) -> list[Note]:
    """The melody of a MIDI file, in order of time: notes that do not overlap.

    It is the first track and channel that has notes and is no drum, of those whose track is called
    voice, melody, lead or the like, or whose instrument is a voice, if there are such. Of notes
    that begin together the highest stays, and a note ends where the next one begins.

    Raises:
      DataError: the file is no MIDI file, or has no notes; or mido is not installed.
    """
    try:
        import mido
    except ImportError as error:
        raise DataError("mido is missing: pip install 'jukejax[sing]'") from error
    try:
        file = mido.MidiFile(path)
    except Exception as error:  # mido raises errors of many kinds
        reason = str(error) or type(error).__name__
        raise DataError(f"{path} cannot be read as a MIDI file ({reason}).") from error
    if file.type == 2 or not 0 < file.ticks_per_beat < 2**15:
        raise DataError(
            f"{path} is a MIDI file of patterns, or without beats; save it as type 0 or 1."
        )
    seconds_at = _clock(file)
    parts = [part for track in file.tracks for part in _parts(track, seconds_at)]
    parts.sort(key=lambda part: not part.is_voice)  # stable: the first voice, or the first part
    melody = _melody(parts[0].notes) if parts else []
    if not melody:
        raise DataError(f"{path} has no notes.")
    return melody


class _Part(NamedTuple):
    """The notes of one channel of a track, in order of their ends."""

    is_voice: bool  # by the track's name or the channel's instrument
    notes: list[Note]


def _clock(file: Any) -> Callable[[int], float]:
    """A function from ticks to seconds, by the tempo changes of all tracks."""
    import mido

    changes = [(0, 0.0, 500_000)]  # tick, seconds, microseconds a beat
    at = sorted(
        (tick, message.tempo)
        for track in file.tracks
        for tick, message in _timed(track)
        if message.type == "set_tempo"
    )
    for tick, tempo in at:
        first, seconds, before = changes[-1]
        seconds += mido.tick2second(tick - first, file.ticks_per_beat, before)
        changes.append((tick, seconds, tempo))

    def seconds_at(tick: int) -> float:
        first, seconds, tempo = changes[
            bisect.bisect_right(changes, tick, key=operator.itemgetter(0)) - 1
        ]
        return seconds + float(mido.tick2second(tick - first, file.ticks_per_beat, tempo))

    return seconds_at


def _timed(track: Any) -> Iterator[tuple[int, Any]]:
    """The messages of a track with their ticks from the start of the file."""
    tick = 0
    for message in track:
        tick += message.time
        yield tick, message


def _parts(track: Any, seconds_at: Callable[[int], float]) -> list[_Part]:
    """The parts of a track: of each channel that has notes and is no drum."""
    begun: dict[tuple[int, int], int] = {}  # channel and pitch -> tick
    notes: dict[int, list[Note]] = {}
    voices = set(range(16)) if _MELODY.search(track.name) else set[int]()
    for tick, message in _timed(track):
        if message.type == "program_change" and message.program in VOICES:
            voices.add(message.channel)
        if message.type not in ("note_on", "note_off") or message.channel == DRUMS:
            continue
        key = message.channel, message.note
        if key in begun:
            note = Note(message.note, seconds_at(begun.pop(key)), seconds_at(tick))
            notes.setdefault(message.channel, []).append(note)
        if message.type == "note_on" and message.velocity:
            begun[key] = tick
    return [_Part(channel in voices, notes[channel]) for channel in sorted(notes)]


def _melody(notes: Sequence[Note]) -> list[Note]:
    """Notes of one voice: the highest of those that begin together, each until the next one."""
    out: list[Note] = []
    for note in sorted(notes, key=lambda note: (note.start, -note.pitch)):
        if out and note.start - out[-1].start < CHORD_S:
            if note.pitch > out[-1].pitch:
                out[-1] = note
            continue
        if out and out[-1].end > note.start:
            out[-1] = out[-1]._replace(end=note.start)
        out.append(note)
    return [note for note in out if note.end - note.start >= SHORTEST_S]
