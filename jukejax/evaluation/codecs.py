"""Opus and MP3 near a given bitrate, as libsndfile writes them.

libsndfile takes a compression level, not a bitrate, so all settings are tried on a sound and the
nearest is used; reported bitrates are those of the files. S samples, mono.
"""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_BLOCK = 65_536  # frames per write; libsndfile overflows its stack on very long ones
_LAG = 0.1  # largest delay, in seconds


class Setting(NamedTuple):
    codec: str  # "Opus" or "MP3"
    rate: int  # Hz of what the codec encodes
    level: float  # libsndfile's compression level, 0 .. 1


_LEVELS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98,
           0.99)  # fmt: skip
SETTINGS = {
    "Opus": [Setting("Opus", 48_000, level) for level in _LEVELS],
    "MP3": [Setting("MP3", rate, level) for rate in (44_100, 22_050, 11_025) for level in _LEVELS],
}
_FORMATS: dict[str, dict[str, Any]] = {
    "Opus": {"format": "OGG", "subtype": "OPUS"},
    "MP3": {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT"},
}


def encode(setting: Setting, sound: NDArray[np.float32]) -> bytes:
    """The file of a sound (S,) at the setting's rate."""
    import soundfile

    out = io.BytesIO()
    options = _FORMATS[setting.codec] | {"compression_level": setting.level}
    with soundfile.SoundFile(out, "w", setting.rate, 1, **options) as file:
        for i in range(0, len(sound), _BLOCK):
            file.write(sound[i : i + _BLOCK])
    return out.getvalue()


def delay(sound: NDArray[Any], other: NDArray[Any], most: int) -> int:
    """Delay of `other` in samples, in -most..most: where the correlation is highest."""
    size = 2 ** int(np.ceil(np.log2(len(sound) + len(other))))
    spectrum = np.fft.rfft(other, size) * np.conj(np.fft.rfft(sound, size))
    product = np.fft.irfft(spectrum, size)
    around = np.concatenate([product[-most:], product[: most + 1]])
    return int(np.argmax(around)) - most


def round_trip(
    setting: Setting, sound: NDArray[np.float32], rate: int
) -> tuple[NDArray[np.float32], int]:
    """A sound (S,) decoded from the codec's file, its delay removed, and the file's bytes."""
    import soundfile
    import soxr

    given = soxr.resample(sound, rate, setting.rate)
    data = encode(setting, given)
    back, back_rate = soundfile.read(io.BytesIO(data), dtype="float32")
    back = soxr.resample(back, back_rate, setting.rate)
    late = delay(given, back, round(_LAG * setting.rate))
    back = np.roll(np.pad(back, (0, round(_LAG * setting.rate))), -late)
    back = soxr.resample(back, setting.rate, rate)[: len(sound)]
    return np.pad(back, (0, len(sound) - len(back))), len(data)


def nearest(codec: str, kbps: float, sound: NDArray[np.float32], rate: int) -> Setting:
    """The setting whose file of this sound (5 s of it) is nearest to a bitrate, by ratio.

    Of settings about equally near, the one with the highest sample rate.
    """
    import soxr

    sound = sound[: 5 * rate]
    rates = {setting.rate for setting in SETTINGS[codec]}
    given = {r: soxr.resample(sound, rate, r) for r in rates}

    def off(setting: Setting) -> tuple[float, int]:
        bits = 8 * len(encode(setting, given[setting.rate]))
        ratio = abs(float(np.log(bits / (1000 * kbps * len(sound) / rate))))
        return round(ratio, 1), -setting.rate

    return min(SETTINGS[codec], key=off)
