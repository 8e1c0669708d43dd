"""Accompaniment: chord symbols to notes, notes to a MIDI file, MIDI to sound with fluidsynth.

Notes are (start_beat, beats, channel, midi, velocity). fluidsynth and the FluidR3Mono sound font
come from Debian (`fluidsynth`, `fluidr3mono-gm-soundfont`).
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.render.sound import RATE, MissingTool

SOUND_FONT = Path("/usr/share/sounds/sf3/FluidR3Mono_GM.sf3")
TICKS = 480  # a beat
BASS, CHORD, PAD, VOICE, DRUMS = 0, 1, 2, 3, 9  # MIDI channels
CHANNELS = {"bass": BASS, "chord": CHORD, "pad": PAD, "voice": VOICE}
PANS = {BASS: 64, CHORD: 40, PAD: 88, VOICE: 64}
ROOTS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
SHAPES = {"": (0, 4, 7), "m": (0, 3, 7), "7": (0, 4, 7, 10), "m7": (0, 3, 7, 10)}

Note = tuple[float, float, int, int, int]
Chord = Sequence[int]


def chord_pitches(symbol: str) -> tuple[int, list[int]]:
    """A chord symbol such as "Bb7" to its bass note (MIDI 36..47) and a voicing near middle C."""
    match = re.fullmatch(r"([A-G])([b#]?)(m7|m|7|)", symbol)
    if not match:
        raise ValueError(f"not a chord symbol: {symbol!r}")
    root = (ROOTS[match[1]] + {"b": -1, "#": 1, "": 0}[match[2]]) % 12
    voicing = sorted(54 + (root + step - 54) % 12 for step in SHAPES[match[3]])
    return 36 + root, voicing


def _waltz(start: float, beats: float, bass: int, chord: Chord, step: float) -> list[Note]:
    """Bass on the first beat of the bar, the chord on the others."""
    out: list[Note] = [(start, min(1.0, beats), BASS, bass, 84)]
    for beat in np.arange(1.0, beats):
        out += [(start + beat, 0.7, CHORD, pitch, 58) for pitch in chord]
    if beats < 2:
        out += [(start, beats, CHORD, pitch, 54) for pitch in chord]
    return out


def _strum(start: float, beats: float, bass: int, chord: Chord, step: float) -> list[Note]:
    """Bass on odd beats (root, then fifth), the chord spread over 40 ms on even ones."""
    out: list[Note] = []
    for i, beat in enumerate(np.arange(0.0, beats)):
        if i % 2 == 0:
            out.append((start + beat, 0.9, BASS, bass if i % 4 == 0 else bass + 7, 82))
        if i % 2 == 1 or beats < 2:
            out += [(start + beat + 0.03 * k, 0.8, CHORD, p, 62) for k, p in enumerate(chord)]
    return out


def _arpeggio(start: float, beats: float, bass: int, chord: Chord, step: float) -> list[Note]:
    """A long bass note; the chord's notes one after the other, `step` beats apart."""
    ladder = [*chord, chord[0] + 12]
    wave = ladder + ladder[-2:0:-1]
    out: list[Note] = [(start, beats, BASS, bass, 80)]
    for i, at in enumerate(np.arange(0.0, beats, step)):
        out.append((start + at, 0.9, CHORD, wave[i % len(wave)], 66 if i % 2 == 0 else 58))
    return out


def _block(start: float, beats: float, bass: int, chord: Chord, step: float) -> list[Note]:
    """Sustained chords, as on an organ."""
    out: list[Note] = [(start, beats * 0.97, BASS, bass, 76)]
    return out + [(start, beats * 0.97, CHORD, pitch, 62) for pitch in chord]


def _pulse(start: float, beats: float, bass: int, chord: Chord, step: float) -> list[Note]:
    """Bass and chord repeated every `step` beats, the first of each beat louder: rock and dance."""
    out: list[Note] = []
    for at in np.arange(0.0, beats, step):
        accent = 14 if at % 1 == 0 else 0
        out.append((start + at, step * 0.9, BASS, bass, 72 + accent))
        out += [(start + at, step * 0.7, CHORD, pitch, 46 + accent) for pitch in chord]
    return out


STYLES = {
    "waltz": _waltz,
    "strum": _strum,
    "arpeggio": _arpeggio,
    "block": _block,
    "pulse": _pulse,
}


def _drums(beats: float, bar: int) -> list[Note]:
    """A soft kick on each bar's first beat, a brush on the others."""
    out: list[Note] = []
    for beat in range(int(beats)):
        first = beat % bar == 0
        out.append((float(beat), 0.4, DRUMS, 35 if first else 38, 62 if first else 30))
        out.append((float(beat), 0.3, DRUMS, 42, 34))
    return out


def _loud_drums(beats: float, bar: int) -> list[Note]:
    """Kick on odd beats of a bar, snare on even ones, a closed hi-hat twice a beat."""
    out: list[Note] = []
    for beat in range(int(beats)):
        out.append((float(beat), 0.4, DRUMS, 36 if beat % bar % 2 == 0 else 38, 84))
        out += [(beat + half, 0.2, DRUMS, 42, 50) for half in (0.0, 0.5)]
    return out


KITS = {"soft": _drums, "loud": _loud_drums}


def accompany(score: dict[str, Any]) -> list[Note]:
    """The notes of the band for a score's `chords`, in its `style`."""
    style, out, start = STYLES[score["style"]], [], 0.0
    bar, step = score["bar"], score.get("step", 0.5)
    last = len(score["chords"]) - 1
    for i, (symbol, beats) in enumerate(score["chords"]):
        bass, chord = chord_pitches(symbol)
        if i == last:
            out += _block(start, beats, bass, chord, step)
        else:
            for at in np.arange(0.0, beats, bar):  # chords longer than a bar repeat the pattern
                out += style(start + at, min(bar, beats - at), bass, chord, step)
        if "pad" in score["programs"]:
            out += [(start, beats * 0.98, PAD, pitch + 12, 44) for pitch in chord]
        start += beats
    return out + (KITS[score["drums"]](start, bar) if "drums" in score else [])


def _variable_length(value: int) -> bytes:
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(0x80 | (value & 0x7F))
    return bytes(reversed(out))


def midi_bytes(notes: Sequence[Note], tempo: float, programs: dict[str, int]) -> bytes:
    """A standard MIDI file (format 0) of the notes at `tempo` beats a minute."""
    events: list[tuple[int, int, bytes]] = [
        (0, 0, b"\xff\x51\x03" + round(60e6 / tempo).to_bytes(3, "big"))
    ]
    for name, program in programs.items():
        channel = CHANNELS[name]
        events.append((0, 1, bytes([0xC0 | channel, program])))
        events.append((0, 1, bytes([0xB0 | channel, 10, PANS[channel]])))
    for start, beats, channel, pitch, velocity in notes:
        on, off = round(start * TICKS), round((start + beats) * TICKS)
        events.append((on, 3, bytes([0x90 | channel, pitch, velocity])))
        events.append((max(off, on + 1), 2, bytes([0x80 | channel, pitch, 0])))
    body, clock = b"", 0
    for tick, _, data in sorted(events, key=lambda event: event[:2]):
        body += _variable_length(tick - clock) + data
        clock = tick
    body += b"\x00\xff\x2f\x00"
    header = b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS)
    return header + b"MTrk" + struct.pack(">I", len(body)) + body


def _check_font() -> None:
    if not SOUND_FONT.exists():
        raise MissingTool(
            f"{SOUND_FONT} is missing: run `apt-get install fluidr3mono-gm-soundfont`."
        )


def play(score: dict[str, Any], seconds: float) -> np.ndarray:
    """The band's sound (N, 2) at RATE, cut or padded to `seconds`."""
    import soundfile

    _check_font()
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder) / "song.mid", Path(folder) / "song.wav"
        midi.write_bytes(midi_bytes(accompany(score), score["tempo"], score["programs"]))
        command = ["fluidsynth", "-ni", "-q", "-g", "0.6", "-r", str(RATE), "-O", "float"]
        command += ["-F", str(wav), str(SOUND_FONT), str(midi)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except FileNotFoundError as error:
            raise MissingTool("fluidsynth is missing: run `apt-get install fluidsynth`.") from error
        sound, _ = soundfile.read(wav, dtype="float64", always_2d=True)
    out = np.zeros((round(seconds * RATE), 2))
    n = min(len(out), len(sound))
    out[:n] = sound[:n]
    return out


class Player:
    """Plays notes with TinySoundFont: 250 times faster than real time, with its font loaded once.

    The package is `tinysoundfont`. A song's sound does not depend on what was played before.
    """

    def __init__(self, rate: int) -> None:
        """Loads the font; sounds will be at `rate` Hz."""
        _check_font()
        try:
            import tinysoundfont
        except ModuleNotFoundError as error:
            raise MissingTool(
                "tinysoundfont is missing: run `pip install --no-deps tinysoundfont` (PyAudio, "
                "which it names as a need, is for playing through loudspeakers)."
            ) from error
        self.rate = rate
        self.synth = tinysoundfont.Synth(gain=-6, samplerate=rate)
        self.font = self.synth.sfload(str(SOUND_FONT))

    def play(
        self, notes: Sequence[Note], tempo: float, programs: dict[str, int], n_samples: int
    ) -> np.ndarray:
        """The notes' sound (n_samples, 2) at `tempo` beats a minute."""
        synth = self.synth
        synth.sounds_off()
        synth.generate(self.rate)  # fades out; all voices are free after it
        for name, program in programs.items():
            synth.program_select(CHANNELS[name], self.font, 0, program)
        synth.program_select(DRUMS, self.font, 128, 0, True)
        beat = 60.0 / tempo * self.rate
        events = []  # (sample, 0 off or 1 on, channel, pitch, velocity)
        for start, beats, channel, pitch, velocity in notes:
            events.append((round(start * beat), 1, channel, pitch, velocity))
            events.append((round((start + beats) * beat), 0, channel, pitch, 0))
        blocks, clock = [np.zeros((0, 2), np.float32)], 0
        for at, is_on, channel, pitch, velocity in [*sorted(events), (n_samples, 0, 0, 0, 0)]:
            if min(at, n_samples) > clock:
                block = synth.generate(min(at, n_samples) - clock)
                blocks.append(np.frombuffer(block, np.float32).reshape(-1, 2))
                clock = min(at, n_samples)
            if is_on:
                synth.noteon(channel, pitch, velocity)
            else:
                synth.noteoff(channel, pitch)
        return np.concatenate(blocks).astype(np.float64)
