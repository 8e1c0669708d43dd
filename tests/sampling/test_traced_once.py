"""The compiled loop: traced once for all batches of the same shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import windows

from jukejax.config import PriorConfig
from jukejax.models.prior import init_params
from jukejax.sampling import decode, inside
from jukejax.sampling.draw import Control
from jukejax.sampling.loop import make_loop

CONFIG = PriorConfig(
    n_ctx=16, hop=10, sample_rate=100, width=8, blocks=4, codes=7, heads=2, depth=2, attn_order=0
)


def test_the_same_shapes_are_traced_once(monkeypatch):
    traced = []

    def prefill(*arguments, was=decode.prefill):
        traced.append(arguments)
        return was(*arguments)

    monkeypatch.setattr(decode, "prefill", prefill)
    params = oracle.random_params(lambda key: init_params(CONFIG, key))
    mesh, params = windows.on_one_device(params)
    batch = {"codes": np.zeros((2, 16), np.int32)}

    def fill(params, temperature):
        control = Control(jnp.float32(temperature))
        loop = make_loop(CONFIG, mesh, params, 2, control)
        params = loop.place(params)
        stream = loop.start(params, batch, 0)
        return loop.fill(params, stream, jnp.full((2, 16), 0.5), 0, 16, control, 0)

    cold = fill(params, 0.01).tokens
    count = len(traced)
    assert count
    other = jax.tree.map(lambda x: -x, params)
    assert (fill(other, 3.0).tokens != cold).any()  # another model's weights, drawn another way
    assert len(traced) == count
    make_loop(CONFIG, mesh, params, 3, Control(jnp.float32(1)))
    assert len(traced) > count


def test_a_reader_is_traced_once(monkeypatch):
    traced = []

    def collected(*arguments, was=inside.collected):
        traced.append(arguments)
        return was(*arguments)

    monkeypatch.setattr(inside, "collected", collected)
    params = oracle.random_params(lambda key: init_params(CONFIG, key))
    mesh, params = windows.on_one_device(params)
    batch = {"codes": np.zeros((2, 16), np.int32)}
    first = inside.make_reader(CONFIG, params, mesh, "mean")(batch)
    other = jax.tree.map(lambda x: -x, params)
    again = inside.make_reader(CONFIG, other, mesh, "mean")(batch)
    assert len(traced) == 1 and not np.array_equal(first[0], again[0])
