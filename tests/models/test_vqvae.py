"""The VQ-VAE: its layers in float64, hops, how far a code reaches, and coding piece by piece."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from jukejax.config import FramesConfig, VQVAEConfig
from jukejax.models import spectral, vqvae
from jukejax.models.bottleneck import Codebook, restored_book

FRAMES = VQVAEConfig(
    sample_rate=8000, downs=(1,), multipliers=(1,), width=4, depth=1, emb_width=3, codes=8,
    groups=2, frames=FramesConfig(hop=4, bands=5, window=32, synthesis=16),
)  # fmt: skip
CONFIG = VQVAEConfig(downs=(2, 1), multipliers=(2, 1), width=4, depth=1, emb_width=3, codes=8)
HOPS = (4, 8)


@pytest.fixture(scope="module")
def params():
    return oracle.random_params(lambda key: vqvae.init_params(CONFIG, key))


@pytest.fixture(scope="module")
def books():
    codes = np.random.default_rng(1).normal(size=(2, 8, 3)).astype(np.float32)
    return tuple(Codebook(jnp.asarray(c), jnp.asarray(c), jnp.ones(8)) for c in codes)


@pytest.fixture(scope="module")
def encode(params):
    """Audio -> vectors of a level."""

    def run(audio, level):
        return vqvae.VQVAE(CONFIG).apply({"params": params}, audio, level, method="encode")

    return jax.jit(run, static_argnums=1)


@pytest.fixture(scope="module")
def decode(params, books):
    """Codes -> audio of a level."""
    return jax.jit(
        lambda codes, level: vqvae.decode(CONFIG, params, books, codes, level), static_argnums=1
    )


def noise(length, batch=1):
    x = np.random.default_rng(2).normal(size=(batch, length, 1))
    return (0.5 * x).astype(np.float32)


# --- layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 1])
def test_encoder_is_its_layers_in_order(params, encode, level):
    audio = noise(48, 2)
    x, p = audio, params[f"encoders_{level}"]
    for i, stages in enumerate([2, 1][: level + 1]):
        block = p[f"block_{i}"]
        for stage in range(stages):
            x = oracle.conv(block[f"down_{stage}"], x, stride=2, pad=1)
            x = oracle.resnet(block[f"resnet_{stage}"], x, [[1, 3], [1]][level])
        x = oracle.conv(block["out"], x, pad=1)
    out = encode(audio, level)
    assert out.shape == (2, 48 // HOPS[level], 3)
    np.testing.assert_allclose(out, x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", [0, 1])
def test_decoder_is_its_layers_in_order(params, books, decode, level):
    codes = np.random.default_rng(3).integers(0, 8, (2, 6))
    x, p = np.asarray(books[level].codes)[codes], params[f"decoders_{level}"]
    for i in reversed(range(level + 1)):
        block = p[f"block_{i}"]
        x = oracle.conv(block["in"], x, pad=1)
        for stage in range([2, 1][i]):
            x = oracle.resnet(block[f"resnet_{stage}"], x, [[3, 1], [1]][level])
            x = oracle.conv_up(block[f"up_{stage}"], x)
    x = oracle.conv(p["out"], x, pad=1)
    out = decode(codes, level)
    assert out.shape == (2, 6 * HOPS[level], 1)
    np.testing.assert_allclose(out, x, rtol=1e-4, atol=1e-5)


def test_encoder_of_frames_is_its_layers_in_order():
    params = oracle.random_params(lambda key: vqvae.init_params(FRAMES, key))
    audio = noise(48, 2)
    p = params["encoders_0"]["block_0"]
    x = np.asarray(spectral.log_mel(audio[..., 0], 8000, 32, 4, 5), np.float64)
    x = oracle.conv(p["down_0"], x, stride=2, pad=1)
    x = oracle.conv(p["out"], oracle.resnet(p["resnet_0"], x, [1]), pad=1)
    found = vqvae.to_vectors(FRAMES, params, audio, 0)
    assert found.shape == (2, 48 // 8, 3)
    np.testing.assert_allclose(found, x, rtol=1e-3, atol=1e-4)


def test_decoder_of_frames_is_its_layers_in_order():
    params = oracle.random_params(lambda key: vqvae.init_params(FRAMES, key))
    vectors = np.random.default_rng(3).normal(size=(2, 3, 3)).astype(np.float32)
    p = params["decoders_0"]
    x = oracle.conv(p["block_0"]["in"], vectors, pad=1)
    x = oracle.conv_up(p["block_0"]["up_0"], oracle.resnet(p["block_0"]["resnet_0"], x, [1]))
    x = oracle.conv(p["out"], x, pad=1)  # (2, 6, 9 + 9 + 5)
    z = np.exp(np.minimum(x[..., :9], 5)) * np.exp(1j * x[..., 9:18])
    sound, mel = vqvae.reconstruct(FRAMES, params, vectors, 0)
    assert sound.shape == (2, 24, 1)
    np.testing.assert_allclose(mel, x[..., 18:], rtol=1e-4, atol=1e-5)
    expected = spectral.inverse(z.astype(np.complex64), 4)
    np.testing.assert_allclose(sound[..., 0], expected, rtol=1e-3, atol=1e-5)


def test_codes_are_the_nearest(params, books, encode):
    audio = noise(48, 2)
    x = np.asarray(encode(audio, 1))[:, :, None]
    codes = vqvae.encode(CONFIG, params, books, jnp.asarray(audio), 1)
    assert codes.dtype == jnp.int32
    np.testing.assert_array_equal(codes, ((x - books[1].codes) ** 2).sum(-1).argmin(-1))


def test_codes_of_a_group_are_the_nearest_to_what_is_left():
    params = oracle.random_params(lambda key: vqvae.init_params(FRAMES, key))
    stages = np.random.default_rng(4).normal(size=(2, FRAMES.codes, 3)).astype(np.float32)
    books = (restored_book(stages.reshape(-1, 3), 1.0),)
    audio = noise(48, 2)
    codes = np.asarray(vqvae.encode(FRAMES, params, books, jnp.asarray(audio), 0))
    rest, near = np.asarray(vqvae.to_vectors(FRAMES, params, audio, 0)), 0.0
    assert codes.shape == (2, 12)
    for stage, chosen in zip(stages, codes.reshape(2, 6, 2).transpose(2, 0, 1), strict=True):
        squares = ((rest[:, :, None] - stage) ** 2).sum(-1)
        np.testing.assert_array_equal(chosen, squares.argmin(-1))
        rest, near = rest - stage[chosen], near + stage[chosen]
    expected = vqvae.reconstruct(FRAMES, params, near, 0)[0]
    np.testing.assert_allclose(vqvae.decode(FRAMES, params, books, codes, 0), expected, atol=1e-5)


@pytest.mark.parametrize(("level", "hop"), [(0, 8), (1, 32), (2, 128)])
def test_published_shapes(level, hop):
    config = VQVAEConfig()
    params = jax.eval_shape(lambda key: vqvae.init_params(config, key), jax.random.key(0))
    model, audio = vqvae.VQVAE(config), jax.ShapeDtypeStruct((2, 1280, 1), jnp.float32)

    def both(params, audio):
        x = model.apply({"params": params}, audio, level, method="encode")
        return x, model.apply({"params": params}, x, level, method="decode")

    x, y = jax.eval_shape(both, params, audio)
    assert x.shape == (2, 1280 // hop, 64)
    assert y.shape == audio.shape


def test_audio_computes_in_the_dtype_of_the_config(params):
    model = vqvae.VQVAE(dataclasses.replace(CONFIG, dtype="bfloat16"))
    text = str(
        jax.make_jaxpr(lambda x: model.apply({"params": params}, x, 0, method="encode"))(noise(8))
    )
    assert "bf16" in text
    assert text.rstrip().splitlines()[-1].count("bf16") == 0  # handed back in float32
