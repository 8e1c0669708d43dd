"""Pictures of sound: a log-frequency spectrogram in decibels and its colours.

Rows are spaced evenly in log frequency, as pitch is heard. No single FFT suits nine octaves, so
three window lengths are blended: long ones for low frequencies, short ones for high. Columns divide
the sound evenly: column c of F covers the time from c/F to (c+1)/F of its length, so a playhead
over the picture is exact. S samples, F frames, N bins.
"""

import functools

import numpy as np
from numpy.typing import NDArray

LOW_HZ = 40.0
HIGH_HZ = 20_000.0
FLOOR_DB = -120.0
SPAN_DB = 70.0  # between the brightest and the darkest colour
CHUNK = 128  # frames transformed at once; they fit into the processor's cache

# Window lengths in seconds, and the frequencies in Hz between them.
_WINDOWS = (0.186, 0.093, 0.046)
_CROSSINGS = (320.0, 2000.0)

Floats = NDArray[np.float32]


def frequencies(bins: int) -> Floats:
    """Centre frequencies in Hz of the rows of a spectrogram, low to high: (N,)."""
    return np.geomspace(LOW_HZ, HIGH_HZ, bins).astype(np.float32)


def _blend(centres: Floats, index: int) -> Floats:
    """The share (N,) of window `index` in every row; shares sum to 1 and fade over an octave."""

    def above(hz: float) -> Floats:
        return np.clip(np.log2(centres / hz) + 0.5, 0.0, 1.0)

    share = np.ones_like(centres)
    if index > 0:
        share = above(_CROSSINGS[index - 1])
    if index < len(_CROSSINGS):
        share = share - above(_CROSSINGS[index])
    return np.maximum(share, 0.0)


@functools.lru_cache(maxsize=16)
def _filters(size: int, index: int, sample_rate: int, bins: int) -> tuple[slice, slice, Floats]:
    """Triangular filters from FFT power to rows, cut to where they are not zero.

    Returns the rows and FFT bins with weights, and the weights (FFT bins, rows). A triangle reaches
    to its neighbours, and is never narrower than an FFT bin: there it interpolates.
    """
    centres = frequencies(bins)
    step = sample_rate / size
    ratio = (HIGH_HZ / LOW_HZ) ** (1.0 / max(bins - 1, 1))
    hertz = np.arange(size // 2 + 1) * step
    below = np.maximum(centres - centres / ratio, step)[:, None]
    above = np.maximum(centres * ratio - centres, step)[:, None]
    offset = hertz[None, :] - centres[:, None]  # (N, FFT bins)
    weights = np.maximum(1.0 - np.abs(offset) / np.where(offset < 0, below, above), 0.0)
    weights = weights * _blend(centres, index)[:, None]
    rows, columns = np.nonzero(weights.any(axis=1))[0], np.nonzero(weights.any(axis=0))[0]
    if not len(rows):
        return slice(0, 0), slice(0, 0), np.zeros((0, 0), np.float32)
    row, column = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return row, column, np.ascontiguousarray(weights[row, column].T, dtype=np.float32)


def _frame_power(audio: Floats, size: int, centres: NDArray[np.int64], band: slice) -> Floats:
    """Power of Hann windows around sample positions, (frames, FFT bins in band).

    `audio` has `size` zeros on either side. A sine of amplitude 1 has a total power of about 1.
    """
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    window *= np.float32(np.sqrt(4.0 / (size * np.sum(window.astype(np.float64) ** 2))))
    frames = np.lib.stride_tricks.sliding_window_view(audio, size)[centres + size // 2]
    spectrum = np.fft.rfft(frames * window, axis=-1)[:, band]
    return (spectrum.real**2 + spectrum.imag**2).astype(np.float32)


def _mono(audio: NDArray[np.generic]) -> Floats:
    """Checks and converts a sound to float32 (S,); NaN and infinity become silence."""
    audio = np.asarray(audio)
    if audio.ndim != 1:
        raise ValueError(
            f"A spectrogram needs mono audio of shape (samples,), but got {audio.shape}; "
            "average the channels first."
        )
    if np.issubdtype(audio.dtype, np.integer):
        return audio.astype(np.float32) / np.float32(2 ** (8 * audio.dtype.itemsize - 1))
    sound = audio.astype(np.float32)
    return np.nan_to_num(sound, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def log_spectrogram(
    audio: NDArray[np.generic],
    sample_rate: int,
    *,
    frames: int = 1024,
    bins: int = 256,
) -> Floats:
    """The level in dB of `bins` bands of a sound over `frames` equal parts of its length.

    Args:
        audio: Mono sound (S,), floats in -1..1 or signed integers; any length, also 0.
        sample_rate: Samples per second. Bands above half of it stay at the floor.
        frames: Columns F; long sounds average all windows that fall into a column.
        bins: Rows N, spaced evenly in log frequency from LOW_HZ to HIGH_HZ, low first.

    Returns:
        float32 (N, F) in dB, never below FLOOR_DB: 0 dB is about a sine of amplitude 1, and pink
        noise is flat. Raises ValueError for audio that is not mono, or sizes out of range.
    """
    sound = _mono(audio)
    if min(frames, bins, sample_rate) < 1:
        raise ValueError(
            "A spectrogram needs frames, bins and sample_rate of at least 1, but got "
            f"frames={frames}, bins={bins}, sample_rate={sample_rate}."
        )
    power = np.zeros((frames, bins), np.float32)
    if len(sound):
        for index, seconds in enumerate(_WINDOWS):
            size = 2 * max(16, 2 ** round(np.log2(seconds * sample_rate)) // 2)
            rows, band, weights = _filters(size, index, sample_rate, bins)
            padded = np.pad(sound, size)
            repeats = int(np.ceil(2 * len(sound) / frames / size))  # windows in a column
            centres = (np.arange(frames * repeats) + 0.5) * (len(sound) / (frames * repeats))
            for start in range(0, frames, CHUNK):
                part = centres[start * repeats : (start + CHUNK) * repeats].astype(np.int64)
                levels = _frame_power(padded, size, part, band) @ weights
                power[start : start + CHUNK, rows] += levels.reshape(
                    -1, repeats, levels.shape[-1]
                ).mean(axis=1)
    decibels = 10.0 * np.log10(np.maximum(power, np.float32(1e-30)))
    return np.ascontiguousarray(np.maximum(decibels, np.float32(FLOOR_DB)).T)


def to_image(spec: Floats, *, top: float | None = None) -> NDArray[np.uint8]:
    """Colours of a spectrogram (N, F) in dB: uint8 (N, F, 3), low frequencies at the bottom.

    `top` (dB) gets the brightest colour and `top - SPAN_DB` the darkest. By default `top` is just
    below the loudest value, but at least -50 dB, so silence and faint noise stay dark; give
    several pictures the same `top` to compare them.
    """
    import matplotlib

    if top is None:
        top = loudest(spec)
    table = (matplotlib.colormaps["magma"](np.linspace(0, 1, 256))[:, :3] * 255).round()
    scaled = np.clip((np.asarray(spec) - (top - SPAN_DB)) / SPAN_DB, 0.0, 1.0)
    return table.astype(np.uint8)[(scaled[::-1] * 255).round().astype(np.uint8)]


def loudest(spec: Floats) -> float:
    """The level in dB that nearly all of a spectrogram stays below, at least -50."""
    return max(float(np.percentile(spec, 99.8)), -50.0) if spec.size else -50.0
