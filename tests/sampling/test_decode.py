"""Decoding one token at a time against the full forward pass, and drawing from logits."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import scipy.stats
import windows
from jax import lax
from windows import full

from jukejax.config import (
    LabelsConfig,
    LyricsConfig,
    PriorConfig,
    Track,
    TracksConfig,
    UpperConfig,
)
from jukejax.models.prior import Prior, init_params
from jukejax.sampling.decode import last_token, music, prefill, step
from jukejax.sampling.draw import Control, choose

T, ROWS, WIDTH, CODES, E, B = 16, 4, 8, 11, 4, 2
BASE = {
    "n_ctx": T, "hop": 10, "sample_rate": 100, "width": WIDTH, "blocks": ROWS, "codes": CODES,
    "heads": 2, "attn_ratio": 0.5, "layers": "tuned",  # as the presets; decoding has one way
}  # fmt: skip
LABELS = LabelsConfig(
    artists=4, genres=6, max_genres=2, timing_bins=5, min_seconds=0.0, max_seconds=20.0
)
ENCODER = LyricsConfig(tokens=E, width=8, depth=1, blocks=2, attn_order=0, heads=1)
KINDS = {
    "dense": PriorConfig(**BASE, depth=2, attn_order=0, tied_output=False),
    "factorized": PriorConfig(**BASE, depth=6, attn_order=2, scale_residual=True),
    "upsampler": PriorConfig(
        **BASE, level=1, depth=3, attn_order=2, labels=LABELS, upper=UpperConfig(width=4, depth=1)
    ),
    "encoder": PriorConfig(**BASE, depth=4, attn_order=6, lyrics=ENCODER, tied_output=False),
    "sparse encoder": PriorConfig(**BASE, depth=10, attn_order=8, lyrics=ENCODER),
    # 4 characters and 16 codes in rows of 5: rows do not end where the lyrics do
    "prefix": PriorConfig(
        **BASE, depth=16, attn_order=12, labels=LABELS,
        lyrics=LyricsConfig(tokens=E, alphabet="v3", prefix=True),
    ),
    "tracks": PriorConfig(
        **BASE, depth=3, attn_order=2, groups=4,
        tracks=TracksConfig((Track("notes", ("60", "61"), places=2),), parts=2, width=4, depth=1),
    ),
}  # fmt: skip


def make_batch(config):
    """Two different windows."""
    rng = np.random.default_rng(0)
    batch = {"codes": rng.integers(0, CODES, (B, T))}
    if config.labels:
        batch |= {"artist": np.array([2, 3]), "genres": np.array([[3, -1], [1, 5]])}
        batch |= {"total_length": np.array([700, 500]), "offset": np.array([250, 80])}
    if config.upper:
        batch["upper"] = rng.integers(0, CODES, (B, T // 4))
    if config.lyrics:
        batch["lyrics"] = rng.integers(0, 79, (B, E))
    if config.tracks:
        batch["track_notes"] = rng.integers(-1, 4, (B, T, 2))
    return {name: x.astype(np.int32) for name, x in batch.items()}


start = jax.jit(prefill, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def force(config, params, batch, stream, given):
    """Music's logits (B, T, K) of decoding the batch's own tokens from `given` on; zeros before."""
    n = config.prefix_len
    stream = stream._replace(
        tokens=Prior(config).apply({"params": params}, batch, method="sequence")
    )

    def body(p, carry):
        caches, out = carry
        before = last_token(stream, p)
        logits, caches = step(config, params, stream._replace(caches=caches), before, p)
        return caches, out.at[:, p - n].set(logits)

    out = jnp.zeros((B, T, config.vocabulary), jnp.float32)
    return lax.fori_loop(given + n, n + T, body, (stream.caches, out))[1]


def decoded(config, params, batch, given):
    """The logits of `force` after a prefill that saw wrong codes at `given` and later."""
    codes = np.asarray(batch["codes"])
    known = np.where(np.arange(T) < given, codes, CODES - 1 - codes)
    stream = start(config, params, batch | {"codes": known}, jnp.asarray(given))
    return np.asarray(force(config, params, batch, stream, given))


@pytest.fixture(scope="module")
def prior():
    """kind -> config, params, batch, and its logits by the full pass."""

    @functools.cache
    def prior(kind):
        config = KINDS[kind]
        params = oracle.random_params(lambda key: init_params(config, key), scale=0.5)
        params, batch = jax.device_put((params, make_batch(config)))
        logits = np.asarray(full(config, params, batch))
        return SimpleNamespace(
            config=config,
            params=params,
            batch=batch,
            logits=logits,
            full=functools.partial(full, config, params),
            decoded=functools.partial(decoded, config, params),
        )

    return prior


# --- the decoder against the full pass ------------------------------------------------------------


# none, mid-row, the last of a row, the first of a row (of 4, and of 5 with a prefix), the last
@pytest.mark.parametrize("given", [0, 1, 3, 4, 6, 7, 8, 11, 12, 15])
@pytest.mark.parametrize("kind", KINDS)
def test_cached_logits_equal_those_of_the_full_pass(prior, kind, given):
    p = prior(kind)
    logits = p.decoded(p.batch, given)
    np.testing.assert_allclose(logits[:, given:], p.logits[:, given:], rtol=1e-4, atol=1e-4)
    assert not logits[:, :given].any()


def test_cached_logits_equal_float64_numpy(prior):
    """Row 0 above all: it has no row above, and its previous-row layers add the bias alone."""
    p = prior("factorized")
    params = jax.device_get(p.params)
    first = np.broadcast_to(params["start"][None], (B, 1, WIDTH))
    x = (
        np.concatenate([first, params["token"][np.asarray(p.batch["codes"])][:, :-1]], 1)
        + params["position"]
    )
    layers = oracle.unrolled(params["stack"], p.config.runs)
    assert [pattern for pattern, _ in layers] == ["row", "column", "previous_row"] * 2
    h, _ = oracle.stack(layers, x, 2, ROWS, residual=1 / 6)
    expected = h @ params["token"].T
    for given in (0, 2):
        logits = p.decoded(p.batch, given)
        np.testing.assert_allclose(logits[:, given:], expected[:, given:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["factorized", "prefix"])
def test_an_item_does_not_feel_its_neighbours(prior, kind):
    p = prior(kind)
    both = p.decoded(p.batch, 3)
    for item in range(B):
        twice = {name: np.asarray(x)[[item] * B] for name, x in p.batch.items()}
        logits = p.decoded(twice, 3)
        np.testing.assert_allclose(logits, both[[item] * B], rtol=1e-5, atol=1e-5)
    assert np.abs(both[0, 3:] - both[1, 3:]).max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_caches_are_as_small_as_each_pattern_allows(prior, kind):
    p = prior(kind)
    config = p.config
    stream = jax.eval_shape(functools.partial(prefill, config), p.params, p.batch, jnp.int32(0))
    length = config.seq_len
    a, columns = WIDTH // 2, length // ROWS
    positions = {
        "dense": (length,), "row": (columns,), "column": (columns, ROWS),
        "previous_row": (2, columns), "cross": (E,), "prime": (8,),
    }  # fmt: skip
    for (repeats, patterns), run in zip(config.runs, stream.caches, strict=True):
        for pattern, cache in zip(patterns, run, strict=True):
            for x in cache:
                assert x.shape == (repeats, B, *positions[pattern], a)


def test_music_past_the_visible_part_still_attends_to_it(prior):
    """The prime layer sees 4 characters and the first 4 codes, from every later position."""
    p = prior("prefix")
    config = p.config
    assert [pattern for _, run in config.runs for pattern in run][-1] == "prime"
    other = p.batch | {"lyrics": (p.batch["lyrics"] + 1) % 79}
    late = 10  # the last row, so the prime layer and columns alone know of the lyrics
    with_lyrics, without = (p.decoded(b, late) for b in (p.batch, other))
    np.testing.assert_allclose(without[:, late:], p.full(other)[:, late:], rtol=1e-4, atol=1e-4)
    assert np.abs(with_lyrics[:, late:] - without[:, late:]).max() > 0.1


# --- filling a window -----------------------------------------------------------------------------


def inverse_cdf(logits, u, temperature):
    """Tokens of logits (..., K) at u (...) in float64."""
    logits = np.asarray(logits, np.float64) / temperature
    p = np.exp(logits - logits.max(-1, keepdims=True))
    cumulative = np.cumsum(p / p.sum(-1, keepdims=True), -1)
    return (cumulative <= np.asarray(u, np.float64)[..., None]).sum(-1)


def filled(p, codes, first, stop, u, temperature):
    """Tokens (B, L) after one call of `fill`."""
    codes = np.where(np.arange(T) < first, codes, 0).astype(np.int32)
    control = Control(jnp.asarray(temperature, jnp.float32))
    batch = jax.device_get(p.batch | {"codes": codes})
    return windows.filled(p.config, p.params, batch, u.astype(np.float32), first, stop, control)


@pytest.fixture(scope="module")
def u():
    return np.random.default_rng(5).random((B, T)).astype(np.float32)


@pytest.mark.parametrize(("first", "stop"), [(0, T), (5, T), (2, 9), (8, 8)])
@pytest.mark.parametrize("kind", ["upsampler", "prefix"])
def test_fill_draws_each_token_from_the_full_pass(prior, u, kind, first, stop):
    p = prior(kind)
    stream = filled(p, p.batch["codes"], first, stop, u, 3.0)
    offset = p.config.vocabulary - CODES
    codes = np.asarray(stream.tokens)[:, p.config.prefix_len :] - offset
    np.testing.assert_array_equal(codes[:, :first], p.batch["codes"][:, :first])
    assert not codes[:, stop:].any()
    # a negative code is a lyric character that a prefix model drew and continues from
    logits = np.asarray(p.full(p.batch | {"codes": codes.astype(np.int32)}))
    expected = inverse_cdf(logits, u, 3.0) - offset
    np.testing.assert_array_equal(codes[:, first:stop], expected[:, first:stop])
    np.testing.assert_array_equal(music(p.config, stream), np.maximum(codes, 0))
    if stop == T:
        assert len(np.unique(codes[:, first:])) > 3
    if p.config.prefix_len:
        np.testing.assert_array_equal(np.asarray(stream.tokens)[:, :E], p.batch["lyrics"])


def test_a_prefix_model_draws_characters_that_stand_for_code_0(prior, u):
    p = prior("prefix")
    stream = filled(p, p.batch["codes"], 0, T, u, 3.0)
    characters = np.asarray(stream.tokens)[:, E:] < 79
    codes = np.asarray(music(p.config, stream))
    assert characters.any() and (codes[~characters] > 0).any()
    assert not codes[characters].any()
    np.testing.assert_array_equal(
        codes[~characters], np.asarray(stream.tokens)[:, E:][~characters] - 79
    )


def test_uniforms_can_force_any_codes(prior):
    p = prior("upsampler")
    logits = p.logits.astype(np.float64) / 3
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    wanted = p.batch["codes"][..., None]
    cumulative = np.cumsum(weights, -1)
    u = np.take_along_axis(cumulative - weights / 2, wanted, -1)[..., 0]
    assert np.take_along_axis(weights, wanted, -1).min() > 1e-5  # or rounding could decide
    stream = filled(p, p.batch["codes"], 0, T, u, 3.0)
    np.testing.assert_array_equal(music(p.config, stream), p.batch["codes"])


@pytest.mark.parametrize("middle", [1, 4, 7, 12, 15])
def test_filling_in_two_parts_equals_filling_at_once(prior, u, middle):
    p = prior("upsampler")
    once = np.asarray(music(p.config, filled(p, p.batch["codes"], 0, T, u, 3.0)))
    half = np.asarray(music(p.config, filled(p, p.batch["codes"], 0, middle, u, 3.0)))
    np.testing.assert_array_equal(half[:, :middle], once[:, :middle])
    rest = np.asarray(music(p.config, filled(p, half, middle, T, u, 3.0)))
    np.testing.assert_array_equal(rest, once)


# --- drawing --------------------------------------------------------------------------------------

draw = jax.jit(lambda logits, u, temperature: choose(logits, u, Control(temperature)))
BELOW_1 = np.nextafter(np.float32(1), np.float32(0))


@pytest.mark.parametrize("temperature", [1.0, 0.3, 4.0])
@pytest.mark.parametrize("k", [7, 2048])
def test_choose_inverts_the_cumulative_distribution(k, temperature):
    rng = np.random.default_rng(k)
    logits = 3 * rng.normal(size=(500, k)).astype(np.float32)
    u = rng.random(500).astype(np.float32)
    token = np.asarray(draw(logits, u, jnp.float32(temperature)))
    assert token.dtype == np.int32
    scaled = logits.astype(np.float64) / temperature
    p = np.exp(scaled - scaled.max(-1, keepdims=True))
    edges = np.cumsum(np.pad(p / p.sum(-1, keepdims=True), ((0, 0), (1, 0))), -1)  # (N, K + 1)
    items = np.arange(500)
    assert (edges[items, token] <= u + 1e-6).all()
    assert (u - 1e-6 < edges[items, token + 1]).all()
    assert (token == inverse_cdf(logits, u, temperature)).mean() > 0.98


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_frequencies_are_the_probabilities(temperature):
    p = np.array([0.05, 0.3, 0.0, 0.15, 0.4, 0.1, 0.0])
    logits = np.log(p + 1e-30).astype(np.float32)
    u = np.random.default_rng(1).random((40, 500)).astype(np.float32)
    tokens = [draw(np.tile(logits, (500, 1)), x, jnp.float32(temperature)) for x in u]
    counts = np.bincount(np.ravel(tokens), minlength=7)
    expected = p ** (1 / temperature)
    expected *= u.size / expected.sum()
    assert not counts[expected == 0].any()
    likely = expected > 0
    assert scipy.stats.chisquare(counts[likely], expected[likely]).pvalue > 1e-3


@pytest.mark.parametrize("k", [7, 2048])
def test_the_ends_of_u_stay_inside_the_vocabulary(k):
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(500, k)) * rng.uniform(0.1, 40, (500, 1))
    logits[:, [0, -1]] = -1e4  # their probability is 0
    one = jnp.float32(1)
    low = np.asarray(draw(logits.astype(np.float32), np.zeros(500, np.float32), one))
    high = np.asarray(draw(logits.astype(np.float32), np.full(500, BELOW_1), one))
    assert low.min() >= 1 and high.max() <= k - 2
    peaked = np.full((500, k), -1e4, np.float32)
    peaked[np.arange(500), np.arange(500) % k] = 0
    for u in (0, 0.5, BELOW_1):
        token = draw(peaked, np.full(500, u, np.float32), one)
        np.testing.assert_array_equal(token, np.arange(500) % k)


def test_uniform_logits_meet_every_token_up_to_the_last():
    k = 2048
    u = ((np.arange(500) + 0.5) / 500).astype(np.float32)
    u[-1] = BELOW_1
    token = np.asarray(draw(np.zeros((500, k), np.float32), u, jnp.float32(1)))
    expected = np.floor(u.astype(np.float64) * k)
    assert np.abs(token - expected).max() <= 1  # u may lie on an edge to rounding
    assert token[-1] == k - 1


def test_each_item_can_have_its_temperature():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(500, 7)).astype(np.float32)
    u = rng.random(500).astype(np.float32)
    temperature = rng.uniform(0.2, 3, (500, 1)).astype(np.float32)
    expected = inverse_cdf(logits, u, temperature.astype(np.float64))
    np.testing.assert_array_equal(draw(logits, u, temperature), expected)


def test_a_low_temperature_takes_the_likeliest():
    logits = np.random.default_rng(4).normal(size=(500, 7)).astype(np.float32)
    u = np.random.default_rng(5).random(500).astype(np.float32)
    token = draw(logits, u, jnp.float32(1e-5))
    np.testing.assert_array_equal(token, logits.argmax(-1))
