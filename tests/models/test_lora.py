"""LoRA: merged weights are the unmerged sum, and new adapters change nothing."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from jukejax.config import LabelsConfig, LyricsConfig, PriorConfig
from jukejax.models import lora, prior
from jukejax.models.dense import dense

CONFIG = PriorConfig(
    level=2, hop=16, sample_rate=8000, codes=11, n_ctx=16, width=8, depth=4, heads=2, blocks=4,
    attn_ratio=0.5, attn_order=6, labels=LabelsConfig(artists=3, genres=3, timing_bins=5),
    lyrics=LyricsConfig(tokens=8, width=8, depth=2, heads=2, blocks=4),
)  # fmt: skip
RANK = 2


def random(config):
    """Random parameters of a prior, adapters and a batch."""
    init = functools.partial(prior.init_params, config)
    shapes = nn.unbox(jax.eval_shape(init, jax.random.key(0)))
    params = oracle.random_params(lambda key: shapes, scale=0.3)
    adapters = lora.init(jax.random.key(1), params, RANK)
    rng = np.random.default_rng(2)
    batch = {
        name: rng.integers(0, 3, x.shape).astype(np.int32)
        for name, x in prior.example_batch(config, 2).items()
    }
    return params, adapters, batch


def bits(config, params, batch):
    return np.asarray(jax.jit(functools.partial(prior.token_bits, config))(params, batch)["music"])


@pytest.fixture(scope="module", params=["plain", "tuned"])
def case(request):
    config = dataclasses.replace(CONFIG, layers=request.param)
    return config, *random(config)


def test_new_adapters_change_no_bit(case):
    config, params, adapters, batch = case
    before = bits(config, params, batch)
    np.testing.assert_array_equal(bits(config, lora.beside(params, adapters), batch), before)


def test_merged_weights_give_what_adapters_beside_them_give(case):
    config, params, adapters, batch = case
    adapters = jax.tree.map(
        lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size).reshape(x.shape)), adapters
    )
    beside = bits(config, lora.beside(params, adapters), batch)
    merged = lora.into(params, adapters)
    assert jax.tree.map(jnp.shape, merged) == jax.tree.map(jnp.shape, params)
    np.testing.assert_allclose(bits(config, merged, batch), beside, rtol=2e-5, atol=2e-6)
    assert abs(beside - bits(config, params, batch)).max() > 0.05


def test_a_layer_multiplies_with_the_sum():
    rng = np.random.default_rng(0)
    w, a, b, bias, x = (rng.normal(size=s) for s in ((5, 7), (5, 2), (2, 7), (7,), (3, 5)))
    p = {"kernel": w, "bias": bias, "lora": {"a": a, "b": b}}
    p = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), p)
    y = dense(lora.merged(p), jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(y, x @ w + (x @ a) @ b + bias, rtol=1e-5, atol=1e-5)


def test_every_kernel_of_a_stack_has_an_adapter_and_nothing_else_has(case):
    _, params, adapters, _ = case
    paths = {jax.tree_util.keystr(keys, simple=True, separator="/") for keys, _ in
             jax.tree_util.tree_leaves_with_path(params)}  # fmt: skip
    kernels = {path for path in paths if "stack/" in path and path.endswith("/kernel")}
    found = {jax.tree_util.keystr(keys, simple=True, separator="/") for keys, _ in
             jax.tree_util.tree_leaves_with_path(adapters)}  # fmt: skip
    wanted = {f"{path.removesuffix('kernel')}{x}" for path in kernels for x in "ab"}
    assert found == wanted | {"labels/artist", "labels/genre"}
    assert any("lyric_encoder" in path for path in kernels) and any(
        "encoder_kv" in p for p in kernels
    )
