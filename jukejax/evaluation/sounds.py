"""Measures of sounds without a network: loudness, repetition, window joins, log-spectral distance.

S samples, mono, floats in [-1, 1]; N bands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jukejax.models.spectral import mel_filters

Sound = NDArray[np.float32]

SILENT_DB, CLIPPED = -60.0, 0.999  # RMS of 0.1 s re full scale; magnitude of a sample
QUIETEST = -70.0  # LUFS: BS.1770 gates out what is quieter
SCALES = (512, 2048, 8192)  # FFT sizes of the log-spectral distance, at 44.1 kHz
_BANDS, _LOW_DB, _HIGH_DB = 32, -120, 40  # levels are kept in bins of 1 dB


def levels(sound: Sound, rate: int) -> dict[str, float]:
    """Loudness in LUFS (ITU-R BS.1770-4, by pyloudnorm), parts silent and clipped, 0 .. 1."""
    import pyloudnorm

    block = rate // 10
    blocks = sound[: len(sound) // block * block].reshape(-1, block)
    rms = 10 * np.log10(np.mean(np.square(blocks, dtype=np.float64), axis=1) + 1e-20)
    loudness = QUIETEST
    if len(sound) > 0.4 * rate and np.any(sound):
        loudness = float(pyloudnorm.Meter(rate).integrated_loudness(sound.astype(np.float64)))
    return {
        "loudness_lufs": max(QUIETEST, loudness),
        "silent": float(np.mean(rms < SILENT_DB)),
        "clipped": float(np.mean(np.abs(sound) >= CLIPPED)),
    }


def spectra(sound: Sound, rate: int, size: int, hop: int) -> NDArray[np.float64]:
    """Levels in dB (frames, N) of mel bands up to half the rate; a full-scale sine is about 0."""
    if len(sound) < size:
        return np.zeros((0, _BANDS))
    window = np.hanning(size + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop]
    filters = mel_filters(rate, size, _BANDS)
    shares = (filters / np.maximum(filters.sum(axis=1, keepdims=True), 1e-12)).T
    out = []
    for i in range(0, len(frames), 512):
        power = np.abs(np.fft.rfft(frames[i : i + 512] * window)) ** 2 * (2 / window.sum()) ** 2
        out.append(10 * np.log10(power @ shares + 1e-12))
    return np.concatenate(out)


def repetition(sound: Sound, rate: int) -> float:
    """Self-similarity of a sound at the lag where it is greatest; 1 is an exact loop.

    The mean cosine between spectra (ten a second, minus their mean) a lag apart, greatest over lags
    from 1 s to half the sound.
    """
    size = 2 * (rate // 10)
    x = spectra(sound, rate, size, size // 2)
    x = x - x.mean(axis=0) if len(x) else x
    x /= np.linalg.norm(x, axis=1, keepdims=True) + 1e-9
    lags = range(10, len(x) // 2 + 1)
    return max((float(np.mean(np.sum(x[lag:] * x[:-lag], axis=1))) for lag in lags), default=0.0)


def joins(sound: Sound, rate: int, borders: Sequence[float]) -> dict[str, float]:
    """The ranks of the changes at window borders (s) among all changes of a sound.

    At each border and every 20 ms elsewhere, the 46 ms after are compared with the 46 ms before:
    "flux" is the mean absolute difference of band levels in dB, "jump" that of loudness. A rank is
    the part of other places where the change is smaller, mean over borders: 0.5 where borders are
    like other places, 1 where every border stands out. {} without borders.
    """
    half, step = round(0.046 * rate), round(0.02 * rate)

    def changes(at: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        before = np.stack([spectra(sound[t - half : t], rate, half, half)[0] for t in at])
        after = np.stack([spectra(sound[t : t + half], rate, half, half)[0] for t in at])
        power = [np.log10(np.mean(10 ** (x / 10), axis=1)) * 10 for x in (before, after)]
        return np.mean(np.abs(after - before), axis=1), np.abs(power[1] - power[0])

    inside = [round(b * rate) for b in borders if half <= round(b * rate) <= len(sound) - half]
    grid = np.arange(half, len(sound) - half, step)
    others = [t for t in grid if all(abs(t - b) > 2 * half for b in inside)]
    if not inside or not others:
        return {}
    there, elsewhere = changes(np.array(inside)), changes(np.array(others))
    ranks = [np.mean(y[None] < x[:, None]) for x, y in zip(there, elsewhere, strict=True)]
    return {"flux_rank": float(ranks[0]), "jump_rank": float(ranks[1])}


class LevelCounts:
    """Histograms of levels in dB for each band at each scale, over any number of sounds."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.counts = np.zeros((len(SCALES), _BANDS, _HIGH_DB - _LOW_DB), np.int64)

    def add(self, sounds: Iterable[Sound]) -> LevelCounts:
        for sound in sounds:
            for scale, size in enumerate(SCALES):
                decibels = spectra(sound, self.rate, size, size // 2)
                bins = np.clip(np.floor(decibels) - _LOW_DB, 0, _HIGH_DB - _LOW_DB - 1).astype(int)
                for band in range(_BANDS):
                    self.counts[scale, band] += np.bincount(
                        bins[:, band], minlength=_HIGH_DB - _LOW_DB
                    )
        return self

    def distance(self, other: LevelCounts) -> float:
        """Log-spectral distance of two sets of sounds in dB.

        The Wasserstein-1 distance of the levels' distributions (how many dB the levels of one set
        move, on average, to be distributed as the other's); mean over bands and scales.
        """
        shares = [x.counts / np.maximum(x.counts.sum(-1, keepdims=True), 1) for x in (self, other)]
        gap = np.cumsum(shares[0] - shares[1], axis=-1)
        return float(np.abs(gap).sum(axis=-1).mean())
