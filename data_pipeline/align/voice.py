"""The singing voice of a song as 16 kHz mono: a stem, the mix, its centre, or by a separator."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_pipeline.align import external
from data_pipeline.audio import decode
from data_pipeline.manifest import Song
from jukejax.errors import DataError

RATE = 16_000  # Hz, of the aligner's acoustic model
SEPARATORS = ("stem", "none", "centre", *external.SEPARATORS)
_STEM = "vocals"
_FRAME, _HOP = 1024, 256

Sound = npt.NDArray[np.float32]


def read_stereo(path: Path) -> Sound:
    """A sound file as (N, 2) float32 at RATE; DataError as of `audio.decode`."""
    return np.concatenate(list(decode(path, 0.1, RATE))) * np.float32(2**-15)


def centre(sound: Sound) -> Sound:
    """(N, 2) -> (N,): the sound in the middle, by a mask on the short-time spectrum.

    The mask is 1 - |L - R|^2 / (|L|^2 + |R|^2), from 0 (on one side only) to 1 (in the middle).
    """
    window = np.sqrt(np.hanning(_FRAME + 1)[:-1]).astype(np.float32)
    padded = np.pad(sound, ((_FRAME, 2 * _FRAME), (0, 0)))
    out = np.zeros(len(padded), np.float32)
    weight = np.zeros(len(padded), np.float32)
    for start in range(0, len(padded) - _FRAME + 1, _HOP):
        left, right = np.fft.rfft(padded[start : start + _FRAME] * window[:, None], axis=0).T
        power = np.abs(left) ** 2 + np.abs(right) ** 2
        mask = np.clip(1 - np.abs(left - right) ** 2 / (power + 1e-12), 0, 1)
        out[start : start + _FRAME] += np.fft.irfft(mask * (left + right) / 2, _FRAME) * window
        weight[start : start + _FRAME] += window**2
    middle = (out / np.maximum(weight, 1e-6)).astype(np.float32)
    return middle[_FRAME : _FRAME + len(sound)]


def voice(song: Song, separator: str, command: str = "") -> tuple[Sound, str]:
    """The voice (N,) at RATE and its source: "stem", "mix", "centre" or the separator.

    Raises:
      DataError: the sound cannot be read, or the separator is missing or fails.
    """
    stems = dict(song.stems)
    if separator == "stem" and _STEM in stems:
        return read_stereo(stems[_STEM]).mean(1), "stem"
    if separator in ("stem", "none"):
        return read_stereo(song.audio).mean(1), "mix"
    if separator == "centre":
        return centre(read_stereo(song.audio)), "centre"
    if separator not in external.SEPARATORS:
        raise DataError(f"the separator {separator!r} is unknown; choose from {SEPARATORS}")
    with tempfile.TemporaryDirectory() as folder:
        path = external.separate(separator, song.audio, Path(folder), command)
        return read_stereo(path).mean(1), separator
