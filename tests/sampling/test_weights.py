"""Matrices in bfloat16 and int8, against numpy, and through the forward pass and decoding."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import windows

from jukejax.config import ConfigError, LabelsConfig, LyricsConfig, MeshConfig, PriorConfig
from jukejax.models.dense import dense
from jukejax.models.prior import Prior, example_batch, init_params
from jukejax.parallel.mesh import make_mesh
from jukejax.sampling.draw import Control
from jukejax.sampling.job import Item, Job
from jukejax.sampling.memory import level_memory
from jukejax.sampling.weights import convert

CONFIG = PriorConfig(
    n_ctx=16, hop=10, sample_rate=100, width=8, blocks=4, codes=11, heads=2, depth=4, attn_order=6,
    lyrics=LyricsConfig(tokens=4, width=8, depth=1, blocks=2, attn_order=0, heads=1),
    labels=LabelsConfig(artists=4, genres=3, max_genres=2), tied_output=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def params():
    return oracle.random_params(lambda key: init_params(CONFIG, key), scale=0.5)


def leaves(tree):
    return {jax.tree_util.keystr(k): x for k, x in jax.tree_util.tree_leaves_with_path(tree)}


def test_a_kernel_is_rounded_to_whole_numbers_by_column(params):
    before, after = leaves(params), leaves(convert(params, "int8"))
    kernels = [name for name, x in after.items() if x.dtype == jnp.int8]
    assert len(kernels) == len([n for n in before if "['stack']" in n and "['kernel']" in n])
    for name in kernels:
        kernel, q = np.asarray(before[name]), np.asarray(after[name], np.float64)
        scale = np.abs(kernel).max(1) / 127  # (n, n_out)
        np.testing.assert_allclose(
            after[name.replace("kernel", "scale")], scale, rtol=1e-6, err_msg=name
        )
        assert np.abs(q).max() == 127
        assert (np.abs(q * scale[:, None] - kernel) <= 0.5001 * scale[:, None]).all()


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_all_but_the_matrices_of_stacks_is_kept(params, weights):
    before, after = leaves(params), leaves(convert(params, weights))
    for name, x in before.items():
        if not ("['stack']" in name and "['kernel']" in name):
            np.testing.assert_array_equal(x, after[name], err_msg=name)
        elif weights != "int8":
            assert after[name].dtype == weights


def test_a_column_of_zeros_stays_zero():
    kernel = {"kernel": jnp.zeros((1, 3, 2)), "bias": jnp.ones((1, 2))}
    held = convert({"stack": {"run_0": kernel}}, "int8")["stack"]["run_0"]
    one = jax.tree.map(lambda x: x[0], held)
    np.testing.assert_array_equal(dense(one, jnp.ones((1, 3))), np.ones((1, 2)))


def test_a_product_is_scaled_before_it_is_rounded_to_bfloat16():
    rng = np.random.default_rng(0)
    kernel, x = rng.normal(size=(1, 64, 32)), jnp.asarray(rng.normal(size=(5, 64)), jnp.bfloat16)
    p = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.zeros((1, 32))}
    held = convert({"stack": p}, "int8")["stack"]
    one = jax.tree.map(lambda x: x[0], held)
    wanted = np.asarray(x, np.float64) @ (np.float64(one["kernel"]) * np.float64(one["scale"]))
    found = np.asarray(dense(one, x), np.float64)
    np.testing.assert_allclose(found, wanted, rtol=2**-8, atol=1e-3)


def test_decoding_draws_from_the_same_weights_as_the_forward_pass():
    config = dataclasses.replace(CONFIG, lyrics=None, labels=None, attn_order=2, depth=3)
    params = oracle.random_params(lambda key: init_params(config, key), scale=0.5)
    held, batch = convert(params, "int8"), example_batch(config, 2)
    u = np.asarray(jax.random.uniform(jax.random.key(1), (2, 16)))
    codes = windows.filled(config, held, batch, u, 0, 16, Control(jnp.ones((2, 1)))).tokens
    logits = Prior(config).apply({"params": held}, batch | {"codes": codes})[0]
    sums = np.cumsum(jax.nn.softmax(logits), -1)
    low = np.take_along_axis(np.pad(sums, ((0, 0), (0, 0), (1, 0))), codes[..., None], 2)[..., 0]
    high = np.take_along_axis(sums, np.asarray(codes)[..., None], 2)[..., 0]
    assert ((low - 1e-4 <= u) & (u <= high + 1e-4)).all()


def test_memory_counts_what_is_held(params):
    mesh = make_mesh(MeshConfig())
    plain = level_memory(CONFIG, mesh, 1)
    small = level_memory(CONFIG, mesh, 1, "int8")
    shapes = nn.unbox(jax.eval_shape(lambda key: init_params(CONFIG, key), jax.random.key(0)))
    held = jax.eval_shape(lambda p: convert(p, "int8"), shapes)
    assert small.weights == sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(held))
    assert (plain.loading, small.loading) == (0, plain.weights)
    assert small.read < plain.read
    assert small.peak >= small.weights + plain.weights  # while it is being loaded


def test_an_unknown_format_is_an_error():
    with pytest.raises(ConfigError, match="one of float32, bfloat16, int8"):
        Job(items=(Item(),), weights="int4")
    job = Job(items=(Item(),))
    assert dataclasses.replace(job, weights="int8") != job  # so it is another job to a directory
