"""Short-time spectra against frames cut and windowed one by one in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import get_window

from jukejax.models import spectral

magnitudes = jax.jit(spectral.magnitudes, static_argnums=(1, 2, 3))
convergence = jax.jit(spectral.spectral_convergence)


def direct(x, n_fft, hop, window):
    """|STFT| of (B, S), frame by frame: the window stands in the middle of n_fft samples."""
    taps, half = np.zeros(n_fft), n_fft // 2
    left = (n_fft - window) // 2
    taps[left : left + window] = get_window("hann", window, fftbins=True)
    out = []
    for row in np.asarray(x, np.float64):
        padded = np.concatenate([row[half:0:-1], row, row[-2 : -half - 2 : -1]])
        starts = range(0, len(padded) - n_fft + 1, hop)
        frames = [np.fft.fft(padded[s : s + n_fft] * taps)[: half + 1] for s in starts]
        out.append(np.abs(frames))
    return np.array(out)


@pytest.fixture(scope="module")
def audio():
    t = np.arange(3001) / 44_100
    rng = np.random.default_rng(0)
    tones = [np.sin(2 * np.pi * f * t) for f in (220.0, 5000.0)]
    return np.stack([tones[0] + 0.3 * tones[1], 0.1 * rng.normal(size=t.size)]).astype(np.float32)


@pytest.mark.parametrize("resolution", [*spectral.RESOLUTIONS, spectral.PLAIN])
def test_magnitudes(audio, resolution):
    found = magnitudes(audio, *resolution)
    expected = direct(audio, *resolution)
    assert found.shape == expected.shape == (2, 1 + 3001 // resolution[1], resolution[0] // 2 + 1)
    np.testing.assert_allclose(found, expected, atol=2e-5 * expected.max())


@pytest.mark.parametrize("length", [1025, 1200, 2399, 2400])
def test_magnitudes_of_any_length(audio, length):
    x = audio[:, :length]
    expected = direct(x, 2048, 240, 1200)
    found = magnitudes(x, 2048, 240, 1200)
    np.testing.assert_allclose(found, expected, atol=2e-5 * expected.max())


def test_resolutions_are_the_published_ones():
    assert spectral.RESOLUTIONS == ((2048, 240, 1200), (1024, 120, 600), (512, 50, 240))
    assert spectral.PLAIN == (2048, 256, 1536)


@pytest.mark.parametrize("x", [0.0, 1e-30, 4.0])
def test_safe_sqrt_has_a_gradient_everywhere(x):
    value, gradient = jax.value_and_grad(spectral.safe_sqrt)(x)
    assert value == pytest.approx(np.sqrt(x))
    assert gradient == pytest.approx(0.5 / np.sqrt(x) if x else 0.0)


def test_frobenius():
    x = np.random.default_rng(1).normal(size=(3, 4, 5))
    expected = [np.linalg.norm(row) for row in x]
    np.testing.assert_allclose(spectral.frobenius(jnp.asarray(x)), expected, rtol=1e-5)


def test_spectral_convergence(audio):
    other = (0.5 * audio[::-1] + 0.1).astype(np.float32)
    target, wrong = direct(audio, *spectral.PLAIN), direct(other, *spectral.PLAIN)
    expected = [
        np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in zip(target, wrong, strict=True)
    ]
    found = convergence(audio, other)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_array_equal(convergence(0 * audio, other), [0, 0])


def test_gradients_at_silence_are_finite(audio):
    silence = jnp.zeros((1, 1200))

    def loss(y):
        errors = [
            spectral.frobenius(spectral.magnitudes(silence, *r) - spectral.magnitudes(y, *r))
            for r in (spectral.RESOLUTIONS[2], spectral.PLAIN)
        ]
        return jnp.sum(errors[0] + errors[1] + spectral.spectral_convergence(silence, y))

    gradient = jax.jit(jax.grad(loss))
    np.testing.assert_array_equal(gradient(silence), silence)
    assert np.isfinite(gradient(silence.at[0, 600].set(1e-3))).all()
    assert np.abs(gradient(audio[1:, :1200])).max() > 0


@pytest.mark.parametrize(("window", "hop", "bands"), [*spectral.MEL_RESOLUTIONS, (1024, 32, 80)])
def test_log_mel(audio, window, hop, bands):
    librosa = pytest.importorskip("librosa")
    border = (window - hop) // 2
    filters = librosa.filters.mel(sr=22_050, n_fft=window, n_mels=bands).astype(np.float64)
    taps = get_window("hann", window, fftbins=True)
    expected = []
    for row in np.asarray(audio, np.float64):
        padded = np.pad(row, border)
        cut = [padded[i * hop : i * hop + window] * taps for i in range(len(row) // hop)]
        mel = np.abs([np.fft.rfft(frame, window) for frame in cut]) @ filters.T
        expected.append(mel + 1e-4)
    found = np.exp(2 * spectral.log_mel(audio, 22_050, window, hop, bands) - 4)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.max(expected))


@pytest.mark.parametrize(("n", "hop"), [(16, 8), (16, 4), (64, 8)])
def test_inverse_adds_windowed_frames(n, hop):
    rng = np.random.default_rng(3)
    z = rng.normal(size=(2, 5, n // 2 + 1)) + 1j * rng.normal(size=(2, 5, n // 2 + 1))
    taps = get_window("hann", n, fftbins=True) / (n / hop / 2)
    expected = np.zeros((2, 4 * hop + n))
    for i in range(5):
        expected[:, i * hop : i * hop + n] += np.fft.irfft(z[:, i], n) * taps
    border = (n - hop) // 2
    found = spectral.inverse(z.astype(np.complex64), hop)
    np.testing.assert_allclose(found, expected[:, border : border + 5 * hop], atol=1e-5)


def test_inverse_of_spectra_is_the_sound():
    """Frames cut without a window: inside the sound the synthesis windows add up to 1."""
    x = np.random.default_rng(4).normal(size=(1, 20 * 8)).astype(np.float32)
    border = (32 - 8) // 2
    padded = np.pad(x, ((0, 0), (border, border)))
    frames = np.stack([padded[:, i * 8 : i * 8 + 32] for i in range(20)], 1)
    found = spectral.inverse(np.fft.rfft(frames).astype(np.complex64), 8)
    np.testing.assert_allclose(found[:, border:-border], x[:, border:-border], atol=1e-5)


def test_magnitudes_are_librosas():
    librosa = pytest.importorskip("librosa")
    audio = np.random.default_rng(5).normal(size=9000).astype(np.float32)
    for n_fft, hop, window in (*spectral.RESOLUTIONS, spectral.PLAIN):
        theirs = np.abs(
            librosa.stft(audio, n_fft=n_fft, hop_length=hop, win_length=window, pad_mode="reflect")
        )
        ours = magnitudes(audio[None], n_fft, hop, window)[0]
        np.testing.assert_allclose(ours, theirs.T, atol=1e-3)
