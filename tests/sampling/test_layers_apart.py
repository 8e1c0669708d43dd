import jax
import numpy as np
import oracle
import pytest
import windows

from jukejax.config import LabelsConfig, LyricsConfig, PriorConfig
from jukejax.models.prior import example_batch, init_params
from jukejax.sampling import loop
from jukejax.sampling.draw import Control
from jukejax.sampling.weights import convert

LYRICS = LyricsConfig(tokens=8, width=16, depth=1, heads=1, attn_order=0, blocks=1)
CONFIG = PriorConfig(
    n_ctx=16, width=16, depth=8, heads=2, blocks=4, attn_order=6, codes=11, init_scale=9.0,
    attn_ratio=1.0, labels=LabelsConfig(artists=3, genres=3), lyrics=LYRICS,
)  # fmt: skip
U = np.random.default_rng(0).random((2, 16), np.float32)


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_layers_as_arrays_of_their_own_draw_the_same_tokens(weights):
    params = oracle.random_params(lambda key: init_params(CONFIG, key), scale=0.5)
    params, batch = convert(params, weights), jax.tree.map(np.array, example_batch(CONFIG, 2))

    def drawn(**options):
        control = Control(np.float32(20))
        return windows.filled(CONFIG, params, batch, U, 3, 16, control, **options)

    scanned = drawn()
    apart = drawn(large=0)
    np.testing.assert_array_equal(apart.tokens, scanned.tokens)
    assert len(np.unique(apart.tokens[:, 3:])) > 4
    for one, other in zip(jax.tree.leaves(apart), jax.tree.leaves(scanned), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_layers_of_their_own_are_views_and_only_large_ones_on_one_cpu():
    params = oracle.random_params(lambda key: init_params(CONFIG, key))
    mesh, params = windows.on_one_device(params)
    kernels = params["stack"]["run_0"]["layer_0"]["mlp_in"]["kernel"]  # (2, 16, 16)
    assert isinstance(loop.apart(mesh, params)["stack"]["run_0"], dict)
    first, second = loop.apart(mesh, params, large=0)["stack"]["run_0"]
    for i, one in enumerate((first, second)):
        kernel = one["layer_0"]["mlp_in"]["kernel"]
        np.testing.assert_array_equal(kernel, kernels[i])
        assert kernel.unsafe_buffer_pointer() == kernels.unsafe_buffer_pointer() + i * 16 * 16 * 4
    eight = loop.Mesh(np.array(jax.devices()).reshape(1, 8, 1), ("data", "fsdp", "tensor"))
    assert loop.apart(eight, params, large=0) is params
