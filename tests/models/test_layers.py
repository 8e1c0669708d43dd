"""Layers and convolutions against float64 sums written out."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jukejax.config import MeshConfig
from jukejax.models import layers
from jukejax.parallel.mesh import COMPUTE, make_mesh


def arrays(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def test_dense_and_norm(oracle):
    x, kernel, bias = arrays(0, (3, 5, 8), (8, 8), (8,))
    p = {"kernel": kernel, "bias": bias}
    np.testing.assert_allclose(layers.dense(p, x), oracle.dense(p, x), atol=1e-5)
    p = {"scale": kernel[0], "bias": bias}
    x = 30 * x + 100
    np.testing.assert_allclose(layers.layer_norm(p, x), oracle.layer_norm(p, x), atol=2e-5)


def test_norm_of_a_constant_is_its_bias():
    p = {"scale": np.ones(4, np.float32), "bias": np.arange(4, dtype=np.float32)}
    np.testing.assert_array_equal(layers.layer_norm(p, jnp.full((2, 4), 7.0)), [range(4)] * 2)


def test_activations_keep_their_dtype_and_norms_compute_in_float32():
    x, kernel, bias = arrays(1, (3, 64), (64, 4), (4,))
    x = jnp.asarray(x + 300.0, jnp.bfloat16)
    p = {"kernel": kernel, "bias": bias}
    assert layers.dense(p, x).dtype == jnp.bfloat16
    y = layers.layer_norm({"scale": np.ones(64), "bias": np.zeros(64)}, x)
    assert y.dtype == jnp.bfloat16
    wide = np.asarray(x, np.float64)
    expected = (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True)
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=2**-8, atol=1e-3)


def test_quick_gelu():
    x = np.linspace(-8, 8, 33)
    expected = x / (1 + np.exp(-1.702 * x))
    np.testing.assert_allclose(layers.quick_gelu(x.astype(np.float32)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "stride", "dilation", "pad"), [(4, 2, 1, 1), (3, 1, 1, 1), (3, 1, 9, 9), (1, 1, 1, 0)]
)
def test_conv(oracle, size, stride, dilation, pad):
    x, kernel, bias = arrays(2, (2, 12, 3), (size, 3, 5), (5,))
    p = {"kernel": kernel, "bias": bias}
    out = layers.conv(p, x, stride, dilation, pad)
    assert out.shape == (2, 12 // stride, 5)
    np.testing.assert_allclose(out, oracle.conv(p, x, stride, dilation, pad), atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_conv_up_is_a_transposed_convolution(oracle, length):
    x, kernel, bias = arrays(3, (2, length, 3), (4, 3, 5), (5,))
    p = {"kernel": kernel, "bias": bias}
    out = layers.conv_up(p, x)
    assert out.shape == (2, 2 * length, 5)
    np.testing.assert_allclose(out, oracle.conv_up(p, x), atol=1e-5)
    same = lax.conv_transpose(x, kernel, (2,), ((2, 2),)) + bias
    np.testing.assert_allclose(out, same, atol=1e-5)


def test_dilations_of_the_published_networks():
    first = layers.Resnet1D(64, 8, 3)
    assert first.dilations() == [1, 3, 9, 27, 81, 243, 729, 2187]
    assert layers.Resnet1D(64, 4, 3, reverse=True).dilations() == [27, 9, 3, 1]
    cycled = layers.Resnet1D(64, 16, 3, cycle=8)
    assert cycled.dilations() == first.dilations() * 2


@pytest.mark.parametrize(("reverse", "scaled"), [(False, False), (True, True)])
def test_resnet(oracle, reverse, scaled):
    net = layers.Resnet1D(4, 3, 2, reverse=reverse, scale_residual=scaled)
    (x,) = arrays(4, (2, 9, 4))
    params = oracle.random_params(lambda key: net.init(key, x)["params"])
    dilations = [4, 2, 1] if reverse else [1, 2, 4]
    expected = oracle.resnet(params, x, dilations, 3**-0.5 if scaled else 1.0)
    np.testing.assert_allclose(net.apply({"params": params}, x), expected, atol=1e-5)


def test_spread_draws_uniformly_within_the_bounds():
    # PyTorch's bound: 1/sqrt(fan_in), of kernel and bias alike
    init = layers.conv_params(3, 32, 40)
    tree = layers.spread(jax.random.key(0), {"a": init(jax.random.key(1)), "b": init(None)})
    tree = jax.tree.map(np.asarray, jax.tree.map(lambda p: p.unbox(), tree, is_leaf=_is_box))
    bound = 1 / np.sqrt(3 * 32)
    for kernel in (tree["a"]["kernel"], tree["b"]["kernel"]):
        assert np.abs(kernel).max() <= bound
        assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.03)
        assert abs(kernel.mean()) < 4 * bound / np.sqrt(3 * kernel.size)
    assert np.abs(tree["a"]["bias"]).max() <= bound
    everything = np.concatenate([x.ravel() for x in jax.tree.leaves(tree)])
    assert len(np.unique(everything)) > 0.99 * everything.size


def _is_box(x):
    return hasattr(x, "unbox")


def test_fan_in_of_a_transposed_convolution_is_that_of_its_outputs():
    block = layers.UpBlock(stages=1, width=4, depth=1, growth=3, out=16)
    params = jax.eval_shape(block.init, jax.random.key(0), jnp.zeros((1, 2, 8)))["params"]
    assert params["up_0"]["kernel"].unbox().shape == (4, 4, 16)
    filled = layers.conv_params(4, 4, 16, fan_in=4 * 16)(None)
    np.testing.assert_allclose(filled["kernel"].unbox(), 1 / 8)
    np.testing.assert_allclose(filled["bias"].unbox(), 1 / 8)


def test_zero_initialised_dense():
    p = layers.dense_params(3, 4, 0.5, ("embed", "inner"), zero=True)(jax.random.key(0))
    assert not np.asarray(p["kernel"].unbox()).any()
    p = layers.dense_params(64, 64, 0.5, ("embed", "inner"))(jax.random.key(0))
    assert np.asarray(p["kernel"].unbox()).std() == pytest.approx(0.5, rel=0.05)
    assert not np.asarray(p["bias"].unbox()).any()


def test_gradients_of_dense_and_norm():
    """Written by hand, against those that JAX derives of the definitions."""
    rng = np.random.default_rng(0)
    x, dy = (rng.normal(size=(2, 5, n)).astype(np.float32) for n in (6, 4))
    norm = {"scale": rng.normal(size=6) + 1.0, "bias": rng.normal(size=6)}
    p = {"kernel": rng.normal(size=(6, 4)), "bias": rng.normal(size=4)}
    norm, p = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (norm, p))

    def definition(norm, p, x):
        y = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return jnp.sum(dy * ((y * norm["scale"] + norm["bias"]) @ p["kernel"] + p["bias"]))

    def apart(norm, p, x):
        return jnp.sum(dy * layers.dense(p, layers.layer_norm(norm, x)))

    def absorbed(norm, p, x):
        return jnp.sum(dy * layers.dense(layers.absorb(norm, p), layers.layer_norm({}, x)))

    value, expected = jax.value_and_grad(definition, argnums=(0, 1, 2))(norm, p, x)
    for function in (apart, absorbed):
        found = jax.value_and_grad(function, argnums=(0, 1, 2))(norm, p, x)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
            found,
            (value, expected),
        )


@pytest.mark.parametrize("axes", [("embed", "inner"), ("inner", "embed")])
@pytest.mark.parametrize("width", [24, 20])  # 3 rows a shard; no whole number of rows
def test_gathered_kernels_are_the_stored_ones(axes, width):
    mesh = make_mesh(MeshConfig(data=1, fsdp=8))
    kernel = np.random.default_rng(0).normal(size=(width, 6) if axes[0] == "embed" else (6, width))
    kernel = kernel.astype(np.float32)

    def loss(kernel):
        with nn.logical_axis_rules(list(COMPUTE)):
            return jnp.sum(jnp.sin(layers.gathered(kernel, axes, 8)))

    with jax.set_mesh(mesh):
        value, gradient = jax.jit(jax.value_and_grad(loss))(kernel)
    np.testing.assert_allclose(value, np.sin(kernel).sum(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, np.cos(kernel), rtol=1e-5, atol=1e-5)
    if width == 24:
        assert gradient.sharding.spec[axes.index("embed")] == "fsdp"
