"""Plain dense layers and norms against float64 and their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from jukejax.models import dense


def arrays(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def test_dense_and_norm():
    x, kernel, bias = arrays(0, (3, 5, 8), (8, 8), (8,))
    p = {"kernel": kernel, "bias": bias}
    np.testing.assert_allclose(dense.dense(p, x), oracle.dense(p, x), atol=1e-5)
    p = {"scale": kernel[0], "bias": bias}
    x = 30 * x + 100
    np.testing.assert_allclose(dense.layer_norm(p, x), oracle.layer_norm(p, x), atol=2e-5)


def test_norm_of_a_constant_is_its_bias():
    p = {"scale": np.ones(4, np.float32), "bias": np.arange(4, dtype=np.float32)}
    np.testing.assert_array_equal(dense.layer_norm(p, jnp.full((2, 4), 7.0)), [range(4)] * 2)


def test_activations_keep_their_dtype_and_norms_compute_in_float32():
    x, kernel, bias = arrays(1, (3, 64), (64, 4), (4,))
    x = jnp.asarray(x + 300.0, jnp.bfloat16)
    p = {"kernel": kernel, "bias": bias}
    assert dense.dense(p, x).dtype == jnp.bfloat16
    y = dense.layer_norm({"scale": np.ones(64), "bias": np.zeros(64)}, x)
    assert y.dtype == jnp.bfloat16
    wide = np.asarray(x, np.float64)
    expected = (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True)
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=2**-8, atol=1e-3)


def test_zero_initialised_dense():
    p = dense.dense_params(3, 4, 0.5, ("embed", "inner"), zero=True)(jax.random.key(0))
    assert not np.asarray(p["kernel"].unbox()).any()
    p = dense.dense_params(64, 64, 0.5, ("embed", "inner"))(jax.random.key(0))
    assert np.asarray(p["kernel"].unbox()).std() == pytest.approx(0.5, rel=0.05)
    assert not np.asarray(p["bias"].unbox()).any()


def test_an_int8_kernel_is_scaled_by_column():
    x, kernel, scale, bias = arrays(2, (3, 8), (8, 4), (4,), (4,))
    q = np.round(30 * kernel).astype(np.int8)
    y = dense.dense({"kernel": q, "scale": scale, "bias": bias}, x)
    np.testing.assert_allclose(y, (x @ q.astype(np.float64)) * scale + bias, rtol=1e-5, atol=1e-4)


def test_dense_after_a_norm():
    x, kernel, bias, scale, shift = arrays(3, (3, 5, 8), (8, 4), (4,), (8,), (8,))
    norm, p = {"scale": scale, "bias": shift}, {"kernel": kernel, "bias": bias}
    expected = oracle.dense(p, oracle.layer_norm(norm, x))
    np.testing.assert_allclose(dense.normed_dense(norm, p, x, ""), expected, rtol=1e-4, atol=1e-4)
