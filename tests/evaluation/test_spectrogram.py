"""Spectrograms: right place, right level, right time, and no surprise at the edges."""

import numpy as np
import pytest

from jukejax.evaluation.pages import spectrogram
from jukejax.evaluation.pages.spectrogram import (
    FLOOR_DB,
    frequencies,
    log_spectrogram,
    loudest,
    to_image,
)

RATE = 44_100


def tone(hz: float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate).astype(np.float32)


@pytest.mark.parametrize("hz", [45, 110, 320, 440, 1000, 2000, 5000, 15_000])
def test_a_tone_is_in_its_row_at_its_level(hz: float) -> None:
    spec = log_spectrogram(tone(hz), RATE, frames=64)
    assert spec.shape == (256, 64)
    assert spec.dtype == np.float32
    middle = spec[:, 32]
    found = frequencies(256)[middle.argmax()]
    assert abs(np.log2(found / hz)) < 0.08  # an FFT bin at 45 Hz
    assert -4 < middle.max() < 2.5
    far = np.abs(np.log2(frequencies(256) / hz)) > 1
    assert middle[far].max() < -25


def test_level_follows_amplitude() -> None:
    loud = log_spectrogram(tone(1000), RATE, frames=16)[:, 8].max()
    soft = log_spectrogram(0.01 * tone(1000), RATE, frames=16)[:, 8].max()
    assert abs(loud - soft - 40) < 0.1


@pytest.mark.parametrize("seconds", [1.0, 4.0, 40.0])
def test_time_is_divided_evenly(seconds: float) -> None:
    audio = np.zeros(int(seconds * RATE), np.float32)
    audio[int(len(audio) * 0.75)] = 1.0
    high = log_spectrogram(audio, RATE, frames=100)[200:].mean(axis=0)
    assert abs(int(high.argmax()) - 75) <= 1


def test_no_click_is_lost_in_a_long_sound() -> None:
    for sample in np.linspace(10 * RATE, 11 * RATE, 9).astype(int):
        audio = np.zeros(20 * RATE, np.float32)
        audio[sample] = 1.0
        spec = log_spectrogram(audio, RATE, frames=20)
        assert spec[200:].max() > FLOOR_DB + 30


@pytest.mark.parametrize("samples", [0, 1, 7, 500])
def test_short_silent_and_broken_audio(samples: int) -> None:
    rng = np.random.default_rng(0)
    for audio in (np.zeros(samples), rng.normal(size=samples), np.full(samples, np.nan)):
        spec = log_spectrogram(audio, RATE, frames=10, bins=32)
        assert spec.shape == (32, 10)
        assert np.isfinite(spec).all()
        assert spec.min() >= FLOOR_DB
        image = to_image(spec)
        assert image.shape == (32, 10, 3)
        assert image.dtype == np.uint8
    assert to_image(log_spectrogram(np.zeros(samples), RATE)).max() < 10


def test_other_rates_and_integers() -> None:
    spec = log_spectrogram(tone(1000, rate=16_000), 16_000, frames=16)
    assert abs(frequencies(256)[spec[:, 8].argmax()] - 1000) < 40
    assert spec[-10:].max() == FLOOR_DB  # nothing above half the rate
    whole = (tone(1000) * 32767).astype(np.int16)
    np.testing.assert_allclose(
        log_spectrogram(whole, RATE, frames=8).max(),
        log_spectrogram(tone(1000), RATE, frames=8).max(),
        atol=0.1,
    )


def test_windows_share_every_row_fully() -> None:
    rows = frequencies(300)
    shares = sum(spectrogram._blend(rows, i) for i in range(3))
    np.testing.assert_allclose(shares, 1.0, atol=1e-5)


def test_image_has_low_frequencies_at_the_bottom_and_a_shared_range() -> None:
    spec = log_spectrogram(tone(80), RATE, frames=16)
    brightness = to_image(spec).sum(axis=(1, 2))
    assert brightness.argmax() > 200
    faint = to_image(spec - 40, top=loudest(spec)).sum()
    assert faint < to_image(spec - 40).sum()


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="average the channels"):
        log_spectrogram(np.zeros((100, 2)), RATE)
    with pytest.raises(ValueError, match="frames=0"):
        log_spectrogram(np.zeros(100), RATE, frames=0)
