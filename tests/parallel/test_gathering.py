"""Stored parameters on every device of a mesh, and their gradients."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jukejax.config import MeshConfig
from jukejax.parallel import gathering
from jukejax.parallel.mesh import BATCH, COMPUTE, make_mesh


@pytest.mark.parametrize("axes", [("embed", "inner"), ("inner", "embed")])
@pytest.mark.parametrize("width", [24, 20])  # 3 rows a shard; no whole number of rows
def test_gathered_kernels_are_the_stored_ones(axes, width):
    mesh = make_mesh(MeshConfig(data=1, fsdp=8))
    kernel = np.random.default_rng(0).normal(size=(width, 6) if axes[0] == "embed" else (6, width))
    kernel = kernel.astype(np.float32)

    def loss(kernel):
        with nn.logical_axis_rules(list(COMPUTE)):
            return jnp.sum(jnp.sin(gathering.gathered(kernel, axes)))

    with jax.set_mesh(mesh):
        value, gradient = jax.jit(jax.value_and_grad(loss))(kernel)
    np.testing.assert_allclose(value, np.sin(kernel).sum(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, np.cos(kernel), rtol=1e-5, atol=1e-5)
    if width == 24:
        assert gradient.sharding.spec[axes.index("embed")] == "fsdp"


# 22: no whole number of columns; 3: of examples
@pytest.mark.parametrize(("width", "examples"), [(24, 8), (22, 8), (24, 3)])
def test_rows_are_looked_up_where_the_examples_are(width, examples):
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    rng = np.random.default_rng(0)
    table, ids = rng.normal(size=(5, width)).astype(np.float32), rng.integers(0, 5, (examples, 3))

    def loss(table):
        with nn.logical_axis_rules(list(COMPUTE)):
            return jnp.sum(jnp.sin(gathering.with_whole(gathering.look_up, table, ids)))

    wanted = np.zeros_like(table)
    np.add.at(wanted, ids, np.cos(table[ids]))
    with jax.set_mesh(mesh):
        step = jax.jit(jax.value_and_grad(loss))
        value, gradient = step(table)
        text = step.lower(table).compile().as_text()
    np.testing.assert_allclose(value, np.sin(table[ids]).sum(), rtol=1e-5)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-5)
    if (width, examples) == (24, 8):
        assert gradient.sharding.shard_shape(gradient.shape) == (5, 6)
        assert "reduce-scatter" in text
        assert "f32[5,24]" not in "".join(re.findall(r"= (.*) all-reduce\(", text))


@pytest.mark.parametrize("examples", [8, 3])
def test_every_device_transforms_its_own_examples(examples):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    x = np.random.default_rng(0).normal(size=(examples, 5, 12)).astype(np.float32)

    def loss(x):
        with nn.logical_axis_rules(list(COMPUTE)):
            return jnp.sum(jnp.abs(gathering.by_device(jnp.fft.rfft, x)) ** 2)

    with jax.set_mesh(mesh):
        step = jax.jit(jax.value_and_grad(loss))
        if examples == 8:
            x = jax.device_put(x, NamedSharding(mesh, P(BATCH)))
        value, gradient = step(x)
        text = step.lower(x).compile().as_text()
    wanted = np.fft.rfft(np.asarray(x, np.float64))
    np.testing.assert_allclose(value, (np.abs(wanted) ** 2).sum(), rtol=1e-5)
    # bins 1 to 5 stand for two of the 12 each, but are counted once
    np.testing.assert_allclose(
        gradient, 12 * np.fft.irfft(wanted * [2, 1, 1, 1, 1, 1, 2]), atol=1e-3
    )
    if examples == 8:
        assert "all-gather" not in text
