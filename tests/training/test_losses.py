"""The VQ-VAE's losses in float64, and the gradient straight through the bottleneck."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from scipy.signal import get_window

from jukejax.config import FramesConfig, ReconstructionLoss, VQVAEConfig
from jukejax.models import spectral, vqvae
from jukejax.models.bottleneck import Codebook
from jukejax.training import losses
from jukejax.training.losses import Bandwidth
from jukejax.training.tasks import VQVAEExtra, vqvae_task

S = 1280
LOSS = ReconstructionLoss(l1=0.7, l2=1.3, linf=0.02, linf_k=50, spectral=0.5, multispectral=0.9)
CONFIG = VQVAEConfig(
    downs=(1, 1), multipliers=(2, 1), width=4, depth=1, emb_width=3, codes=8, loss=LOSS
)
RESOLUTIONS = ((2048, 240, 1200), (1024, 120, 600), (512, 50, 240))
PLAIN = (2048, 256, 1536)


def spectrum(x, n_fft, hop, window):
    """|STFT| of one (S,), in float64."""
    taps, half = np.zeros(n_fft), n_fft // 2
    left = (n_fft - window) // 2
    taps[left : left + window] = get_window("hann", window, fftbins=True)
    padded = np.pad(np.asarray(x, np.float64), half, mode="reflect")
    starts = range(0, len(padded) - n_fft + 1, hop)
    return np.abs(np.fft.rfft([padded[s : s + n_fft] * taps for s in starts]))


def gap(x, y, resolution):
    return np.linalg.norm(spectrum(x, *resolution) - spectrum(y, *resolution))


def published(x, y, width):
    """Each loss of reconstructions y of x, both (B, S), before weighting."""
    error = np.asarray(y, np.float64) - np.asarray(x, np.float64)
    largest = np.sort(error**2, axis=1)[:, ::-1][:, :50]
    multi = [np.mean([gap(a, b, r) for r in RESOLUTIONS]) for a, b in zip(x, y, strict=True)]
    single = [gap(a, b, PLAIN) for a, b in zip(x, y, strict=True)]
    return {
        "l1": np.abs(error).mean() / width.l1,
        "l2": (error**2).mean() / width.l2,
        "linf": largest.mean() / width.l2,
        "spectral": np.mean(single) / width.spectrum,
        "multispectral": np.mean(multi) / width.spectrum,
    }


@pytest.fixture(scope="module")
def audio():
    t = np.arange(S) / 44_100
    rng = np.random.default_rng(0)
    x = np.stack([np.sin(2 * np.pi * 440 * t), 0.2 * rng.normal(size=S)])
    return x[..., None].astype(np.float32)


def test_bandwidth(audio):
    bandwidth = jax.jit(losses.bandwidth)
    found = bandwidth(audio)
    wide = audio.astype(np.float64)[..., 0]
    assert float(found.l1) == pytest.approx(np.abs(wide).mean(), rel=1e-5)
    assert float(found.l2) == pytest.approx(wide.var(), rel=1e-5)
    norms = [np.linalg.norm(spectrum(row, *PLAIN)) for row in wide]
    assert float(found.spectrum) == pytest.approx(np.mean(norms), rel=1e-5)
    silent = bandwidth(0 * audio)
    assert all(0 < float(w) < 1e-3 for w in silent)


WIDTH = Bandwidth(*(np.float32(w) for w in (0.3, 0.2, 40.0)))


def test_reconstruction_losses(audio):
    y = (0.8 * audio[::-1] + 0.05).astype(np.float32)
    found = jax.jit(lambda *a: losses.reconstruction(CONFIG, *a))(audio, y, WIDTH)
    expected = published(audio[..., 0], y[..., 0], WIDTH)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-4), name


def test_linf_of_a_clip_shorter_than_k_is_the_mean(audio):
    config = VQVAEConfig(loss=ReconstructionLoss(linf_k=2048, multispectral=0.0))
    found = losses.reconstruction(config, audio, 0 * audio, WIDTH)
    assert set(found) == {"l1", "l2", "linf"}  # spectra of no weight are not computed
    assert float(found["linf"]) == pytest.approx(float(found["l2"]), rel=1e-5)


def test_mel_is_the_mean_difference_of_log_mel_spectra(audio):
    y = (0.8 * audio[::-1] + 0.05).astype(np.float32)
    config = VQVAEConfig(sample_rate=22_050, loss=ReconstructionLoss(multispectral=0, mel=1.0))
    found = losses.reconstruction(config, audio, y, WIDTH)
    expected = []
    for window, hop, bands in ((2048, 512, 160), (1024, 256, 80), (512, 128, 40)):
        mel = [spectral.log_mel(x[..., 0], 22_050, window, hop, bands) for x in (audio, y)]
        expected.append(np.abs(np.float64(mel[0]) - mel[1]).mean())
    assert float(found["mel"]) == pytest.approx(np.mean(expected), rel=1e-5)


def test_frames_is_the_difference_of_the_emitted_log_mel_frames(audio):
    config = VQVAEConfig(
        downs=(1,), multipliers=(1,), width=4, depth=1, emb_width=3, codes=8,
        frames=FramesConfig(hop=4, bands=5, window=32, synthesis=16),
        loss=ReconstructionLoss(l2=0, linf=0, multispectral=0, frames=0.6, commit=0),
    )  # fmt: skip
    params = oracle.random_params(lambda key: vqvae.init_params(config, key))
    codes = jnp.asarray(np.random.default_rng(1).normal(size=(8, 3)), jnp.float32)
    books = (Codebook(codes, codes, jnp.ones(8)),)
    loss, (metrics, (assigned,)) = losses.vqvae_loss(config, params, books, WIDTH, audio)
    vectors = codes[assigned.codes].reshape(2, -1, 3)
    emitted = np.float64(vqvae.reconstruct(config, params, vectors, 0)[1])
    expected = np.abs(emitted - spectral.log_mel(audio[..., 0], 44_100, 32, 4, 5)).mean()
    assert float(metrics["level_0/frames"]) == pytest.approx(expected, rel=1e-4)
    assert float(loss) == pytest.approx(0.6 * expected, rel=1e-4)


def test_unquantized_examples_are_decoded_from_encoder_outputs(state, audio):
    """Of two examples half: the first is decoded before quantising; held-out batches never are."""
    params, books = state
    config = dataclasses.replace(CONFIG, unquantized=0.5)
    task = vqvae_task(config, S)
    extra = VQVAEExtra(books, WIDTH)
    _, (metrics, _) = task.loss(params, extra, {"audio": audio})
    for level in range(2):
        x = vqvae.to_vectors(config, params, audio, level)
        y = [vqvae.reconstruct(config, params, x[:1], level)[0]]
        y.append(
            vqvae.decode(
                config, params, books, vqvae.encode(config, params, books, audio[1:], level), level
            )
        )
        expected = published(audio[..., 0], np.concatenate(y)[..., 0], WIDTH)["l2"]
        assert float(metrics[f"level_{level}/l2"]) == pytest.approx(expected, rel=1e-4)
    held_out = task.evaluate(params, extra, {"audio": audio})
    _, (quantized, _) = losses.vqvae_loss(CONFIG, params, books, WIDTH, audio)
    assert float(held_out["loss"]) == pytest.approx(float(quantized["loss"]), rel=1e-6)
    assert abs(float(held_out["loss"]) - float(metrics["loss"])) > 1e-3


@pytest.fixture(scope="module")
def state():
    """Parameters and codebooks."""
    params = oracle.random_params(lambda key: vqvae.init_params(CONFIG, key))
    codes = np.random.default_rng(1).normal(size=(2, 8, 3)).astype(np.float32)
    return params, tuple(Codebook(jnp.asarray(c), jnp.asarray(c), jnp.ones(8)) for c in codes)


@pytest.fixture(scope="module")
def parts(state, audio):
    """Encoder outputs, codes chosen and reconstructions of each level, all one step at a time."""
    params, books = state
    model = vqvae.VQVAE(CONFIG)
    out = []
    for level in range(2):
        x = model.apply({"params": params}, audio, level, method="encode")
        squares = ((np.asarray(x)[:, :, None] - np.asarray(books[level].codes)) ** 2).sum(-1)
        index = squares.argmin(-1)
        codes = books[level].codes[index]
        y = model.apply({"params": params}, codes, level, method="decode")
        out.append((x, index, codes, y))
    return out


def test_loss_is_the_weighted_sum_over_levels(state, parts, audio):
    run = jax.jit(lambda *args: losses.vqvae_loss(CONFIG, *args))
    loss, (metrics, chosen) = run(*state, WIDTH, audio)
    weights = {"l1": 0.7, "l2": 1.3, "linf": 0.02, "spectral": 0.5, "multispectral": 0.9}
    total = 0.0
    for level, (x, index, codes, y) in enumerate(parts):
        wanted = published(audio[..., 0], np.asarray(y)[..., 0], WIDTH)
        commit = ((np.asarray(x, np.float64) - np.asarray(codes)) ** 2).mean()
        total += sum(weights[name] * value for name, value in wanted.items()) + 0.02 * commit
        for name, value in {**wanted, "commit": commit}.items():
            assert float(metrics[f"level_{level}/{name}"]) == pytest.approx(value, rel=1e-4), name
        ratio = [
            gap(a, b, PLAIN) / np.linalg.norm(spectrum(a, *PLAIN))
            for a, b in zip(audio[..., 0], np.asarray(y)[..., 0], strict=True)
        ]
        found = float(metrics[f"level_{level}/spectral_convergence"])
        assert found == pytest.approx(np.mean(ratio), rel=1e-4)
        np.testing.assert_array_equal(chosen[level].codes, index.ravel())
        np.testing.assert_allclose(chosen[level].vectors, np.asarray(x).reshape(-1, 3), atol=1e-5)
        distance = ((np.asarray(x) - np.asarray(codes)) ** 2).sum(-1).ravel()
        np.testing.assert_allclose(chosen[level].distance, distance, rtol=1e-4, atol=1e-5)
    assert float(loss) == float(metrics["loss"]) == pytest.approx(total, rel=1e-4)


def test_gradient_goes_straight_through_to_the_encoder(parts, state, audio):
    """The decoder's gradient at the codes, and the commitment's, are handed to the encoder."""
    params, books = state
    level, (x, _, codes, _) = 1, parts[1]
    weights = ReconstructionLoss(l1=0.0, l2=1.3, linf=0.5, multispectral=0.0, commit=0.3)
    config = dataclasses.replace(CONFIG, loss=weights)
    model = vqvae.VQVAE(config)

    @jax.jit
    @jax.grad
    def gradient(params):
        return losses.vqvae_loss(config, params, books, WIDTH, audio)[0]

    @jax.jit
    def by_hand(params):
        def decoder_loss(params, vectors):
            y = model.apply({"params": params}, vectors, level, method="decode")
            found = losses.reconstruction(config, audio, y, WIDTH)
            return 1.3 * found["l2"] + 0.5 * found["linf"]

        decoder, at_codes = jax.grad(decoder_loss, argnums=(0, 1))(params, codes)
        commit = 0.3 * 2 * (x - codes) / x.size

        def encoder(params):
            return model.apply({"params": params}, audio, level, method="encode")

        _, back = jax.vjp(encoder, params)
        return decoder, back(at_codes + commit)[0]

    found, (decoder, encoder) = gradient(params), by_hand(params)
    for name, expected in (("decoders_1", decoder), ("encoders_1", encoder)):
        assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(expected[name]))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max()),
            found[name],
            expected[name],
        )


def test_loss_of_silence_has_finite_gradients(state):
    _, books = state
    silence = jnp.zeros((1, S, 1))
    config = dataclasses.replace(CONFIG, downs=(1,), multipliers=(1,))
    shapes = jax.eval_shape(lambda key: vqvae.init_params(config, key), jax.random.key(0))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)  # the reconstruction is silence too

    def loss(params):
        return losses.vqvae_loss(config, params, books[:1], WIDTH, silence)[0]

    value, gradient = jax.jit(jax.value_and_grad(loss))(jax.tree.map(jnp.asarray, zeros))
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
