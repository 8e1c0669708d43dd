"""Measures one prepared song: loudness, silence, clipping, digest and fingerprint."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.audio import Pcm
from data_pipeline.records import read_audio
from data_pipeline.report.fingerprint import fingerprint
from data_pipeline.songs import PreparedSong
from jukejax.errors import DataError

VERSION = 1  # of the figures; a new version measures songs again
_BLOCK_SECONDS = 30
_FRAME_SECONDS = 0.05
SILENT_DB = -60.0  # dBFS; a frame with a lower peak counts as silence
_LOUDNESS_SECONDS = 1200  # loudness is measured on the first 20 minutes
_FULL = 32_767
_RUN = 3  # samples in a row at full scale that count as clipped


def measure(data_dir: Path, song: PreparedSong) -> dict[str, Any]:
    """Figures of a song of a prepared data set; memory does not grow with its length.

    loudness: integrated, in LUFS (ITU-R BS.1770-4), None if it is silent or under 0.4 s; peak_db:
    in dBFS, None for digital silence; silence, clipped: shares of time and of samples; digest: of
    the PCM; prints: `fingerprint` as a list.

    Raises:
      DataError: pyloudnorm is not installed, or the data set is damaged.
    """
    digest = hashlib.sha256()
    peak = silent = frames = clipped = 0
    frame = max(1, round(_FRAME_SECONDS * song.sample_rate))

    def mono() -> Iterator[np.ndarray]:
        nonlocal peak, silent, frames, clipped
        for pcm in _blocks(data_dir, song):
            digest.update(pcm.tobytes())
            loud = np.abs(pcm.astype(np.int32)).max(1)  # (n,)
            peak = max(peak, int(loud.max()))
            peaks = np.maximum.reduceat(loud, np.arange(0, len(loud), frame))
            silent += int((peaks < 32_768 * 10 ** (SILENT_DB / 20)).sum())
            frames += len(peaks)
            clipped += _clipped(pcm)
            yield pcm.mean(1, dtype=np.float32) / 32768.0

    prints = fingerprint(mono(), song.sample_rate)
    return {
        "loudness": _loudness(data_dir, song),
        "peak_db": round(20 * float(np.log10(peak / 32_768)), 2) if peak else None,
        "silence": silent / frames,
        "clipped": clipped / (2 * song.n_samples),
        "digest": digest.hexdigest(),
        "prints": prints.tolist(),
    }


def _blocks(data_dir: Path, song: PreparedSong) -> Iterator[Pcm]:
    step = _BLOCK_SECONDS * song.sample_rate
    for start in range(0, song.n_samples, step):
        yield read_audio(data_dir, song, start, min(start + step, song.n_samples))


def _clipped(pcm: Pcm) -> int:
    """Samples of a block in runs of at least `_RUN` at full scale."""
    full = (pcm >= _FULL) | (pcm <= -_FULL)
    if len(full) < _RUN or not full.any():
        return 0
    windows = np.lib.stride_tricks.sliding_window_view(full, _RUN, axis=0)
    starts = np.asarray(windows.all(2))  # of runs
    runs = np.zeros_like(full)
    for i in range(_RUN):
        runs[i : len(starts) + i] |= starts
    return int(runs.sum())


def _loudness(data_dir: Path, song: PreparedSong) -> float | None:
    try:
        import pyloudnorm
    except ImportError as error:
        raise DataError(
            "the report measures loudness with pyloudnorm, which is not installed; "
            "`pip install -e '.[report]'`"
        ) from error
    if song.n_samples < 0.4 * song.sample_rate:
        return None
    stop = min(song.n_samples, _LOUDNESS_SECONDS * song.sample_rate)
    audio = read_audio(data_dir, song, 0, stop) / 32768.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the logarithm of silence
        loudness = float(pyloudnorm.Meter(song.sample_rate).integrated_loudness(audio))
    return round(loudness, 2) if np.isfinite(loudness) else None
