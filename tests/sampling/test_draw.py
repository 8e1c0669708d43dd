"""Which tokens top-k and top-p keep, against sorting by hand in float64."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jukejax.sampling.draw import INVALID, Control, choose, keep_likely

keep = jax.jit(keep_likely)
K = 50


@pytest.fixture(scope="module")
def logits():
    return 2 * np.random.default_rng(0).normal(size=(200, K)).astype(np.float32)


def kept(logits, top_k=K, top_p=1.0):
    """(N, K) booleans by the definitions: the k likeliest; of those, the fewest that reach p."""
    out = np.zeros(logits.shape, bool)
    for row, keeps in zip(logits.astype(np.float64), out, strict=True):
        order = np.argsort(-row)[:top_k]
        p = np.exp(row[order] - row.max())
        p /= p.sum()
        before = np.concatenate([[0], np.cumsum(p)[:-1]])
        keeps[order[before < top_p]] = True
    return out


@pytest.mark.parametrize("top_k", [1, 2, 7, K, K + 9])
def test_top_k_keeps_the_likeliest(logits, top_k):
    found = np.asarray(keep(logits, jnp.full((200, 1), top_k)))
    np.testing.assert_array_equal(found > -np.inf, kept(logits, top_k))
    np.testing.assert_array_equal(found[found > -np.inf], logits[found > -np.inf])


@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.9, 0.999])
def test_top_p_keeps_the_fewest_that_sum_up_to_it(logits, top_p):
    found = np.asarray(keep(logits, None, jnp.full((200, 1), top_p))) > -np.inf
    np.testing.assert_array_equal(found, kept(logits, top_p=top_p))
    assert (found.sum(1) >= 1).all()


def test_top_p_is_taken_of_what_top_k_leaves(logits):
    found = np.asarray(keep(logits, jnp.full((200, 1), 5), jnp.full((200, 1), 0.9))) > -np.inf
    np.testing.assert_array_equal(found, kept(logits, 5, 0.9))
    assert (found != (kept(logits, 5) & kept(logits, top_p=0.9))).any()  # the order matters


def test_each_item_has_its_own_and_0_and_1_keep_all(logits):
    top_k = np.array([[0], [3], [1], [0]])
    top_p = np.array([[1.0], [1.0], [0.5], [0.4]], np.float32)
    found = np.asarray(keep(logits[:4], top_k, top_p)) > -np.inf
    assert found[0].all() and found[1].sum() == 3 and found[2].sum() == 1
    np.testing.assert_array_equal(found[3:], kept(logits[3:4], top_p=0.4))
    assert keep_likely(logits) is logits


def test_equals_of_the_last_one_are_kept():
    row = np.array([[1.0, 3.0, 2.0, 2.0, 2.0, 0.0]], np.float32)
    for found in (keep(row, jnp.full((1, 1), 2)), keep(row, None, jnp.full((1, 1), 0.5))):
        assert (np.asarray(found) > -np.inf).tolist() == [[False, True, True, True, True, False]]


def test_draws_follow_the_kept_probabilities(logits):
    """Temperature first: it decides what top-p keeps."""
    control = Control(jnp.float32(0.5), jnp.full((1, 1), 6), jnp.full((1, 1), 0.9))
    draw = jax.jit(choose)
    row = logits[:1]
    u = ((np.arange(4000) + 0.5) / 4000).astype(np.float32)
    tokens = np.asarray(draw(np.repeat(row, 4000, 0), u, control))
    keeps = kept(row / 0.5, 6, 0.9)[0]
    p = np.where(keeps, np.exp(row[0].astype(np.float64) / 0.5), 0)
    np.testing.assert_allclose(np.bincount(tokens, minlength=K) / 4000, p / p.sum(), atol=3e-4)


def test_temperature_comes_before_top_p():
    """By hand: at temperature 1 the likeliest token alone reaches 0.6, at 3 it has only 0.46."""
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
    flat = np.array([0.7, 0.2, 0.1]) ** (1 / 3)
    flat /= flat.sum()
    assert flat[0] < 0.6 < flat[0] + flat[1]
    u = jnp.array([0.99])  # the last of the tokens that are kept
    for temperature, last in ((1.0, 0), (3.0, 1)):
        control = Control(jnp.float32(temperature), top_p=jnp.full((1, 1), 0.6))
        assert choose(logits, u, control).tolist() == [last]


def test_no_draw_is_a_token_that_is_filtered_out():
    """Drawn where the cumulative sum, not monotone in float32, moves at such a token."""
    rows = 2 * np.random.default_rng(0).normal(size=(8, 2048)).astype(np.float32)
    control = Control(jnp.float32(1), jnp.full((1, 1), 50))
    p = jax.jit(lambda rows: jax.nn.softmax(keep_likely(rows, control.top_k)))(rows)
    sums = np.asarray(jnp.cumsum(p, -1))
    row, at = np.nonzero((np.diff(sums) != 0) & ~kept(rows, 50)[:, 1:])
    assert len(row) > 8
    u = (sums[row, at] / sums[row, -1])[:, None] + np.arange(-4, 5) * np.float32(2**-24)
    row, u = row[:, None].repeat(9, 1).ravel(), np.clip(u, 0, 1 - 2**-24).ravel()
    tokens = jax.jit(choose)(rows[row], u.astype(np.float32), control)
    assert kept(rows, 50)[row, tokens].all()


@pytest.mark.parametrize("top_k", [None, 3])
def test_logits_that_are_no_numbers_draw_no_token(logits, top_k):
    """Rows with a single NaN, an infinity, and only NaN; the others draw."""
    rows = logits[:5].copy()
    rows[1, 7], rows[2, 9], rows[3] = np.nan, np.inf, np.nan
    control = Control(jnp.float32(1), None if top_k is None else jnp.full((1, 1), top_k))
    tokens = np.asarray(jax.jit(choose)(rows, np.full(5, 0.5, np.float32), control))
    assert (tokens == INVALID).tolist() == [False, True, True, True, False]


@pytest.mark.golden
@pytest.mark.skipif(not os.environ.get("JUKEJAX_GOLDEN"), reason="JUKEJAX_GOLDEN is not set")
def test_top_k_keeps_what_the_reference_keeps():
    path = Path(os.environ["JUKEJAX_GOLDEN"]) / "npz" / "misc.json"
    recorded = json.loads(path.read_text())["filter_logits"]
    logits = np.asarray(recorded["logits"], np.float32)
    rows = logits.reshape(-1, logits.shape[-1])
    cases = [c for c in recorded["cases"] if "top_k" in c["args"]]  # its top_p stops with an error
    assert len(cases) == 3
    for case in cases:
        found = np.asarray(keep_likely(rows, jnp.full((len(rows), 1), case["args"]["top_k"])))
        assert np.argwhere(found > -np.inf).tolist() == case["kept"]
