"""Dense layers and norms, and their gradients, against definitions and on meshes."""

import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jukejax.config import MeshConfig
from jukejax.models import dense
from jukejax.parallel.mesh import BATCH, COMPUTE, make_mesh


def arrays(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def test_dense_and_norm():
    x, kernel, bias = arrays(0, (3, 5, 8), (8, 8), (8,))
    p = {"kernel": kernel, "bias": bias}
    np.testing.assert_allclose(dense.dense(p, x, dense.WIDE), oracle.dense(p, x), atol=1e-5)
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
    assert dense.dense(p, x, dense.WIDE).dtype == jnp.bfloat16
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


def tensors(rng, n_in, n_out):
    """Of a norm and of a dense layer."""
    norm = {"scale": rng.normal(size=n_in) + 1.0, "bias": rng.normal(size=n_in)}
    p = {"kernel": rng.normal(size=(n_in, n_out)), "bias": rng.normal(size=n_out)}
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (norm, p))


def defined(norm, p, x):
    y = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return (y * norm["scale"] + norm["bias"]) @ p["kernel"] + p["bias"]


def apart(norm, p, x):
    return dense.normed_dense(norm, p, x, "")


def absorbed(norm, p, x):
    return dense.normed_dense({}, dense.absorb(norm, p, x.dtype), x, "", by_row=True)


def assert_close(found, wanted, tolerance):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            np.asarray(a, np.float64), b, rtol=tolerance, atol=tolerance * np.abs(b).max()
        ),
        found,
        wanted,
    )


@pytest.mark.parametrize("mean", [0.0, 3.0])
@pytest.mark.parametrize("function", [apart, absorbed])
def test_gradients_of_dense_after_a_norm(function, mean):
    """Written by hand, against those that JAX derives of the definition."""
    rng = np.random.default_rng(0)
    norm, p = tensors(rng, 6, 4)
    x, dy = rng.normal(mean, size=(2, 5, 6)), rng.normal(size=(2, 5, 4))
    x, dy = (jnp.asarray(a, jnp.float32) for a in (x, dy))

    def found(f):
        return jax.value_and_grad(lambda *a: jnp.sum(dy * f(*a)), (0, 1, 2))(norm, p, x)

    assert_close(found(function), found(defined), 2e-5)


def test_a_norm_in_bfloat16_rounds_no_more_than_its_inputs_do():
    """Against float32 on the same rounded inputs, with a mean as large as the deviation."""
    rng = np.random.default_rng(0)
    norm, p = tensors(rng, 256, 128)
    x, dy = (rng.normal(1.0, size=(2, 64, n)) for n in (256, 128))
    x, dy = (jnp.asarray(a, jnp.bfloat16) for a in (x, dy))

    def found(f, dtype):
        def loss(p, x):
            return jnp.sum(dy.astype(jnp.float32) * f(norm, p, x).astype(jnp.float32))

        return jax.grad(loss, (0, 1))(p, x.astype(dtype))

    assert_close(found(absorbed, jnp.bfloat16), found(defined, jnp.float32), 0.02)


@pytest.mark.parametrize("mesh", [(1, 8, 1), (2, 2, 2), (4, 2, 1)], ids=str)
def test_gradients_on_a_mesh_lie_where_kernels_are_stored(mesh):
    rng = np.random.default_rng(0)
    data, fsdp, tensor = mesh
    norm, wide = tensors(rng, 24, 8)
    _, narrow = tensors(rng, 8, 24)
    x = jnp.asarray(rng.normal(size=(16, 5, 24)), jnp.float32)

    def loss(f, wide, narrow, x):
        h = jnp.sin(f(norm, wide, x))
        return jnp.sum(jnp.sin(x + dense.dense(narrow, h, dense.NARROW)))

    wanted = jax.value_and_grad(partial(loss, defined), (0, 1, 2))(wide, narrow, x)
    mesh = make_mesh(MeshConfig(data=data, fsdp=fsdp, tensor=tensor))
    x = jax.device_put(x, NamedSharding(mesh, P(BATCH)))
    with jax.set_mesh(mesh), nn.logical_axis_rules(list(COMPUTE)):
        step = jax.jit(jax.value_and_grad(partial(loss, absorbed), (0, 1, 2)))
        found = step(wide, narrow, x)
        text = step.lower(wide, narrow, x).compile().as_text()
    assert_close(found, wanted, 2e-5)
    _, (d_wide, d_narrow, _) = found
    assert d_wide["kernel"].sharding.shard_shape((24, 8)) == (24 // fsdp, 8 // tensor)
    assert d_narrow["kernel"].sharding.shard_shape((8, 24)) == (8 // tensor, 24 // fsdp)
    assert "reduce-scatter" in text
    reduced = "".join(re.findall(r"= (.*) all-reduce\(", text))
    tables = re.findall(r"f32\[(\d+),(\d+)\]", reduced)
    assert reduced
    assert all(int(n) * int(m) < 24 * 8 // tensor for n, m in tables)  # of no whole gradient
    assert not re.search(r"= f32\[\d+,5,\d+\]\S* all-gather\(", text)  # nor activations of others
