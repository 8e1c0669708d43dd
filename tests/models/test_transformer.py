"""The scanned stack against layers written out in float64, its reach, and rematerialisation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from jukejax.config import LAYERS, REMATS, LyricsConfig, PriorConfig
from jukejax.models.transformer import Stack

R, C, P, D, X, Y = "row", "column", "previous_row", "dense", "cross", "prime"
ROWS, COLUMNS, WIDTH, PREFIX = 4, 3, 8, 4
T, E = ROWS * COLUMNS, 5

# order -> every layer's pattern; one order a kind of special layer
ORDERS = {
    0: [D] * 3,
    2: [R, C, P, R, C],
    6: [R, C, P, X] * 2,
    9: [R, C, P, D],
    10: [R, C, P] * 6 + [X, R],
    12: [R, C, P] * 5 + [Y, C],
}


def config(order, **changes):
    lyrics = {6: LyricsConfig(tokens=E), 10: LyricsConfig(tokens=E)}
    lyrics[12] = LyricsConfig(tokens=PREFIX, prefix=True)
    return PriorConfig(
        n_ctx=T - (PREFIX if order == 12 else 0), width=WIDTH, attn_ratio=0.5,
        depth=len(ORDERS[order]), heads=2, blocks=ROWS, attn_order=order, init_scale=1.0,
        lyrics=lyrics.get(order), **changes,
    )  # fmt: skip


def inputs(seed=0):
    """x (B, T, W) and lyric states (B, E, W), B = 1 + T + E.

    Copy 1 + j differs from copy 0 at position j of x, copy 1 + T + j at lyric state j.
    """
    rng = np.random.default_rng(seed)
    x, encoded = (
        np.repeat(rng.normal(size=(1, n, WIDTH)).astype(np.float32), 1 + T + E, 0) for n in (T, E)
    )
    x[1 + np.arange(T), np.arange(T)] += rng.normal(size=(T, WIDTH))
    encoded[1 + T + np.arange(E), np.arange(E)] += rng.normal(size=(E, WIDTH))
    return x, encoded


@pytest.fixture(
    scope="module", params=[(order, x) for x in LAYERS for order in (2, 6, 9, 10, 12)], ids=str
)
def case(request):
    """(order, config, parameters, inputs, (output, keys and values)) of a stack of each order."""
    order, layers = request.param
    c = config(order, layers=layers, scale_residual=order == 9)
    stack, (x, encoded) = Stack(c), inputs()
    encoded = encoded if X in ORDERS[order] else None
    params = oracle.random_params(lambda key: stack.init(key, x, encoded)["params"])
    apply = jax.jit(lambda p, x, e: stack.apply({"params": p}, x, e, "kv"))
    return order, c, params, (x, encoded), apply(params, x, encoded)


def test_stack_is_its_layers_in_order(case):
    order, c, params, (x, encoded), (out, kept) = case
    layers = oracle.unrolled(params, c.runs)
    assert [pattern for pattern, _ in layers] == ORDERS[order]
    visible = 8 if order == 12 else 0  # (4 // 4 + 1) * 4
    expected, keys_values = oracle.stack(layers, x, 2, ROWS, visible, encoded, c.residual)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
    at = iter(keys_values)
    for (repeats, patterns), run in zip(c.runs, kept, strict=True):
        for r in range(repeats):
            for i in range(len(patterns)):
                for found, wanted in zip(run[i], next(at), strict=True):
                    np.testing.assert_allclose(found[r], wanted, rtol=1e-4, atol=1e-4)


def test_reach_is_the_product_of_the_masks(case):
    order, _, _, _, (out, _) = case
    out = np.asarray(out)
    changed = (out[1 : 1 + T] != out[:1]).any(-1)  # (j, p)
    reach = np.eye(T, dtype=bool)
    for pattern in ORDERS[order]:
        if pattern != X:
            reach = (np.eye(T, dtype=bool) | oracle.mask(pattern, ROWS, COLUMNS, 8)) @ reach
    np.testing.assert_array_equal(changed.T, reach)
    assert not np.triu(reach, 1).any()


def test_lyrics_reach_every_position_through_cross_layers_alone(case):
    order, _, _, _, (out, _) = case
    changed = np.asarray(out[1 + T :] != out[:1]).any(-1)  # (E, T)
    assert (changed == (X in ORDERS[order])).all()


@pytest.fixture(scope="module")
def born():
    """Parameters of a new stack with cross-attention, a dict by layer of its one run."""
    stack, (x, encoded) = Stack(config(6)), inputs()
    params = jax.jit(stack.init)(jax.random.key(0), x, encoded)["params"]
    return jax.tree.map(np.asarray, nn.unbox(params))["run_0"]


def test_new_lyric_layers_are_the_identity(born):
    for name in ("attn_out", "mlp_out"):
        assert not born["layer_3"][name]["kernel"].any()
        assert all(born[f"layer_{i}"][name]["kernel"].any() for i in range(3))
    assert born["layer_3"]["qkv"]["kernel"].shape == (2, WIDTH, 4)
    assert born["layer_3"]["encoder_kv"]["kernel"].shape == (2, WIDTH, 8)


def test_layers_of_a_run_begin_with_different_numbers(born):
    kernel = born["layer_0"]["qkv"]["kernel"]
    assert kernel.shape == (2, WIDTH, 12)
    assert (kernel[0] != kernel[1]).all()
    assert kernel.std() == pytest.approx(0.02, rel=0.2)


@pytest.fixture(scope="module")
def value_and_gradients():
    """(layers, remat) -> (loss, gradients) of a stack that scans one layer three times."""
    x, _ = inputs()

    def run(layers, remat):
        stack = Stack(config(0, layers=layers, remat=remat))
        params = oracle.random_params(lambda key: stack.init(key, x)["params"])

        def loss(params, x):
            return jnp.sum(jnp.sin(stack.apply({"params": params}, x)[0]))

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, x)

    return {(layers, remat): run(layers, remat) for layers in LAYERS for remat in REMATS}


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("remat", REMATS[1:])
def test_remat_changes_nothing(value_and_gradients, layers, remat):
    loss, gradients = value_and_gradients[layers, "none"]
    again, found = value_and_gradients[layers, remat]
    np.testing.assert_allclose(again, loss, rtol=1e-5)
    assert np.abs(gradients[1]).max() > 0.1

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)

    jax.tree.map(close, found, gradients)


# scores; attn_out and mlp_in; qkv and the values attended to; of tuned layers, two absorbed biases
@pytest.mark.parametrize(("layers", "again"), [("plain", [0, 1, 3, 5]), ("tuned", [0, 1, 3, 7])])
def test_remat_computes_layers_again(layers, again):
    x, _ = inputs()

    def products(remat):
        stack = Stack(config(0, layers=layers, remat=remat))
        shapes = jax.eval_shape(stack.init, jax.random.key(0), x)
        gradient = jax.grad(lambda params: jnp.sum(stack.apply(params, x)[0]))
        return str(jax.make_jaxpr(gradient)(shapes)).count("dot_general")

    assert [products(remat) - products("none") for remat in REMATS] == again
