"""Each attention pattern against dense attention with an explicit mask in float64."""

import jax
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jukejax.models import attention
from jukejax.patterns import prime_visible

attend = jax.jit(attention.attend, static_argnums=(0, 4, 5))
PATTERNS = ["dense", "row", "column", "previous_row", "prime"]


def queries_keys_values(seed, batch, t, e, heads, width=4):
    rng = np.random.default_rng(seed)
    shapes = [(batch, t, heads, width), (batch, e, heads, width), (batch, e, heads, width)]
    return [rng.normal(size=s).astype(np.float32) for s in shapes]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("rows", "columns", "heads"), [(4, 3, 2), (2, 8, 1), (6, 1, 3)])
def test_pattern_is_masked_dense_attention(pattern, rows, columns, heads):
    t = rows * columns
    q, k, v = queries_keys_values(0, 2, t, t, heads)
    visible = min(t, rows + 1)
    out = attend(pattern, q, k, v, rows, visible)
    expected = oracle.attend(q, k, v, oracle.mask(pattern, rows, columns, visible))
    np.testing.assert_allclose(out, expected, atol=2e-6)


@settings(max_examples=5)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    heads=st.integers(1, 2),
    pattern=st.sampled_from(["row", "column", "previous_row"]),
    seed=st.integers(0, 99),
)
def test_any_grid(rows, columns, heads, pattern, seed):
    q, k, v = queries_keys_values(seed, 1, rows * columns, rows * columns, heads)
    out = attend(pattern, q, k, v, rows, 0)
    expected = oracle.attend(q, k, v, oracle.mask(pattern, rows, columns))
    np.testing.assert_allclose(out, expected, atol=2e-6)


def test_cross_sees_every_encoder_state():
    q, k, v = queries_keys_values(1, 2, 6, 5, 2)
    out = attend("cross", q, k, v, 3, 0)
    np.testing.assert_allclose(out, oracle.attend(q, k, v, np.ones((6, 5), bool)), atol=2e-6)


def test_first_row_of_previous_row_is_zero():
    q, k, v = queries_keys_values(2, 2, 12, 12, 2)
    out = np.asarray(attention.previous_row(q, k, v, 4))
    assert (out[:, :3] == 0).all()
    assert (out[:, 3:] != 0).all()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_position_feels_what_it_sees_and_nothing_else(pattern):
    rows, columns, visible = 4, 3, 8
    t = rows * columns
    q, k, v = (np.repeat(x, t + 1, 0) for x in queries_keys_values(3, 1, t, t, 2))
    moved = np.arange(t)  # copy 1 + j of the batch has position j changed
    k[1 + moved, moved] += 0.5
    v[1 + moved, moved] += 1.0
    out = np.asarray(attend(pattern, q, k, v, rows, visible))
    changed = (out[1:] != out[:1]).any((2, 3))  # (j, p)
    sees = oracle.mask(pattern, rows, columns, visible)
    np.testing.assert_array_equal(changed.T, sees)
    assert not np.triu(sees, 1).any()


@pytest.mark.parametrize(
    ("prefix", "rows", "visible"), [(384, 64, 448), (0, 8, 8), (7, 8, 8), (8, 8, 16), (5, 2, 6)]
)
def test_prime_visible(prefix, rows, visible):
    assert prime_visible(prefix, rows) == visible
