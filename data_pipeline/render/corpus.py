"""Renders hours of sung songs from one seed: `python -m data_pipeline.render.corpus --out DIR`.

Every song is a function of (seed, index): a tune, a form, a key, a tempo, a singer (artist), a band
(genre), words drawn at random, and how loud they are mixed. A run that was killed continues; it
gives the same bytes. DIR gets

- `songs.jsonl`: the manifest, rewritten every 20 songs, of complete songs alone;
- `audio/ID.flac`: 22.05 kHz mono; with --stems `stems/ID-vocals.flac` and `-band.flac`;
- `tracks/ID.json`: phones, sung notes and chords with their seconds, as priors read them;
- `midi/ID.mid`: band and sung melody;
- `truth/ID.json`: phones and sung notes with their seconds, chords, key, tempo, SHA-256 of the
  files. It is written last: a song without it is rendered again;
- `words/`: spoken words, analysed once a voice.

About 5 % of the tunes are sung in test songs only, album "Held-out tunes"; 3 % of the songs are
test songs of training tunes, album "Known tunes, new words", in groups of their own. One voice is
never drawn and sings only where --voice names it.

Needs flite and fluidr3mono-gm-soundfont (Debian) and the extra `render`.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.render import scores
from data_pipeline.render.band import VOICE, Note, Player, accompany, midi_bytes
from data_pipeline.render.forms import A_CAPPELLA, GENRES, write_score
from data_pipeline.render.sound import fade, level, reverberate, rms
from data_pipeline.render.tunes import COMPOSED, held_out, make_tune, number_of_tunes
from data_pipeline.render.voice import VOICE_RATE, sing_spoken
from data_pipeline.render.voices import HELD_OUT, VOICES, Voice, spoken_word
from jukejax import files, locks
from jukejax.errors import DataError, JukejaxError

RATE = 22_050  # Hz
TAIL_S = 1.5  # reverberation after the last chord
BUNDLED_SHARE = 0.15  # of songs, to the bundled public-domain tunes
A_CAPPELLA_SHARE, KNOWN_TUNE_SHARE = 0.2, 0.03
LICENCE = "MIT-Festival AND MIT"  # flite's voices and FluidR3Mono's samples
MANIFEST_EVERY = 20  # songs
RECIPE = 1  # to be raised by a change after which the same seed gives other songs


@dataclass(frozen=True)
class Plan:
    """What a song is made of, before anything sounds."""

    id: str
    voice: Voice
    genre: str
    tune: str
    album: str
    group: str
    score: dict[str, Any]
    voice_over_band_db: float
    hall_s: float
    wet: float
    drift_seed: int


def plan_song(seed: int, index: int, only_voice: str = "") -> Plan:
    """The plan of song `index`; `only_voice`: the singer instead of one drawn."""
    rng = np.random.default_rng([seed, 0, index])
    names = [name for name in VOICES if name != HELD_OUT]
    voice = VOICES[only_voice or str(rng.choice(names))]
    number = _draw_tune(rng)
    known = rng.random() < KNOWN_TUNE_SHARE and not held_out(number)
    tune = make_tune(seed, number)
    genre = A_CAPPELLA if rng.random() < A_CAPPELLA_SHARE else _draw_genre(tune.bar, rng)
    album = "Rendered songs"
    if known or held_out(number):
        album = "Known tunes, new words" if known else "Held-out tunes"
    return Plan(
        id=f"{only_voice or 'song'}-{seed}-{index:05d}",
        voice=voice,
        genre=genre,
        tune=tune.name,
        album=album,
        group=f"tune {seed} {tune.name}{', new words' * known}",
        score=write_score(tune, voice, genre, rng),
        voice_over_band_db=float(rng.uniform(3.0, 12.0)),
        hall_s=float(rng.uniform(0.4, 1.8)),
        wet=float(rng.uniform(0.03, 0.3)),
        drift_seed=int(rng.integers(2**31)),
    )


def _draw_tune(rng: np.random.Generator) -> int:
    bundled = number_of_tunes() - COMPOSED
    if rng.random() < BUNDLED_SHARE:
        return int(rng.integers(bundled))
    return bundled + int(rng.integers(COMPOSED))


def _draw_genre(bar: int, rng: np.random.Generator) -> str:
    """A genre with a band; half of what is in three is a waltz, and nothing else is."""
    if bar % 3 == 0 and rng.random() < 0.5:
        return "waltz"
    return str(rng.choice([name for name in GENRES if name not in ("waltz", A_CAPPELLA)]))


class Renderer:
    """Renders songs of one seed into a folder."""

    def __init__(self, folder: Path, seed: int, only_voice: str = "", stems: bool = False) -> None:
        self.folder, self.seed, self.only_voice, self.stems = folder, seed, only_voice, stems
        self.made = {"recipe": RECIPE, "seed": seed, "voice": only_voice, "stems": stems}
        self.player = Player(RATE)

    def song(self, index: int) -> dict[str, Any]:
        """Renders song `index`, unless it is complete already; returns its truth.

        Raises:
          DataError: the folder has this song by another seed, voice or recipe, or without stems.
        """
        plan = plan_song(self.seed, index, self.only_voice)
        path = self.folder / "truth" / f"{plan.id}.json"
        truth = files.read_json(path)
        if truth is not None and truth["made"] != self.made | {"index": index}:
            raise DataError(
                f"{path} is of {truth['made']}, not of {self.made}; give another folder by --out"
            )
        if truth is None or not self._complete(truth):
            truth = self._render(plan) | {"made": self.made | {"index": index}}
            files.write_json(path, truth, indent=None)
        name = f"tracks/{plan.id}.json"
        files.write_json(self.folder / name, tracks_of(truth), indent=None)
        return truth | {"song": truth["song"] | {"tracks_file": name}}

    def _complete(self, truth: dict[str, Any]) -> bool:
        """Whether all files of a song are there, bit for bit."""
        return all(
            (self.folder / name).is_file() and _sha256(self.folder / name) == digest
            for name, digest in truth["sha256"].items()
        )

    def _render(self, plan: Plan) -> dict[str, Any]:
        """Writes the sounds and the MIDI file of a song; returns its truth."""
        score = plan.score
        syllables = scores.score_syllables(score)
        seconds = scores.score_seconds(score) + TAIL_S
        words = scores.score_words(score)
        spoken = [spoken_word(word, plan.voice, self.folder / "words") for word in words]
        dry, segments = sing_spoken(spoken, syllables, seconds, plan.drift_seed)
        band = [] if plan.genre == A_CAPPELLA else accompany(score)
        parts = self._mix(plan, dry, band, seconds)
        names = {part: f"stems/{plan.id}-{part}.flac" for part in parts}
        names["mix"] = f"audio/{plan.id}.flac"
        if not self.stems:
            names = {"mix": names["mix"]}
        for part, name in names.items():
            _write_flac(self.folder / name, parts[part])
        midi = f"midi/{plan.id}.mid"
        notes = [note for syllable in syllables for note in syllable.notes]
        melody = _melody(notes, score["tempo"])
        programs = score["programs"] if band else {}
        data = midi_bytes([*band, *melody], score["tempo"], programs | {"voice": 53})
        files.write_bytes(self.folder / midi, data)
        times = scores.word_times(segments, len(words))
        written = [*names.values(), midi]
        return {
            "song": _row(plan, words, times) | self._paths(names, midi),
            "seconds": round(seconds, 3),
            "tune": plan.tune,
            **{key: score[key] for key in ("form", "key", "tempo", "bar", "chords")},
            "phones": [[s.phone, *_rounded(*s.target), s.word] for s in segments],
            "notes": [[midi, *_rounded(start, end)] for midi, start, end in notes],
            "sha256": {name: _sha256(self.folder / name) for name in written},
        }

    def _mix(
        self, plan: Plan, dry: np.ndarray, band: Sequence[Note], seconds: float
    ) -> dict[str, np.ndarray]:
        """The mix (N,), and the vocals and the band as they are in it."""
        import soxr

        n = round(seconds * RATE)
        voice = np.zeros(n)
        sung = soxr.resample(dry, VOICE_RATE, RATE, quality="HQ")[:n]
        voice[: len(sung)] = sung
        voice = reverberate(voice, plan.hall_s, plan.wet, RATE)[:, :1]
        if not band:
            return {"mix": level(fade(voice, 0.01, TAIL_S, RATE), RATE)[:, 0]}
        score = plan.score
        played = self.player.play(band, score["tempo"], score["programs"], n).mean(1, keepdims=True)
        gain = rms(played, rate=RATE) / rms(voice, rate=RATE) * 10 ** (plan.voice_over_band_db / 20)
        stems = {
            name: fade(sound, 0.01, TAIL_S, RATE)
            for name, sound in (("vocals", voice * gain), ("band", played))
        }
        mixed = level(stems["vocals"] + stems["band"], RATE)
        loudness = rms(mixed, rate=RATE) / rms(stems["vocals"] + stems["band"], rate=RATE)
        return {"mix": mixed[:, 0]} | {
            name: (stem * loudness)[:, 0] for name, stem in stems.items()
        }

    def _paths(self, names: dict[str, str], midi: str) -> dict[str, Any]:
        stems = {part: name for part, name in names.items() if part != "mix"}
        return {"audio": names["mix"], "midi": midi} | ({"stems": stems} if stems else {})


def _row(plan: Plan, words: Sequence[str], times: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """The manifest's line of a song, without its files."""
    score, beat_s = plan.score, 60.0 / plan.score["tempo"]
    speed = "slow" if score["tempo"] < 84 else "fast" if score["tempo"] > 120 else "medium"
    return {
        "id": plan.id,
        "artist": plan.voice.artist,
        "album": plan.album,
        "genres": [plan.genre],
        "tags": [speed, score["key"].split()[1]],
        "lyrics": scores.score_lyrics(score),
        "words": [[w, *_rounded(*span)] for w, span in zip(words, times, strict=True)],
        "sections": [
            [name, *_rounded(start * beat_s, end * beat_s)]
            for name, start, end in score["sections"]
        ],
        "licence": LICENCE,
        "group": plan.group,
        "split": "train" if plan.album == "Rendered songs" else "test",
    }


def tracks_of(truth: dict[str, Any]) -> dict[str, list[tuple[str, float, float]]]:
    """The tracks of a song: phones, sung notes by MIDI number, chords."""
    ends = np.cumsum([beats for _, beats in truth["chords"]]) * 60.0 / truth["tempo"]
    spans = zip(truth["chords"], [0.0, *ends[:-1]], ends, strict=True)
    return {
        "phones": [(name, start, end) for name, start, end, _ in truth["phones"]],
        "notes": [(str(round(midi)), start, end) for midi, start, end in truth["notes"]],
        "chords": [(symbol, *_rounded(start, end)) for (symbol, _), start, end in spans],
    }


def _melody(notes: Sequence[tuple[float, float, float]], tempo: float) -> list[Note]:
    """Sung notes (midi, start_s, end_s) as notes of a MIDI file."""
    beats = tempo / 60
    return [(a * beats, (b - a) * beats, VOICE, int(midi), 90) for midi, a, b in notes]


def _rounded(start: float, end: float) -> tuple[float, float]:
    return round(start, 4), round(end, 4)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_flac(path: Path, sound: np.ndarray) -> None:
    """Writes sound (N,) at RATE as 16-bit FLAC, atomically."""
    import soundfile

    with files.atomic_path(path) as temporary:
        soundfile.write(temporary, sound, RATE, subtype="PCM_16")


def render(renderer: Renderer, hours: float) -> None:
    """Renders songs from index 0 until they last `hours` together."""
    rows: list[dict[str, Any]] = []
    seconds, index = 0.0, 0
    manifest = renderer.folder / "songs.jsonl"
    with locks.writing(renderer.folder):
        while seconds < hours * 3600:
            truth = renderer.song(index)
            rows.append(truth["song"])
            seconds += truth["seconds"]
            index += 1
            if index % MANIFEST_EVERY == 0:
                files.write_json_lines(manifest, rows)
                print(f"{index} songs, {seconds / 3600:.2f} h", flush=True)
        files.write_json_lines(manifest, rows)
    print(f"{manifest}: {index} songs, {seconds / 3600:.2f} h")


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the songs")
    parser.add_argument("--hours", type=float, default=1.0, help="of music (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of all songs (default: 0)")
    parser.add_argument("--voice", choices=VOICES, default="", help="sing all songs with this one")
    parser.add_argument("--stems", action="store_true", help="write vocals and band too")
    args = parser.parse_args(argv)
    render(Renderer(args.out, args.seed, args.voice, args.stems), args.hours)


if __name__ == "__main__":
    try:
        main()
    except JukejaxError as error:
        sys.exit(f"error: {error}")
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}: run `pip install 'jukejax[render]'`")
