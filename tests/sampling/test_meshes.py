"""Sampling over devices: one song's maths split by `tensor`, many songs by `data`, both at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import windows

from jukejax.config import MeshConfig, PriorConfig, UpperConfig
from jukejax.models.prior import init_params
from jukejax.parallel.mesh import local_bytes, make_mesh, storage_shardings
from jukejax.sampling.cascade import Sampler, begin, by_chain, sample_level, window_batch
from jukejax.sampling.draw import Control
from jukejax.sampling.loop import make_loop
from jukejax.sampling.plan import plan_rounds
from jukejax.sampling.weights import convert, converted

T, CODES, RATIO, TOTAL, TEMPERATURE, SEED, SONGS = 16, 12, 4, 44, 12.0, 9, 4
CONFIG = PriorConfig(
    n_ctx=T, hop=10, sample_rate=100, width=16, blocks=4, codes=CODES, heads=2, attn_ratio=0.5,
    depth=3, attn_order=2, level=1, upper=UpperConfig(ratio=RATIO, width=4, depth=1),
    layers="tuned",
)  # fmt: skip
PLANS = {chains: plan_rounds(TOTAL, T, 0.5, RATIO, 0, chains) for chains in (1, 2)}
UPPER = np.random.default_rng(0).integers(0, CODES, (SONGS, TOTAL // RATIO)).astype(np.int32)
MESHES = {
    "data": MeshConfig(data=4, tensor=2),  # a song each, on two devices
    "tensor": MeshConfig(data=1, tensor=8),  # one stream over all
    "mixed": MeshConfig(data=2, fsdp=2, tensor=2),
    "undivided": MeshConfig(data=8),  # four songs do not divide it: each device has all
}


def nothing(offset):
    return {}


@pytest.fixture(scope="module")
def weights():
    return oracle.random_params(lambda key: init_params(CONFIG, key), scale=0.5)


def placed(mesh, weights):
    boxed = jax.eval_shape(lambda key: init_params(CONFIG, key), jax.random.key(0))
    return jax.device_put(weights, storage_shardings(mesh, boxed))


@pytest.fixture(scope="module")
def sample(weights):
    """(mesh, songs, progress, chains) -> progress after every token, of songs in one batch."""

    @functools.cache
    def begun(name, count, chains):
        mesh = make_mesh(MESHES[name]) if name else windows.on_one_device({})[0]
        params = placed(mesh, weights)
        control = by_chain(Control(jnp.float32(TEMPERATURE)), count, chains)
        loop = make_loop(CONFIG, mesh, params, count * chains, control, chains)
        return loop, loop.place(params), control

    def sample(name, songs=slice(0, SONGS), progress=None, chains=1):
        items = np.arange(SONGS)[songs]
        loop, params, control = begun(name, len(items), chains)
        sampler = Sampler(CONFIG, loop, params, PLANS[chains], nothing, SEED, items, control)
        empty = begin(np.zeros((len(items), TOTAL), np.int32))
        steps = sample_level(sampler, progress or empty, UPPER[songs], 0.0)
        return [p._replace(codes=p.codes.copy()) for p in steps]

    return sample


@pytest.fixture(scope="module")
def alone(sample):
    """Codes of all songs in one batch on one device."""
    return sample("")[-1].codes


def assert_same_but_for_rounding(weights, item, one, other, chains=1):
    upper = UPPER[[item]]
    return windows.assert_differs_by_rounding_alone(
        CONFIG, weights, lambda w, codes: window_batch(CONFIG, w, codes, upper, nothing),
        PLANS[chains].windows, SEED, item, TEMPERATURE, one, other,
    )  # fmt: skip


@pytest.mark.parametrize("name", MESHES)
def test_a_mesh_changes_codes_by_rounding_alone_and_kills_change_none(sample, alone, weights, name):
    steps = sample(name)
    whole = steps[-1].codes
    assert len(np.unique(whole)) > 4
    for item in range(SONGS):
        assert_same_but_for_rounding(weights, item, whole[item], alone[item])
    for stopped in steps[5:-1:9]:  # inside windows and between them
        np.testing.assert_array_equal(sample(name, progress=stopped)[-1].codes, whole)


@pytest.mark.parametrize("name", [pytest.param("data", marks=pytest.mark.slow), "mixed"])
def test_chains_are_split_as_songs_are(sample, weights, name):
    """Two songs of two chains; as in a song of one chain, the first chain's first window."""
    songs = slice(0, 2)
    one = sample("", songs, chains=2)[-1].codes
    steps = sample(name, songs, chains=2)
    for item in (0, 1):
        assert_same_but_for_rounding(weights, item, steps[-1].codes[item], one[item], chains=2)
    for stopped in steps[5:-1:9]:
        again = sample(name, songs, stopped, chains=2)
        np.testing.assert_array_equal(again[-1].codes, steps[-1].codes)


@pytest.mark.parametrize("name", ["", "mixed"])
def test_a_batch_cut_in_parts_differs_by_rounding_alone(sample, alone, weights, name):
    for songs in (slice(0, 3), slice(3, 4)):
        codes = sample(name, songs)[-1].codes
        for item, one in zip(range(SONGS)[songs], codes, strict=True):
            assert_same_but_for_rounding(weights, item, one, alone[item])


def test_another_token_is_distinguished_from_rounding(alone, weights):
    for place in (0, 20, TOTAL - 1):  # in windows with nothing, and with something before
        wrong = alone[1].copy()
        wrong[place] = (wrong[place] + 1) % CODES
        with pytest.raises(AssertionError, match=f"position {place}: tokens"):
            assert_same_but_for_rounding(weights, 1, wrong, alone[1])
    assert assert_same_but_for_rounding(weights, 1, alone[1], alone[1]) is None


@pytest.mark.parametrize("fmt", ["bfloat16", "int8"])
def test_converted_weights_stay_split(weights, fmt):
    params = placed(make_mesh(MESHES["mixed"]), weights)
    wanted = converted(params, fmt)
    found = convert(params, fmt)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for x, shape in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert (x.shape, x.dtype) == (shape.shape, shape.dtype)
        assert x.sharding.is_equivalent_to(shape.sharding, x.ndim)
    stack = found["stack"]
    assert local_bytes(stack) < 0.5 * sum(x.nbytes for x in jax.tree.leaves(stack))


def test_caches_and_batches_are_split(weights):
    mesh = make_mesh(MESHES["data"])
    params = placed(mesh, weights)
    loop = make_loop(CONFIG, mesh, params, SONGS, Control(jnp.float32(1)))
    batch = window_batch(CONFIG, PLANS[1].windows[0], np.zeros((SONGS, TOTAL), int), UPPER, nothing)
    stream = loop.start(loop.place(params), batch, 0)
    for x in jax.tree.leaves(stream.caches):
        assert x.addressable_shards[0].data.size == x.size // 8
    assert stream.tokens.addressable_shards[0].data.shape == (1, T)
