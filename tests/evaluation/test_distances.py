"""DAC's distances recomputed in float64, and codecs at a bitrate without their delay."""

import numpy as np
import pytest
import scipy.signal

from jukejax.evaluation import codecs
from jukejax.evaluation.distances import distances

RATE = 44_100


def sound(seed=0, seconds=1.5):
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    tone = 0.3 * np.sin(2 * np.pi * (500 + 300 * t) * t) * (1 + np.sin(9 * t))
    return (tone + 0.02 * rng.normal(size=len(t))).astype(np.float32)


def wanted(x, y):
    import librosa

    total = {"mel": 0.0, "stft": 0.0}
    for size, bands in ((2048, 150), (512, 80)):
        spectra = []
        for signal in (x, y):
            padded = np.pad(signal.astype(np.float64), size // 2, mode="reflect")
            _, _, z = scipy.signal.stft(
                padded, nperseg=size, noverlap=size - size // 4, boundary=None, padded=False
            )
            spectra.append(np.abs(z) * scipy.signal.get_window("hann", size).sum())
        mel = librosa.filters.mel(sr=RATE, n_fft=size, n_mels=bands, dtype=np.float64)
        for name, (a, b) in (("stft", spectra), ("mel", [mel @ s for s in spectra])):
            logs = [np.log10(np.maximum(m, 1e-5) ** 2) for m in (a, b)]
            total[name] += np.abs(logs[0] - logs[1]).mean() + np.abs(a - b).mean()
    return total


def test_distances_are_dacs_definitions_in_float64():
    x, y = sound(), 0.8 * sound(seed=1)
    found, truth = distances(x, y, RATE), wanted(x, y)
    for name in ("mel", "stft"):
        assert found[name] == pytest.approx(truth[name], rel=1e-5)
    assert distances(x, x, RATE) == {"mel": 0.0, "stft": 0.0, "log_spectral_db": 0.0}


def test_log_spectral_distance_of_another_loudness_is_that_in_decibels():
    x = sound()
    assert distances(x, 0.5 * x, RATE)["log_spectral_db"] == pytest.approx(6.0206, abs=1e-3)
    a, b = x, 0.8 * sound(seed=1)
    decibels = []
    for signal in (a, b):
        padded = np.pad(signal.astype(np.float64), 1024, mode="reflect")
        _, _, z = scipy.signal.stft(
            padded, nperseg=2048, noverlap=1536, boundary=None, padded=False
        )
        power = np.abs(z * scipy.signal.get_window("hann", 2048).sum())
        decibels.append(20 * np.log10(np.maximum(power, 1e-5)))
    wanted = np.sqrt(np.mean((decibels[0] - decibels[1]) ** 2, axis=0)).mean()
    assert distances(a, b, RATE)["log_spectral_db"] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(("codec", "kbps"), [("Opus", 48), ("MP3", 16)])
def test_a_codec_gives_the_sound_back_in_time_at_its_bitrate(codec, kbps):
    x = sound(seconds=2)
    setting = codecs.nearest(codec, kbps, x, RATE)
    y, size = codecs.round_trip(setting, x, RATE)
    assert len(y) == len(x)
    assert codecs.delay(x, y, 2000) == 0
    assert 0.7 < 8 * size / 2 / 1000 / kbps < 1.4
    assert np.corrcoef(x, y)[0, 1] > 0.9


def test_delay_is_found_both_ways():
    x = sound(seconds=0.5)
    for late in (0, 17, -300):
        assert codecs.delay(x, np.roll(x, late), 1000) == late
