"""Convolutions and small layers against float64 sums written out."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax import lax

from jukejax.models import layers


def arrays(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def test_quick_gelu():
    x = np.linspace(-8, 8, 33)
    expected = x / (1 + np.exp(-1.702 * x))
    np.testing.assert_allclose(layers.quick_gelu(x.astype(np.float32)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "stride", "dilation", "pad"), [(4, 2, 1, 1), (3, 1, 1, 1), (3, 1, 9, 9), (1, 1, 1, 0)]
)
def test_conv(size, stride, dilation, pad):
    x, kernel, bias = arrays(2, (2, 12, 3), (size, 3, 5), (5,))
    p = {"kernel": kernel, "bias": bias}
    out = layers.conv(p, x, stride, dilation, pad)
    assert out.shape == (2, 12 // stride, 5)
    np.testing.assert_allclose(out, oracle.conv(p, x, stride, dilation, pad), atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_conv_up_is_a_transposed_convolution(length):
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
def test_resnet(reverse, scaled):
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
