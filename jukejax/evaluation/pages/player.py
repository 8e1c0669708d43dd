"""The player that pages share: one song, switchable between its sounds, lyrics highlighted as sung.

`site/song.html.j2` (a song's markup), `site/player.css` and `site/player.js` show what is prepared
here: waveforms, spectrograms and attention as pictures, and lyrics in pieces with times. Sounds and
pictures have relative paths, so pages open from disk. S samples of a sound.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from jukejax import files
from jukejax.config import ConfigError
from jukejax.evaluation.pages.spectrogram import log_spectrogram, loudest, to_image
from jukejax.evaluation.pages.templates import WAVE, printable

FRAMES = 1200  # columns of a picture
BINS = 224  # rows of a spectrogram
SHORTEST = 0.05  # seconds that a word is highlighted, at least
NEAR = 200  # characters within which the next word of the lyrics is searched

Timed = tuple[str, float, float, int, int]  # text, start and end in seconds, and in characters


@dataclass(frozen=True)
class Sound:
    """What a player shows of a sound: its length in s, root mean square, and outline (SVG path)."""

    seconds: float = 0.0
    rms: float = 0.0
    outline: str = ""


@dataclass(frozen=True)
class Track:
    """One version of a song; `key` is its level or "original", `wav` None before it is sampled."""

    key: str
    name: str
    wav: str | None
    picture: str
    details: str = ""
    sound: Sound = Sound()


@dataclass(frozen=True)
class Piece:
    """A part of the lyrics; sung words have times in s and a `row`, 0..1 of the lyrics."""

    text: str
    start: float | None = None
    end: float = 0.0
    row: float = 0.0


@dataclass(frozen=True)
class Alignment:
    """Attention `weights` (times, characters of the lyrics), `starts` (times,) in s, and words.

    `head` names the layer and head of the attention, where that is known.
    """

    weights: np.ndarray
    starts: np.ndarray
    words: list[Timed]
    head: str = ""


@dataclass(frozen=True)
class PlayerSong:
    """What a player plays; its files are in `folder` of the page: empty, or a name and a slash.

    `commands` are lines to copy that continue from this song.
    """

    artist: str
    genres: list[str]
    tracks: list[Track]
    lyrics: list[Piece] = field(default_factory=list)
    attention: str = ""
    head: str = ""
    facts: list[tuple[str, str]] = field(default_factory=list)
    job: str = ""
    commands: str = ""
    folder: str = ""

    @property
    def seconds(self) -> float:
        """Length of the longest track: the span of the time axis."""
        return max((track.sound.seconds for track in self.tracks), default=0.0)


# --- sounds and pictures --------------------------------------------------------------------------


def outline(sound: np.ndarray, peak: float) -> str:
    """The SVG path of a waveform (S,) in a box of WAVE x 100; `peak` fills its height."""
    if not len(sound):
        return ""
    columns = min(WAVE, len(sound))
    starts = np.linspace(0, len(sound), columns, endpoint=False).astype(int)
    x = np.linspace(0, WAVE, columns).round().astype(int)
    scale = 48 / max(peak, 1e-4)
    upper = 50 - scale * np.maximum.reduceat(sound, starts)
    lower = 50 - scale * np.minimum.reduceat(sound, starts)
    points = [*zip(x, upper, strict=True), *zip(x[::-1], lower[::-1], strict=True)]
    return "M" + "L".join(f"{at} {y:.0f}" for at, y in points) + "Z"


def read_sound(wav: Path) -> tuple[np.ndarray, int]:
    """The mean of a sound's channels (S,) float32, with 0 for non-finite values; its rate in Hz."""
    import soundfile

    try:
        audio, rate = soundfile.read(wav, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ConfigError(f"{wav} cannot be read ({error}); make it again.") from error
    return np.nan_to_num(audio.mean(axis=1), posinf=0.0, neginf=0.0), rate


def draw_sounds(pairs: Sequence[tuple[Path, Path]]) -> list[Sound]:
    """Describes the sounds of (sound, picture) pairs of one song, and draws their spectrograms.

    Pictures are drawn unless all are newer than their sounds. All versions of a song share one
    range of colours and one scale of waveforms, so that they can be compared.

    Raises:
      ConfigError: a sound cannot be read.
    """
    import matplotlib.image

    sounds = [read_sound(wav) for wav, _ in pairs]
    if not all(p.exists() and p.stat().st_mtime >= w.stat().st_mtime for w, p in pairs):
        spectra = [log_spectrogram(s, rate, frames=FRAMES, bins=BINS) for s, rate in sounds]
        top = max(loudest(spectrum) for spectrum in spectra)
        for (_, picture), spectrum in zip(pairs, spectra, strict=True):
            with files.atomic_path(picture) as temporary:
                matplotlib.image.imsave(temporary, to_image(spectrum, top=top))
    peak = max((float(np.abs(s).max(initial=0.0)) for s, _ in sounds), default=0.0)
    return [
        Sound(len(s) / rate, float(np.sqrt(np.mean(np.square(s)))) if len(s) else 0.0,
              outline(s, peak))
        for s, rate in sounds
    ]  # fmt: skip


def draw_attention(alignment: Alignment, seconds: float, picture: Path) -> None:
    """Draws the attention: time from left to right, the first character at the top.

    Each time is scaled to its largest weight; times before the first and after the last row are
    dark. `seconds` is the length of the song.
    """
    import matplotlib.image

    weights, starts = alignment.weights.astype(np.float32), alignment.starts
    weights = weights / np.maximum(weights.max(axis=1, keepdims=True), 1e-12)
    times = (np.arange(FRAMES) + 0.5) / FRAMES * seconds
    row = np.searchsorted(starts, times, side="right") - 1
    last = starts[-1] + (np.median(np.diff(starts)) if len(starts) > 1 else seconds)
    image = np.where(((row >= 0) & (times < last))[None], weights[row].T, 0.0)
    with files.atomic_path(picture) as temporary:
        matplotlib.image.imsave(temporary, image, cmap="magma", vmin=0.0, vmax=1.0)


def draw(folder: Path, song: PlayerSong, alignment: Alignment | None = None) -> PlayerSong:
    """The song with its sounds described; draws its pictures in `folder`.

    Raises:
      ConfigError: a sound cannot be read.
    """
    pairs = [(folder / track.wav, folder / track.picture) for track in song.tracks if track.wav]
    sounds = iter(draw_sounds(pairs))
    tracks = [replace(track, sound=next(sounds)) if track.wav else track for track in song.tracks]
    song = replace(song, tracks=tracks)
    if alignment and song.attention and song.seconds:
        draw_attention(alignment, song.seconds, folder / song.attention)
        return replace(song, head=alignment.head)
    return replace(song, attention="")


# --- lyrics ---------------------------------------------------------------------------------------


def find_words(lyrics: str, words: Sequence[Sequence[Any]]) -> tuple[str, list[Timed]]:
    """Finds sung words `[text, start_s, end_s]` in the lyrics; returns lyrics and timed words.

    A word that is not near the one before is left out; if none is in the lyrics, the words
    themselves become the lyrics.
    """
    timed: list[Timed] = []
    cursor = 0
    for text, start, end in words:
        match = re.compile(re.escape(text), re.IGNORECASE).search(lyrics, cursor, cursor + NEAR)
        if text and match:
            cursor = match.end()
            timed.append((text, start, end, match.start(), cursor))
    if not timed:
        for text, start, end in words:
            timed.append((text, start, end, cursor, cursor + len(text)))
            cursor += len(text) + 1
        lyrics = " ".join(word[0] for word in words) or lyrics
    return lyrics, timed


def cut_lyrics(lyrics: str, words: Sequence[Timed] = (), rows: int = 1) -> list[Piece]:
    """The lyrics in pieces, with times for timed words, which must be in the lyrics' order.

    `rows` is the number of characters that the attention shows.
    """
    pieces: list[Piece] = []
    cursor = 0
    for _, start, end, first, last in words:
        if not cursor <= first < last <= len(lyrics):
            continue
        pieces.append(Piece(printable(lyrics[cursor:first])))
        row = (first + last) / 2 / rows
        word = printable(lyrics[first:last])
        pieces.append(Piece(word, start, max(end, start + SHORTEST), row))
        cursor = last
    pieces.append(Piece(printable(lyrics[cursor:])))
    blank = not "".join(piece.text for piece in pieces).strip()
    return [] if blank else [piece for piece in pieces if piece.text]


def read_alignment(folder: Path, item: int) -> Alignment | None:
    """The alignment of an item in its level's folder, or None.

    Raises:
      ConfigError: the files are damaged or do not fit each other.
    """
    arrays, words = folder / f"item_{item}.alignment.npz", folder / f"item_{item}.words.json"
    if not arrays.exists():
        return None
    try:
        with np.load(arrays) as data:
            weights, starts = data["weights"], data["seconds"]
            names = [f"{name} {int(data[name])}" for name in ("layer", "head") if name in data]
        if weights.ndim != 2 or starts.shape != weights.shape[:1] or not weights.size:
            raise ValueError(f"weights {weights.shape} for times {starts.shape}")
        listed = json.loads(words.read_text("utf-8")) if words.exists() else []
        timed = [(str(t), float(s), float(e), int(a), int(b)) for t, s, e, a, b in listed]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{arrays} and {words.name} are not a valid alignment ({error}); remove both, or align "
            "again."
        ) from error
    return Alignment(weights, starts, timed, ", ".join(names))
