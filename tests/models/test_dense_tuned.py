"""Tuned dense layers against definitions and plain layers: forward and gradient, on meshes."""

import dataclasses
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

from jukejax.config import LabelsConfig, LyricsConfig, MeshConfig, PriorConfig
from jukejax.models import dense, dense_tuned
from jukejax.models.prior import example_batch, init_params, token_bits
from jukejax.parallel.mesh import BATCH, COMPUTE, make_mesh, storage_shardings


def tensors(rng, n_in, n_out):
    """Of a norm and of a dense layer."""
    norm = {"scale": rng.normal(size=n_in) + 1.0, "bias": rng.normal(size=n_in)}
    p = {"kernel": rng.normal(size=(n_in, n_out)), "bias": rng.normal(size=n_out)}
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (norm, p))


def defined(norm, p, x):
    y = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return (y * norm["scale"] + norm["bias"]) @ p["kernel"] + p["bias"]


def plain(norm, p, x):
    return dense.normed_dense(norm, p, x, dense.QKV)


def tuned(norm, p, x):
    return dense_tuned.normed_dense(norm, dense_tuned.absorb(norm, p, x.dtype), x, dense.QKV)


def assert_close(found, wanted, tolerance):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            np.asarray(a, np.float64), b, rtol=tolerance, atol=tolerance * np.abs(b).max()
        ),
        found,
        wanted,
    )


@pytest.mark.parametrize("mean", [0.0, 3.0])
@pytest.mark.parametrize("function", [plain, tuned])
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

    assert_close(found(tuned, jnp.bfloat16), found(defined, jnp.float32), 0.02)


@pytest.mark.parametrize("mesh", [(1, 8, 1), (2, 2, 2), (4, 2, 1)], ids=str)
def test_gradients_on_a_mesh_are_sharded_as_kernels_are_stored(mesh):
    rng = np.random.default_rng(0)
    data, fsdp, tensor = mesh
    norm, wide = tensors(rng, 24, 8)
    _, narrow = tensors(rng, 8, 24)
    x = jnp.asarray(rng.normal(size=(16, 5, 24)), jnp.float32)

    def loss(f, wide, narrow, x):
        h = jnp.sin(f(norm, wide, x))
        narrow = dense_tuned.Kernel(**narrow, axes=dense.NARROW)
        return jnp.sum(jnp.sin(x + dense_tuned.dense(narrow, h)))

    wanted = jax.value_and_grad(partial(loss, defined), (0, 1, 2))(wide, narrow, x)
    mesh = make_mesh(MeshConfig(data=data, fsdp=fsdp, tensor=tensor))
    x = jax.device_put(x, NamedSharding(mesh, P(BATCH)))
    with jax.set_mesh(mesh), nn.logical_axis_rules(list(COMPUTE)):
        step = jax.jit(jax.value_and_grad(partial(loss, tuned), (0, 1, 2)))
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


# --- whole priors ---------------------------------------------------------------------------------

B, T, E, CODES = 8, 16, 8, 13
BASE = {
    "n_ctx": T, "width": 16, "heads": 2, "blocks": 4, "codes": CODES, "attn_ratio": 0.5,
    "labels": LabelsConfig(artists=5, genres=4, max_genres=2, timing_bins=5),
}  # fmt: skip
STACKS = {
    "dense": PriorConfig(**BASE, attn_order=0, depth=2, scale_residual=True),
    "cross": PriorConfig(
        **BASE, attn_order=6, depth=4,
        lyrics=LyricsConfig(tokens=E, width=8, depth=1, heads=2, attn_order=0, blocks=1),
    ),
    "prefix": PriorConfig(
        **BASE, attn_order=12, depth=16, lyrics=LyricsConfig(tokens=E, alphabet="v3", prefix=True)
    ),
}  # fmt: skip
MESHES = {"data": (8, 1, 1), "fsdp": (1, 8, 1), "tensor": (2, 2, 2)}


def run(config, layers, mesh, params, batch):
    """Loss, bits of each token and gradients, on a mesh of devices (None: one device)."""
    config = dataclasses.replace(config, layers=layers)

    def loss(params, batch):
        bits = token_bits(config, params, batch)  # one forward pass: forward and loss
        return sum(x.mean() for x in bits.values()), bits

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    if mesh is None:
        return step(params, batch)
    mesh = make_mesh(MeshConfig(*MESHES[mesh]))
    stored = storage_shardings(
        mesh, jax.eval_shape(partial(init_params, config), jax.random.key(0))
    )
    params = jax.device_put(params, stored)
    batch = jax.device_put(batch, NamedSharding(mesh, P(BATCH)))
    with jax.set_mesh(mesh), nn.logical_axis_rules(list(COMPUTE)):
        return step(params, batch)


@pytest.fixture(scope="module", params=STACKS)
def plain_run(request):
    """config, parameters, batch, and what the plain layers compute of them on one device."""
    config = STACKS[request.param]
    params = oracle.random_params(partial(init_params, config))
    rng = np.random.default_rng(0)
    batch = {
        name: rng.integers(0, 4, x.shape).astype(np.int32)
        for name, x in example_batch(config, B).items()
    }
    batch["codes"] = rng.integers(0, CODES, (B, T)).astype(np.int32)
    return config, params, batch, run(config, "plain", None, params, batch)


@pytest.mark.parametrize("mesh", [None, *MESHES])
def test_tuned_layers_are_the_plain_ones(plain_run, mesh):
    config, params, batch, wanted = plain_run
    for layers in ("tuned",) if mesh is None else ("plain", "tuned"):
        assert_close(run(config, layers, mesh, params, batch), wanted, 1e-5)
