"""Bytes of sampling from shapes, against what XLA says of the compiled programs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jukejax import presets
from jukejax.config import LabelsConfig, LyricsConfig, MeshConfig, PriorConfig, UpperConfig
from jukejax.models.prior import example_batch, init_params
from jukejax.parallel.mesh import make_mesh, replicated
from jukejax.sampling import loop, making
from jukejax.sampling.decode import prefill
from jukejax.sampling.draw import Control
from jukejax.sampling.memory import bandwidth, free_memory, level_memory

BASE = {"n_ctx": 256, "blocks": 16, "width": 64, "codes": 50, "heads": 2, "attn_ratio": 0.5}
CONFIGS = {
    "dense": PriorConfig(**BASE, depth=4, attn_order=0),
    "upsampler": PriorConfig(
        **BASE, level=1, depth=6, attn_order=2, upper=UpperConfig(width=8, depth=1)
    ),
    "encoder": PriorConfig(
        **BASE, depth=10, attn_order=8,
        lyrics=LyricsConfig(tokens=32, width=16, depth=2, heads=1, blocks=4),
        labels=LabelsConfig(artists=4, genres=3, max_genres=2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_estimates_are_near_what_is_compiled(name):
    config, batch = CONFIGS[name], 3
    memory = level_memory(config, make_mesh(MeshConfig(), jax.devices()[:1]), batch)
    params = nn.unbox(jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0)))
    inputs = jax.eval_shape(lambda: example_batch(config, batch))
    scalar = jax.ShapeDtypeStruct((), jnp.int32)
    compiled = jax.jit(prefill, static_argnums=0).lower(config, params, inputs, scalar).compile()
    first = compiled.memory_analysis()
    assert memory.weights == sum(x.size * 4 for x in jax.tree.leaves(params))
    assert memory.caches == pytest.approx(first.output_size_in_bytes, rel=0.02)
    # scratch is XLA's choice: near, and not far below
    assert 0.5 < memory.prefill / first.temp_size_in_bytes < 3
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    placed = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), params
    )
    control = Control(jax.ShapeDtypeStruct((batch, 1), jnp.float32))
    arguments = loop.abstract_arguments(config, mesh, placed, batch, control)
    compiled = loop.lower(config, mesh, arguments).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < memory.prefill + memory.caches


def test_a_published_prior_is_estimated_without_its_weights():
    memory = level_memory(presets.get("prior_5b_lyrics").model, make_mesh(MeshConfig()), 1)
    assert memory.weights == 4 * 5_640_506_800
    assert 0.9 < memory.read / memory.weights < 1


def test_the_machine_is_measured():
    assert 1e8 < bandwidth(8) < 1e14
    assert free_memory() > 2**20


def test_priors_that_alignments_need_are_in_memory_one_at_a_time():
    priors, loaded = {}, []

    def load(level):
        assert not priors  # the last one's arrays are free
        loaded.append(level)
        return f"prior {level}"

    for level in (2, 2, 1, 0, 1):
        assert making.resident(priors, level, load, stream=False) == f"prior {level}"
        assert list(priors) == [level]
    assert loaded == [2, 1, 0, 1]
    making.resident(priors, 2, lambda level: "both", stream=True)
    assert sorted(priors) == [1, 2]
