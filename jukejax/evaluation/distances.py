"""Mel and STFT distances, as defined by descript-audio-codec, and the log-spectral distance.

All compare magnitudes |S| of short-time spectra (periodic Hann window, hop a quarter of it, frames
centred on reflected ends). Mel and STFT distances, with windows of 2048 and 512 samples:

    sum over windows of mean |2 log10 max(|S|, 1e-5) - 2 log10 max(|S'|, 1e-5)| + mean ||S| - |S'||

The STFT distance compares the spectra themselves, the mel distance 150 and 80 mel bands (Slaney's,
of equal area, up to half the rate) of the magnitudes. Lower is better. Kumar et al. 2023, "High-
fidelity audio compression with improved RVQGAN"; defaults of its `MultiScaleSTFTLoss` and
`MelSpectrogramLoss`.

The log-spectral distance (Gray & Markel 1976) is the root mean square over bins of the difference
of 20 log10 max(|S|, 1e-5), mean over frames of 2048 samples, in dB. S samples, mono.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jukejax.models.spectral import mel_filters

WINDOWS, BANDS = (2048, 512), (150, 80)
_EPS, _FRAMES = 1e-5, 1024


def _magnitudes(sound: NDArray[Any], size: int) -> Iterator[NDArray[Any]]:
    """|S| of consecutive frames, (frames, size // 2 + 1) each time."""
    padded = np.pad(sound, size // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 4]
    window = np.hanning(size + 1)[:-1].astype(sound.dtype)
    for i in range(0, len(frames), _FRAMES):
        yield np.abs(np.fft.rfft(frames[i : i + _FRAMES] * window))


def _gap(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Sums over frames and bins of both terms, and their number."""
    logs = 2 * np.abs(_logs(a) - _logs(b))
    return np.array([logs.sum(dtype=np.float64), np.abs(a - b).sum(dtype=np.float64), a.size])


def _logs(magnitudes: NDArray[Any]) -> NDArray[Any]:
    return np.log10(np.maximum(magnitudes, _EPS))


def distances(sound: NDArray[Any], rebuilt: NDArray[Any], rate: int) -> dict[str, float]:
    """ "mel", "stft" and "log_spectral_db" of two sounds (S,) of the same length, S over 1024."""
    total = {"mel": 0.0, "stft": 0.0}
    frames: list[NDArray[Any]] = []
    for size, bands in zip(WINDOWS, BANDS, strict=True):
        filters = mel_filters(rate, size, bands).T.astype(sound.dtype)
        sums = {"mel": np.zeros(3), "stft": np.zeros(3)}
        pairs = zip(_magnitudes(sound, size), _magnitudes(rebuilt, size), strict=True)
        for a, b in pairs:
            sums["stft"] += _gap(a, b)
            sums["mel"] += _gap(a @ filters, b @ filters)
            if size == WINDOWS[0]:
                frames.append(20 * np.sqrt(np.mean((_logs(a) - _logs(b)) ** 2, axis=1)))
        for name, (logs, plain, count) in sums.items():
            total[name] += float((logs + plain) / count)
    return {**total, "log_spectral_db": float(np.mean(np.concatenate(frames), dtype=np.float64))}
