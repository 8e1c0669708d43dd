"""Meshes: sizes, where parameters are born, how batches are split."""

from dataclasses import dataclass

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jukejax.config import (
    ConfigError,
    LabelsConfig,
    LyricsConfig,
    MeshConfig,
    PriorConfig,
    TrainConfig,
    UpperConfig,
)
from jukejax.models import dense, layers, prior
from jukejax.parallel.mesh import (
    check_batch,
    create_sharded,
    make_mesh,
    put_batch,
    storage_shardings,
)


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (MeshConfig(), (8, 1, 1)),
        (MeshConfig(data=8), (8, 1, 1)),
        (MeshConfig(data=1, fsdp=-1), (1, 8, 1)),
        (MeshConfig(data=-1, tensor=2), (4, 1, 2)),
        (MeshConfig(data=2, fsdp=2, tensor=2), (2, 2, 2)),
        (MeshConfig(data=2, fsdp=2, tensor=-1), (2, 2, 2)),
    ],
)
def test_sizes(config, shape):
    assert tuple(make_mesh(config).shape.items()) == tuple(
        zip(("data", "fsdp", "tensor"), shape, strict=True)
    )


def test_one_device_is_a_mesh_of_one():
    assert make_mesh(MeshConfig(), jax.devices()[:1]).size == 1


@pytest.mark.parametrize(
    "config",
    [
        MeshConfig(data=3),
        MeshConfig(data=4, fsdp=4),
        MeshConfig(data=1),
        MeshConfig(data=-1, fsdp=3),
        MeshConfig(data=-1, fsdp=-1),
        MeshConfig(data=-1, fsdp=16),
    ],
)
def test_sizes_that_do_not_multiply(config):
    with pytest.raises(ConfigError, match="does not fit 8 devices"):
        make_mesh(config)


@dataclass(frozen=True)
class Chip:
    """A device of a slice, as far as meshes look at it."""

    id: int
    slice_index: int
    process_index: int = 0
    platform: str = "cpu"
    device_kind: str = "cpu"


def test_slices_lie_along_data():
    # a group of fsdp or tensor never crosses the slow network between slices
    chips = [Chip(i, slice_index=i % 2) for i in range(8)]
    for config in (MeshConfig(fsdp=4), MeshConfig(fsdp=2), MeshConfig(fsdp=2, tensor=2)):
        grid = make_mesh(config, chips).devices
        half = grid.shape[0] // 2
        for part in (grid[:half], grid[half:]):
            assert len({chip.slice_index for chip in part.flat}) == 1
        assert {chip.id for chip in grid.flat} == set(range(8))


def test_slices_that_do_not_divide_data():
    chips = [Chip(i, slice_index=i // 4) for i in range(8)]
    with pytest.raises(ConfigError, match=r"2 slices do not divide mesh\.data 1"):
        make_mesh(MeshConfig(fsdp=8), chips)


def test_create_sharded_stores_by_the_table():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))

    def init(key):
        return {
            "wide": dense.dense_params(8, 12, 0.1, ("embed", "inner"))(key),
            "narrow": dense.dense_params(12, 8, 0.1, ("inner", "embed"))(key),
            "artists": layers.table(4111, 8, 0.1)(key),
            "position": layers.table(16, 8, 0.1, "position")(key),
            "odd": dense.dense_params(7, 4, 0.1, ("embed", "inner"))(key),
            "conv": layers.conv_params(3, 4, 4)(key),
        }

    tree = create_sharded(mesh, init, jax.random.key(0))
    expected = {
        "wide": {"kernel": P("fsdp", "tensor"), "bias": P("tensor")},
        "narrow": {"kernel": P("tensor", "fsdp"), "bias": P("fsdp")},
        "artists": P(None, "fsdp"),  # 4111 rows are odd
        "position": P(None, "fsdp"),
        "odd": {"kernel": P(None, "tensor"), "bias": P("tensor")},
        "conv": {"kernel": P(), "bias": P()},
    }

    def check(x, spec):
        shard = [
            size // (2 if axis else 1)
            for size, axis in zip(x.shape, tuple(spec) + (None,) * x.ndim, strict=False)
        ]
        assert x.addressable_shards[0].data.shape == tuple(shard)
        assert x.sharding.is_equivalent_to(jax.sharding.NamedSharding(mesh, spec), x.ndim)

    jax.tree.map(check, tree, expected)
    alone = create_sharded(make_mesh(MeshConfig(), jax.devices()[:1]), init, jax.random.key(0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), tree, alone)


def test_every_large_parameter_of_a_prior_is_split():
    config = PriorConfig(
        n_ctx=16, width=16, depth=4, blocks=4, attn_ratio=0.5, codes=32, attn_order=6,
        labels=LabelsConfig(artists=4111, genres=6),
        lyrics=LyricsConfig(tokens=8, width=16, depth=2, blocks=4),
        upper=UpperConfig(width=16, depth=2), tied_output=False,
    )  # fmt: skip
    mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    shapes = jax.eval_shape(lambda key: prior.init_params(config, key), jax.random.key(0))
    shardings = storage_shardings(mesh, shapes)
    for path, sharding in jax.tree_util.tree_leaves_with_path(shardings):
        name = jax.tree_util.keystr(path)
        axes = set(sharding.spec)
        if "kernel" in name and "convolutions" not in name and "project" not in name:
            assert {"fsdp", "tensor"} <= axes, name
        if "token" in name or "artist" in name or "position" in name:
            assert "fsdp" in axes, name
    stack = shardings["stack"]["run_0"]["layer_3"]
    assert stack["qkv"]["kernel"].spec == P(None, "fsdp", "tensor")
    assert stack["mlp_out"]["kernel"].spec == P(None, "tensor", "fsdp")
    assert stack["encoder_kv"]["kernel"].spec == P(None, "fsdp", "tensor")
    assert shardings["output"].spec == P("fsdp", "tensor")


def test_put_batch_splits_over_data_and_fsdp():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    batch = {"audio": np.arange(16.0).reshape(8, 2), "artist": np.arange(8)}
    put = put_batch(mesh, batch)
    for name, array in put.items():
        np.testing.assert_array_equal(array, batch[name])
        shards = {tuple(np.asarray(s.data).ravel()) for s in array.addressable_shards}
        assert len(shards) == 4
        assert {s.data.shape[0] for s in array.addressable_shards} == {2}


def test_a_batch_that_devices_cannot_share_is_refused():
    mesh = make_mesh(MeshConfig(data=4, tensor=2))
    check_batch(mesh, TrainConfig(batch=8))
    with pytest.raises(ConfigError, match=r"splits a batch 4 ways .* multiple of 4\."):
        check_batch(mesh, TrainConfig(batch=6))
    with pytest.raises(
        ConfigError, match=r"in 6 parts \(train.accumulate\); give a multiple of 48"
    ):
        check_batch(make_mesh(MeshConfig()), TrainConfig(batch=24, accumulate=6))
