"""The codebook: nearest code by brute force, its update by a float64 loop, restarts, invariance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from jukejax.config import MeshConfig, VQVAEConfig
from jukejax.models import bottleneck
from jukejax.models.bottleneck import Codebook
from jukejax.parallel.mesh import make_mesh

K, E, N = 6, 3, 16
nearest, update = jax.jit(bottleneck.nearest), jax.jit(bottleneck.update)
whole = st.integers(-3, 3)  # few values: many ties, and every distance exact


@settings(max_examples=100)
@given(
    codes=st.lists(st.tuples(whole, whole, whole), min_size=K, max_size=K),
    x=st.lists(st.tuples(whole, whole, whole), min_size=N, max_size=N),
)
def test_nearest_is_the_lowest_index_of_the_smallest_distance(codes, x):
    index, distance = nearest(np.array(codes, np.float32), np.array(x, np.float32))
    squares = ((np.array(x)[:, None] - np.array(codes)[None]) ** 2).sum(-1)
    index, distance = np.asarray(index), np.asarray(distance)
    assert index.dtype == np.int32
    for n in range(N):
        lowest = min(range(K), key=lambda j: (squares[n, j], j))
        assert index[n] == lowest
        assert distance[n] == squares[n, lowest]


def test_nearest_is_computed_in_full_float32_on_every_device():
    """By default a TPU multiplies in bfloat16: training would choose other codes than encoding."""
    program = jax.make_jaxpr(bottleneck.quantize)(
        Codebook(np.ones((K, E), np.float32), np.ones((K, E)), np.ones(K)),
        np.ones((1, N, E), np.float32),
    )
    products = [e for e in program.jaxpr.eqns if e.primitive.name == "dot_general"]
    assert [e.params["precision"] for e in products] == [(jax.lax.Precision.HIGHEST,) * 2]


def test_nearest_keeps_leading_axes():
    rng = np.random.default_rng(0)
    codes, x = rng.normal(size=(K, E)), rng.normal(size=(2, 5, E))
    index, distance = bottleneck.nearest(codes.astype(np.float32), x.astype(np.float32))
    squares = ((x[:, :, None] - codes) ** 2).sum(-1)
    np.testing.assert_array_equal(index, squares.argmin(-1))
    np.testing.assert_allclose(distance, squares.min(-1), atol=1e-5)


def test_quantized_vectors_are_codes_whose_gradient_goes_straight_through():
    rng = np.random.default_rng(0)
    codes, x, g = (rng.normal(size=s).astype(np.float32) for s in ((K, E), (2, 5, E), (2, 5, E)))
    book = Codebook(codes, codes, np.ones(K, np.float32))

    def loss(codes, x):
        q = bottleneck.quantize(book._replace(codes=codes), x)
        return (g * q.vectors).sum(), q

    (_, q), (_, dx) = jax.value_and_grad(loss, (0, 1), has_aux=True)(codes, x)
    index = ((x[:, :, None] - codes) ** 2).sum(-1).argmin(-1)
    np.testing.assert_array_equal(q.codes, index)
    np.testing.assert_allclose(q.vectors, codes[index], atol=1e-6)
    np.testing.assert_array_equal(dx, g)  # as if the bottleneck were not there
    np.testing.assert_allclose(q.commitment, ((x - codes[index]) ** 2).mean(), rtol=1e-5)
    commitment = jax.grad(lambda x: bottleneck.quantize(book, x).commitment)(x)
    np.testing.assert_allclose(commitment, 2 * (x - codes[index]) / x.size, rtol=1e-4, atol=1e-7)
    flat = q.assigned
    np.testing.assert_array_equal(flat.vectors, x.reshape(-1, E))
    np.testing.assert_array_equal(flat.codes, index.reshape(-1))
    np.testing.assert_allclose(
        flat.distance, ((x - codes[index]) ** 2).sum(-1).reshape(-1), atol=1e-5
    )


def test_each_code_of_a_group_describes_and_learns_what_those_before_it_leave():
    """Four stages against four codebooks of their own, one after the other."""
    config = VQVAEConfig(codes=K, groups=4, codebook_decay=0.5, restart_threshold=0.3)
    rng, key = np.random.default_rng(0), jax.random.key(5)
    x = rng.normal(size=(2, 7, E)).astype(np.float32)
    book = bottleneck.first_codes(key, x.reshape(-1, E), K, 4)
    assert book.codes.shape == book.sums.shape == (4 * K, E) and book.counts.shape == (4 * K,)
    q = bottleneck.quantize(book, x, 4)
    new, stats = bottleneck.learn(config, key, book, q.assigned)
    rest = x.reshape(-1, E)
    for i, codes in enumerate(q.codes.reshape(-1, 4).T):
        own = Codebook(*(a[i * K : (i + 1) * K] for a in book))
        apart = np.abs(np.asarray(own.codes)[:, None] - rest).max(-1)
        assert apart.min(1).max() < 1e-6  # the first codes are among what they describe
        index, distance = bottleneck.nearest(own.codes, rest)
        np.testing.assert_array_equal(codes, index)
        np.testing.assert_allclose(q.assigned.distance[i::4], distance, rtol=1e-4, atol=1e-5)
        fresh = bottleneck.random_rows(jax.random.fold_in(key, i) if i else key, rest, K)
        expected = bottleneck.update(own, rest, index, fresh, 0.5, 0.3)
        for found, wanted in zip(new, expected, strict=True):
            np.testing.assert_allclose(found[i * K : (i + 1) * K], wanted, rtol=1e-4, atol=1e-5)
        rest = rest - np.asarray(own.codes)[index]
    np.testing.assert_allclose(q.vectors, x - rest.reshape(x.shape), atol=1e-5)
    np.testing.assert_allclose(q.commitment, (rest**2).mean(), rtol=1e-4)
    np.testing.assert_allclose(bottleneck.look_up(book.codes, q.codes, 4), q.vectors, atol=1e-6)
    assert stats["used_now"] == sum(len(set(row.tolist())) for row in q.codes.reshape(-1, 4).T)


def book_and_batch(seed):
    """A codebook with counts on both sides of 1, a batch that leaves codes 4 and 5 unused."""
    rng = np.random.default_rng(seed)
    counts = np.array([0.5, 1.5, 3.0, 0.2, 0.9, 1.2], np.float32)
    codes, sums, fresh = rng.normal(size=(3, K, E)).astype(np.float32)
    x = rng.normal(size=(N, E)).astype(np.float32)
    index = rng.integers(0, 3, N).astype(np.int32)
    index[0] = 3
    return Codebook(codes, sums, counts), x, index, fresh


@pytest.mark.parametrize(("decay", "threshold"), [(0.99, 1.0), (0.5, 1.0), (0.9, 0.0), (0.9, 2.5)])
def test_update_is_the_published_formula(decay, threshold):
    book, x, index, fresh = book_and_batch(1)
    new = update(book, x, index, fresh, decay, threshold)
    for j in range(K):
        count, total = 0, np.zeros(E)
        for vector, chosen in zip(x, index, strict=True):
            if chosen == j:
                count, total = count + 1, total + vector
        k_elem = decay * float(book.counts[j]) + (1 - decay) * count
        k_sum = decay * book.sums[j].astype(np.float64) + (1 - decay) * total
        usage = k_elem >= threshold
        np.testing.assert_allclose(new.counts[j], k_elem, rtol=1e-5)
        np.testing.assert_allclose(new.sums[j], k_sum, rtol=1e-5, atol=1e-6)
        code = usage * k_sum / k_elem + (1 - usage) * fresh[j]
        np.testing.assert_allclose(new.codes[j], code, rtol=1e-5, atol=1e-6)


def test_restarts_replace_exactly_the_codes_under_the_threshold():
    book, x, index, fresh = book_and_batch(2)
    new = update(book, x, index, fresh, 0.9, 1.0)
    alive = np.asarray(new.counts) >= 1.0
    assert 0 < alive.sum() < K
    np.testing.assert_array_equal((np.asarray(new.codes) == fresh).all(-1), ~alive)
    # a code that was never chosen has sums of zero and no NaN
    empty = Codebook(np.zeros((K, E)), np.zeros((K, E)), np.zeros(K))
    new = update(empty, x, index, fresh, 0.99, 1.0)
    np.testing.assert_array_equal(new.codes, fresh)


def test_a_count_at_the_threshold_is_alive():
    book = Codebook(np.zeros((1, E)), np.full((1, E), 2.0), np.ones(1, np.float32))
    x, fresh = np.full((4, E), 2.0, np.float32), np.full((1, E), 9.0, np.float32)
    new = bottleneck.update(book, x, np.array([0, 0, 0, 0]), fresh, 0.5, 2.5)
    assert new.counts[0] == 2.5
    np.testing.assert_allclose(new.codes[0], (0.5 * 2 + 0.5 * 8) / 2.5)


def test_a_restarted_code_comes_back_with_its_old_mass():
    fresh = np.full((1, E), 9.0, np.float32)
    book = Codebook(np.zeros((1, E)), np.full((1, E), 3.0), np.full(1, 0.5, np.float32))
    nothing = np.zeros((0, E), np.float32), np.zeros(0, np.int32)
    dead = bottleneck.update(book, *nothing, fresh, 0.5, 1.0)
    np.testing.assert_array_equal(dead.codes, fresh)
    assert dead.counts[0] == 0.25
    two = np.ones((2, E), np.float32), np.zeros(2, np.int32)
    back = bottleneck.update(dead, *two, fresh, 0.5, 1.0)
    np.testing.assert_allclose(back.codes[0], (0.25 * 3 + 0.5 * 2) / (0.125 + 1.0))


def test_update_does_not_depend_on_the_order_of_the_batch():
    book, x, index, fresh = book_and_batch(3)
    order = np.random.default_rng(0).permutation(N)
    a = update(book, x, index, fresh, 0.9, 1.0)
    b = update(book, x[order], index[order], fresh, 0.9, 1.0)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-5, atol=1e-6), a, b)


def test_statistics_are_those_of_the_global_batch():
    book, x, index, fresh = book_and_batch(4)
    mesh = make_mesh(MeshConfig())
    put = jax.sharding.NamedSharding(mesh, P("data"))
    split = [jax.device_put(a, put) for a in (x, index)]
    assert len(split[0].sharding.device_set) == 8
    a = update(book, x, index, fresh, 0.9, 1.0)
    b = update(book, *split, fresh, 0.9, 1.0)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-5, atol=1e-6), a, b)


def rows_as_ids(x):
    return np.asarray(x)[:, 0].astype(int).tolist()


@pytest.mark.parametrize(("rows", "n"), [(20, 8), (8, 8), (17, 1)])
def test_random_rows_are_rows_none_twice_and_all_equally_likely(rows, n):
    x = jnp.repeat(jnp.arange(rows, dtype=jnp.float32)[:, None], E, 1)
    keys = jax.random.split(jax.random.key(0), 4000)
    chosen = np.asarray(jax.vmap(lambda key: bottleneck.random_rows(key, x, n))(keys))
    assert chosen.shape == (4000, n, E) and (chosen == chosen[..., :1]).all()
    ids = chosen[..., 0].astype(int)
    assert all(len(set(draw)) == n for draw in ids.tolist())
    spread = (ids[:, -1] - ids[:, 0]) % rows  # over the whole batch
    assert (spread > (n - 2) * (rows // n)).all()
    for of_a_code in (ids[:, :1], ids[:, -1:], ids):  # also the row that a certain code gets
        share = np.bincount(of_a_code.reshape(-1), minlength=rows) / of_a_code.size
        assert np.abs(share * rows - 1).max() < 5 * np.sqrt(rows / of_a_code.size)


def test_few_rows_are_tiled_with_a_little_noise():
    x = 10 * np.arange(5, dtype=np.float32)[:, None] * np.ones(4, np.float32)
    chosen = np.asarray(bottleneck.random_rows(jax.random.key(0), x, 12))
    nearest = np.abs(chosen[:, None] - x).max(-1).argmin(-1)
    noise = chosen - x[nearest]
    assert 0 < np.abs(noise).max() < 5 * 0.01 / np.sqrt(4)
    assert noise.std() == pytest.approx(0.005, rel=0.35)
    assert len(np.unique(chosen[:, 0])) == 12
    assert np.bincount(nearest, minlength=5).max() <= 3  # tiled three times


def test_first_codes_are_rows_counted_once():
    x = np.repeat(np.arange(20, dtype=np.float32)[:, None], E, 1)
    book = bottleneck.first_codes(jax.random.key(0), x, K)
    assert len(set(rows_as_ids(book.codes))) == K
    np.testing.assert_array_equal(book.sums, book.codes)
    np.testing.assert_array_equal(book.counts, np.ones(K))


def test_statistics():
    book, x, index, fresh = book_and_batch(5)
    new = update(book, x, index, fresh, 0.9, 1.0)
    distance = np.linspace(0, 1, N, dtype=np.float32)
    found = bottleneck.statistics(book, new, bottleneck.Assigned(x, index, distance), 1.0)
    p = np.bincount(index, minlength=K) / N
    wide = x.astype(np.float64)
    expected = {
        "entropy": -sum(q * np.log(q) for q in p if q),
        "used_now": (p > 0).sum(),
        "alive": (np.asarray(new.counts) >= 1).sum(),
        "movement": np.linalg.norm(np.asarray(new.codes, np.float64) - book.codes) / np.sqrt(K * E),
        "fit": 0.5,
        "spread": np.linalg.norm(wide - wide.mean()) / np.sqrt(N * E),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-4), name
