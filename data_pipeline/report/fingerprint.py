"""An audio fingerprint that survives lossy coding, shifts and cuts, to detect duplicate songs.

A bit says whether the energy difference between neighbouring bands grows with time (Haitsma and
Kalker, "A Highly Robust Audio Fingerprinting System", ISMIR 2002): 32 bits from 33 bands between
300 and 2000 Hz, every 23 ms. Of a song's distinct values only those with a small hash are kept (one
of 8, and the `KEPT` smallest of these). Two versions of a recording so keep the same values, and
songs are compared by looking values up, not song by song.

Another recording of the same work, or another key or speed, is another song.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

RATE = 11_025  # Hz, about: songs are decimated by the mean of neighbouring samples
FRAME, HOP, LAG = 4096, 256, 8  # samples a frame and a hop; frames between two compared ones
KEPT = 256  # values of a song, at most
_ONE_OF = 8
_LOW, _HIGH, _BANDS = 300.0, 2000.0, 33
_SILENT = 1e-3  # RMS of a frame (-60 dBFS); below, noise would decide the bits
_BLOCK = 512  # frames transformed at once

Prints = npt.NDArray[Any]  # rows of (value, frame), int64


def fingerprint(blocks: Iterable[npt.NDArray[np.float32]], sample_rate: int) -> Prints:
    """Rows (value, frame) int64 of a song, given as mono blocks (n,) in [-1, 1].

    `frame` is in hops of `HOP` samples at about `RATE` Hz. A silent song, or one of less than half
    a second, has no rows.
    """
    factor = max(1, round(sample_rate / RATE))
    bands = _bands(sample_rate / factor)
    energies, loud = [], []
    for frames in _frames(_decimated(blocks, factor)):
        spectrum = np.fft.rfft(frames * _WINDOW, axis=1)
        power = spectrum.real**2 + spectrum.imag**2
        energies.append(np.add.reduceat(power, bands[:-1], axis=1)[:, :_BANDS])
        loud.append(np.sqrt(np.mean(frames**2, axis=1)) > _SILENT)
    if not energies:
        return np.zeros((0, 2), np.int64)
    energy, heard = np.concatenate(energies), np.concatenate(loud)
    if len(energy) <= LAG:
        return np.zeros((0, 2), np.int64)
    steps = np.diff(energy, axis=1)  # (frames, 32)
    bits = steps[LAG:] > steps[:-LAG]
    values = bits @ (1 << np.arange(_BANDS - 1, dtype=np.int64))
    return _kept(values, heard[LAG:] & heard[:-LAG])


def _kept(values: npt.NDArray[np.int64], heard: npt.NDArray[np.bool_]) -> Prints:
    frames = np.flatnonzero(heard)
    distinct, first = np.unique(values[frames], return_index=True)
    hashes = _mixed(distinct)
    small = np.flatnonzero(hashes < 2**32 // _ONE_OF)
    small = small[np.argsort(hashes[small], kind="stable")][:KEPT]
    return np.stack([distinct[small], frames[first[small]]], axis=1).astype(np.int64)


def _mixed(values: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """A hash of 32-bit values: the finaliser of MurmurHash3 (public domain)."""
    x = values.astype(np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return x ^ (x >> np.uint32(16))


_WINDOW = np.hanning(FRAME).astype(np.float32)


def _bands(rate: float) -> npt.NDArray[np.int64]:
    """Spectrum bins at which the bands begin, and at which the last one ends: (34,)."""
    edges = np.geomspace(_LOW, _HIGH, _BANDS + 1)
    bins: npt.NDArray[np.int64] = np.round(edges / rate * FRAME).astype(np.int64)
    return bins


def _decimated(
    blocks: Iterable[npt.NDArray[np.float32]], factor: int
) -> Iterable[npt.NDArray[np.float32]]:
    rest = np.zeros(0, np.float32)
    for block in blocks:
        joined = np.concatenate([rest, block])
        end = len(joined) // factor * factor
        yield joined[:end].reshape(-1, factor).mean(1)
        rest = joined[end:]


def _frames(blocks: Iterable[npt.NDArray[np.float32]]) -> Iterable[npt.NDArray[np.float32]]:
    """Overlapping frames (n, FRAME), up to `_BLOCK` at once; an incomplete last one is left out."""
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) >= FRAME:
            count = min(_BLOCK, (len(rest) - FRAME) // HOP + 1)
            view = np.lib.stride_tricks.sliding_window_view(rest, FRAME)[::HOP][:count]
            yield view
            rest = rest[count * HOP :]
