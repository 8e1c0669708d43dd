"""The VQ-VAE: its layers in float64, hops, how far a code reaches, and coding piece by piece."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jukejax.config import VQVAEConfig
from jukejax.models import vqvae
from jukejax.models.bottleneck import Codebook

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


def test_codes_are_the_nearest(params, books, encode):
    audio = noise(48, 2)
    x = np.asarray(encode(audio, 1))[:, :, None]
    codes = vqvae.encode(CONFIG, params, books, jnp.asarray(audio), 1)
    assert codes.dtype == jnp.int32
    np.testing.assert_array_equal(codes, ((x - books[1].codes) ** 2).sum(-1).argmin(-1))


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


# --- reach ----------------------------------------------------------------------------------------


def positive(tree):
    """Parameters that turn no ReLU off and cancel nothing: only reach makes a gradient zero."""
    return jax.tree.map(lambda x: np.abs(x) + 0.01, tree)


@pytest.mark.parametrize("level", [0, 1])
def test_encoder_reach(params, level):
    reach, hop, top = vqvae.encoder_reach(CONFIG, level), HOPS[level], HOPS[-1]
    assert reach % top == 0
    middle = (reach // hop) + 3 * top // hop
    model, p = vqvae.VQVAE(CONFIG), positive(params)

    @jax.jit
    @jax.grad
    def gradient(audio):
        return model.apply({"params": p}, audio, level, method="encode")[0, middle].sum()

    felt = np.flatnonzero(gradient(jnp.ones((1, 2 * reach + 8 * top, 1)))[0, :, 0])
    beyond = max(middle * hop - felt[0], felt[-1] - (middle * hop + hop - 1))
    assert beyond <= reach  # nothing is felt from farther away
    assert reach == -(-beyond // top) * top  # the least multiple that suffices


@pytest.mark.parametrize("level", [0, 1])
def test_decoder_reach(params, level):
    reach, hop = vqvae.decoder_reach(CONFIG, level), HOPS[level]
    middle = reach + 2
    model, p = vqvae.VQVAE(CONFIG), positive(params)

    def influence(vectors, sample):
        y = model.apply({"params": p}, vectors, level, method="decode")
        return y[0, middle * hop + sample, 0]

    gradient = jax.jit(jax.grad(influence))
    beyond = 0
    for sample in (0, hop - 1):
        felt = np.flatnonzero(gradient(jnp.ones((1, 2 * reach + 5, 3)), sample).any(-1))
        beyond = max(beyond, middle - felt[0], felt[-1] - middle)
    assert beyond <= reach
    assert reach - beyond <= HOPS[-1] // hop


@pytest.mark.parametrize(("level", "field"), [(0, 91_878), (1, 5_134), (2, 21_038)])
def test_reach_of_the_published_encoders(level, field):
    config = VQVAEConfig()
    beyond = (field - config.hops[level]) / 2
    assert beyond <= vqvae.encoder_reach(config, level) <= beyond + 128 + config.hops[level]


# --- piece by piece -------------------------------------------------------------------------------


def blur(x, reach):
    """Each number's sum with those at most `reach` away, zeros outside: any cut would show."""
    padded = np.pad(x, reach)
    return sum(padded[i : i + len(x)] for i in range(2 * reach + 1))


@given(st.integers(0, 300), st.integers(1, 60), st.integers(0, 40), st.integers(0, 99))
def test_pieces_make_the_whole(length, piece, reach, seed):
    x = np.random.default_rng(seed).integers(1, 1000, length)
    windows = []

    def run(start, stop):
        assert 0 <= start < stop <= length
        windows.append(stop - start)
        return blur(x[start:stop], reach)

    parts = vqvae.piecewise(run, length, piece, reach)
    whole = [part[first:last] for first, last, part in parts]
    np.testing.assert_array_equal(np.concatenate([*whole, []]), blur(x, reach))
    assert len(set(windows)) <= 1  # one size, so one compilation
    assert not windows or windows[0] <= piece + 2 * reach


LENGTHS = [1, 9, 31]  # of whole songs, in top hops: shorter than a window, and odd


@pytest.mark.parametrize("level", [0, 1])
def test_encoding_in_pieces_is_encoding_the_whole(encode, level):
    reach, hop = vqvae.encoder_reach(CONFIG, level), HOPS[level]
    for length in LENGTHS:
        audio = noise(length * 8)

        def window(start, stop, audio=audio):
            return encode(audio[:, start:stop], level)

        parts = vqvae.piecewise(window, length * 8, 16, reach)
        assert (len(parts) > 1) == (length == 31)
        found = np.concatenate([z[:, a // hop : b // hop] for a, b, z in parts], 1)
        np.testing.assert_allclose(found, encode(audio, level), atol=1e-5)


@pytest.mark.parametrize("level", [0, 1])
def test_decoding_in_pieces_is_decoding_the_whole(decode, level):
    reach, hop = vqvae.decoder_reach(CONFIG, level), HOPS[level]
    for length in LENGTHS:
        codes = np.random.default_rng(4).integers(0, 8, (1, length))

        def window(start, stop, codes=codes):
            return decode(codes[:, start:stop], level)

        parts = vqvae.piecewise(window, length, 3, reach)
        found = np.concatenate([y[:, a * hop : b * hop] for a, b, y in parts], 1)
        np.testing.assert_allclose(found, decode(codes, level), atol=1e-5)


def test_too_little_overlap_shows(encode):
    audio = noise(31 * 8)
    parts = vqvae.piecewise(lambda a, b: encode(audio[:, a:b], 0), 31 * 8, 16, 8)
    found = np.concatenate([z[:, a // 4 : b // 4] for a, b, z in parts], 1)
    assert np.abs(found - encode(audio, 0)).max() > 1e-3
