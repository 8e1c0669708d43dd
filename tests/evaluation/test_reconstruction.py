"""Reconstruction figures against float64 references, whatever the length and the pieces."""

import functools

import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import scipy.signal

from jukejax.config import VQVAEConfig
from jukejax.errors import CheckpointError
from jukejax.evaluation import fidelity
from jukejax.evaluation.fidelity import Song
from jukejax.model_dir import LoadedVQVAE
from jukejax.models import vqvae
from jukejax.models.bottleneck import Codebook

TINY = VQVAEConfig(
    downs=(2, 1), multipliers=(2, 1), width=4, depth=1, dilation_growth=2, emb_width=6, codes=16
)


def sound(n: int, seed: int = 0) -> np.ndarray:
    """A falling tone in noise: (n,) float32."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) / 44_100
    tone = 0.4 * np.sin(2 * np.pi * (900 - 200 * t) * t)
    return (tone + 0.02 * rng.normal(size=n)).astype(np.float32)


def spectrum(x: np.ndarray) -> np.ndarray:
    """|STFT| in float64 by scipy, laid out as torch.stft(2048, 256, 1536, center=True) has it."""
    padded = np.pad(x.astype(np.float64), 1024, mode="reflect")
    window = np.pad(scipy.signal.get_window("hann", 1536), 256)
    _, _, z = scipy.signal.stft(
        padded, window=window, nperseg=2048, noverlap=2048 - 256, boundary=None, padded=False
    )
    return np.abs(z) * window.sum()  # scipy divides by the window's sum


def in_pieces(x: np.ndarray, y: np.ndarray, sizes: list[int]):
    """(2, n) pieces of the given sizes in turn."""
    done = index = 0
    while done < len(x):
        stop = done + sizes[index % len(sizes)]
        yield np.stack([x[done:stop], y[done:stop]])
        done, index = stop, index + 1


@pytest.fixture(scope="module")
def tiny():
    """A VQ-VAE with random numbers."""
    params = oracle.random_params(functools.partial(vqvae.init_params, TINY), scale=0.3)
    rng = np.random.default_rng(1)
    codes = [rng.normal(size=(16, 6)).astype(np.float32) for _ in range(TINY.levels)]
    books = tuple(Codebook(jnp.asarray(c), c, np.ones(16, np.float32)) for c in codes)
    return LoadedVQVAE(TINY, params, books, 0, "")


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (1025, [1025]),
        (5000, [700, 1, 37]),
        (256 * 512 + 769, [50_000]),
        (300_001, [30_000, 256]),
    ],
)
def test_convergence_in_pieces_is_that_of_the_whole_song(n, sizes):
    x, y = sound(n), 0.9 * sound(n) + 0.1 * sound(n, seed=3)
    s, r = spectrum(x), spectrum(y)
    wanted = 20 * np.log10(np.linalg.norm(s - r) / np.linalg.norm(s))
    sums = fidelity.song_sums(in_pieces(x, y.astype(np.float32), sizes))
    assert sums.spectrum == pytest.approx((s**2).sum(), rel=1e-5)
    assert fidelity.convergence_db(sums) == pytest.approx(wanted, abs=1e-3)


def test_convergence_agrees_with_the_training_metric():
    from jukejax.models.spectral import spectral_convergence

    x, y = sound(20_000), sound(20_000, seed=5)
    wanted = 20 * np.log10(float(spectral_convergence(x[None], y[None])[0]))
    found = fidelity.convergence_db(fidelity.song_sums(in_pieces(x, y, [999])))
    assert found == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("n", [1, 2, 700, 768, 769, 770])
def test_songs_shorter_than_the_reflection_are_measured_too(n):
    x = sound(n)
    sums = fidelity.song_sums(in_pieces(x, 0 * x, [300]))
    frames = np.pad(x.astype(np.float64), 768, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(frames, 1536)[::256]
    s = np.abs(np.fft.rfft(frames * scipy.signal.get_window("hann", 1536), 2048))
    assert sums.spectrum == pytest.approx((s**2).sum(), rel=1e-4, abs=1e-9)
    assert fidelity.convergence_db(sums) == pytest.approx(0.0, abs=1e-6)


def test_si_sdr_ignores_loudness_and_sees_noise():
    rng = np.random.default_rng(2)
    x = sound(30_000).astype(np.float64)
    noise = rng.normal(size=len(x))
    noise -= x * (noise @ x) / (x @ x)  # orthogonal, so that the ratio is what is asked for
    noise *= np.sqrt((x @ x) / (noise @ noise)) * 10 ** (-17.5 / 20)
    for gain in (1.0, -0.3):
        y = (gain * (x + noise)).astype(np.float32)
        sums = fidelity.song_sums(in_pieces(x.astype(np.float32), y, [4096]))
        assert fidelity.si_sdr_db(sums) == pytest.approx(17.5, abs=1e-3)


def test_perfect_and_silent_reconstructions_have_finite_figures():
    x = sound(5000)
    perfect = fidelity.song_sums(in_pieces(x, x, [5000]))
    silent = fidelity.song_sums(in_pieces(x, 0 * x, [5000]))
    limit = fidelity.LIMIT_DB
    assert fidelity.convergence_db(perfect) == -limit
    assert fidelity.si_sdr_db(perfect) == limit
    assert fidelity.convergence_db(silent) == pytest.approx(0, abs=1e-9)
    assert fidelity.si_sdr_db(silent) == -limit


def make_song(name: str, x: np.ndarray, codes) -> Song:
    return Song(name, len(x), lambda start, stop: x[start:stop], codes)


def test_evaluation_is_the_mean_over_songs_that_sound(tiny):
    config, params, books = tiny.config, tiny.params, tiny.books
    rng = np.random.default_rng(4)
    songs, wanted = [], []
    for i, n in enumerate((3001, 9000)):
        x = sound(n, seed=i)
        padded = -(-n // config.hops[-1]) * config.hops[-1]
        codes = [rng.integers(0, 16, padded // hop).astype(np.uint16) for hop in config.hops]
        songs.append(make_song(f"song {i}", x, codes))
        row = []
        for level in range(config.levels):
            z = codes[level][None].astype(np.int32)
            y = np.asarray(vqvae.decode(config, params, books, z, level))[0, :n, 0]
            y, x64 = y.astype(np.float64), x.astype(np.float64)
            s, r = spectrum(x64), spectrum(y)
            projection = x64 * (x64 @ y) / (x64 @ x64)
            ratio = (projection**2).sum() / ((y - projection) ** 2).sum()
            row.append((20 * np.log10(np.linalg.norm(s - r) / np.linalg.norm(s)),
                        10 * np.log10(ratio)))  # fmt: skip
        wanted.append(row)
    silence = make_song("silence", np.zeros(2000, np.float32), songs[0].codes)
    decoders = [functools.partial(fidelity.decode_pieces, tiny, i) for i in range(config.levels)]
    result = fidelity.evaluate(decoders, iter([*songs, silence]))
    assert (result["songs"], result["silent"], result["samples"]) == (2, 1, 12_001)
    means = np.mean(wanted, axis=0)  # (levels, figures)
    for row, (convergence, ratio) in zip(result["levels"], means, strict=True):
        assert row["spectral_convergence_db"] == pytest.approx(convergence, abs=2e-3)
        assert row["si_sdr_db"] == pytest.approx(ratio, abs=2e-2)
    assert [row["id"] for row in result["by_song"]] == ["song 0", "song 1"]


def test_what_cannot_be_measured_is_a_sentence():
    def broken(codes):
        yield np.full(4000, np.nan, np.float32)

    song = make_song("loud", sound(4000), [np.zeros(10, np.uint16)])
    with pytest.raises(CheckpointError, match="not finite"):
        fidelity.evaluate([broken], [song])
    silence = make_song("silence", np.zeros(4000, np.float32), song.codes)
    with pytest.raises(CheckpointError, match="silent"):
        fidelity.evaluate([broken], [silence])


def test_codebook_use_in_known_cases():
    assert fidelity.codebook_use(np.array([5, 5, 5, 5])) == {
        "used": 1.0, "entropy_bits": 2.0, "perplexity": 4.0,
    }  # fmt: skip
    one = fidelity.codebook_use(np.array([0, 9, 0, 0]))
    assert (one["used"], one["entropy_bits"], one["perplexity"]) == (0.25, 0.0, 1.0)
    skewed = fidelity.codebook_use(np.array([3, 1, 0, 0]))
    wanted = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    assert skewed["used"] == 0.5
    assert skewed["entropy_bits"] == pytest.approx(wanted)
    assert skewed["perplexity"] == pytest.approx(2**wanted)
