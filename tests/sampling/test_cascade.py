"""Levels window by window: random numbers, going on from anywhere, batching, the codes above."""

import dataclasses
import functools
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import scipy.stats
import windows
from windows import full

from jukejax.config import LabelsConfig, LyricsConfig, PriorConfig, UpperConfig
from jukejax.errors import CheckpointError
from jukejax.models.prior import init_params
from jukejax.sampling import cascade
from jukejax.sampling.cascade import (
    Progress,
    Sampler,
    begin,
    by_chain,
    sample_level,
    uniforms,
    window_batch,
)
from jukejax.sampling.draw import Control
from jukejax.sampling.loop import make_loop
from jukejax.sampling.plan import Plan, Window, plan_rounds

T, CODES, RATIO, TOTAL, TEMPERATURE, SEED = 16, 11, 4, 44, 3.0, 9
BASE = {
    "n_ctx": T, "hop": 10, "sample_rate": 100, "width": 8, "blocks": 4, "codes": CODES,
    "heads": 2, "attn_ratio": 0.5,
}  # fmt: skip
LABELS = LabelsConfig(
    artists=4, genres=6, max_genres=2, timing_bins=5, min_seconds=0.0, max_seconds=20.0
)
# two of the configs of test_decode.py, so that one process compiles them once
TOP = PriorConfig(**BASE, depth=2, attn_order=0, tied_output=False)
UPSAMPLER = PriorConfig(
    **BASE, level=1, depth=3, attn_order=2, labels=LABELS, upper=UpperConfig(width=4, depth=1)
)
PREFIX = PriorConfig(
    **BASE, depth=16, attn_order=12, labels=LABELS,
    lyrics=LyricsConfig(tokens=4, alphabet="v3", prefix=True),
)  # fmt: skip
CONFIGS = {"top": TOP, "upsampler": UPSAMPLER, "prefix": PREFIX}
ITEMS = np.array([4, 9])

draw = jax.jit(uniforms, static_argnums=4)


# --- random numbers -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn():
    """(3, 64) numbers of items 0, 5 and 2 at positions 10 .. 73 of level 1."""
    return np.asarray(draw(3, np.array([0, 5, 2]), 1, 10, 64))


def test_numbers_do_not_depend_on_batch_or_window(drawn):
    np.testing.assert_array_equal(draw(3, np.array([5]), 1, 10, 64), drawn[1:2])
    np.testing.assert_array_equal(draw(3, np.array([2, 0, 5]), 1, 10, 64), drawn[[2, 0, 1]])
    later = draw(3, np.array([0, 5, 2]), 1, 41, 64)
    np.testing.assert_array_equal(later[:, :33], drawn[:, 31:])
    short = draw(3, np.array([0, 5, 2]), 1, 30, 16)
    np.testing.assert_array_equal(short, drawn[:, 20:36])


@pytest.mark.parametrize("change", [(4, 1), (3, 0), (3, 2), (1, 3)])
def test_numbers_of_other_seeds_and_levels_differ(drawn, change):
    seed, level = change
    other = np.asarray(draw(seed, np.array([0, 5, 2]), level, 10, 64))
    assert not (other == drawn).any()


def test_numbers_are_distinct_and_uniform(drawn):
    assert drawn.shape == (3, 64) and drawn.dtype == np.float32
    assert len(np.unique(drawn)) == drawn.size
    many = np.stack([draw(seed, np.array([0, 5, 2]), 1, 10, 64) for seed in range(50)])
    assert many.min() >= 0 and many.max() < 1
    assert scipy.stats.kstest(np.ravel(many), "uniform").pvalue > 1e-3
    items, positions = (many[:, 0], many[:, 1]), (many[..., 1:], many[..., :-1])
    for a, b in (items, positions, (many[1:], many[:-1])):
        assert scipy.stats.pearsonr(np.ravel(a), np.ravel(b)).pvalue > 1e-3


# --- the batch of a window ------------------------------------------------------------------------


def nothing(offset):
    return {}


def test_window_batch_cuts_what_the_window_is_given():
    codes = np.arange(2 * TOTAL).reshape(2, TOTAL).astype(np.int32)
    upper = np.arange(100, 122).reshape(2, 11).astype(np.int32)
    seen = []

    def describe(offset):
        seen.append(offset)
        return {"artist": np.array([1, 2])}

    batch = window_batch(UPSAMPLER, Window(8, 16, 24), codes, upper, describe)
    assert seen == [80]  # in samples
    assert set(batch) == {"codes", "artist", "upper"}
    assert batch["codes"].tolist() == [[*range(s + 8, s + 16), *[0] * 8] for s in (0, TOTAL)]
    assert batch["upper"].tolist() == [[102, 103, 104, 105], [113, 114, 115, 116]]
    assert batch["codes"].dtype == batch["upper"].dtype == np.int32


def test_the_last_code_above_is_held_to_the_end_of_the_window():
    codes = np.zeros((2, 8), np.int32)
    upper = np.array([[5, 7], [6, 8]], np.int32)
    batch = window_batch(UPSAMPLER, Window(0, 0, 8), codes, upper, nothing)
    assert batch["upper"].tolist() == [[5, 7, 7, 7], [6, 8, 8, 8]]


def test_a_top_level_window_has_no_codes_above():
    batch = window_batch(TOP, Window(0, 0, T), np.ones((2, TOTAL), np.int32), None, nothing)
    assert set(batch) == {"codes"} and not batch["codes"].any()


# --- a level --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def level():
    """name -> config, parameters, codes above, and `sample` with all but `items` given."""

    @functools.cache
    def level(name):
        config = CONFIGS[name]
        params = oracle.random_params(lambda key: init_params(config, key), scale=0.5)
        mesh, params = windows.on_one_device(params)
        rng = np.random.default_rng(0)
        upper = rng.integers(0, CODES, (2, TOTAL // RATIO)).astype(np.int32)
        labels = {
            "artist": np.array([2, 3], np.int32), "genres": np.array([[3, -1], [1, 5]], np.int32),
            "total_length": np.array([440, 440], np.int32),
        }  # fmt: skip
        if config.lyrics:
            labels["lyrics"] = rng.integers(0, 79, (2, 4)).astype(np.int32)

        def describe(offset, rows=slice(None)):
            if name == "top":
                return {}
            return {k: x[rows] for k, x in labels.items()} | {
                "offset": np.full(2, offset, np.int32)[rows]
            }

        def plan(total=TOTAL, given=0, chains=1):
            return plan_rounds(total, T, 0.5, RATIO if config.upper else 1, given, chains)

        def level_of(planned, describe, rows=slice(None)):
            count = len(ITEMS[rows])
            control = by_chain(Control(jnp.float32(TEMPERATURE)), count, planned.chains)
            windows = count * planned.chains
            loop = make_loop(config, mesh, params, windows, control, planned.chains)
            placed = loop.place(params)
            return Sampler(config, loop, placed, planned, describe, SEED, ITEMS[rows], control)

        def sample(progress=None, total=TOTAL, rows=slice(None), seconds=0.0, given=0, chains=1):
            """Progress after every token (or less often), copied."""
            planned = plan(total, given, chains)
            count = len(ITEMS[rows])
            nothing = begin(np.zeros((count, total), np.int32))
            above = upper[rows, : total // RATIO] if config.upper else None
            described = functools.partial(describe, rows=rows)
            made_by = level_of(planned, described, rows)
            steps = sample_level(made_by, progress or nothing, above, seconds)
            return [p._replace(codes=p.codes.copy()) for p in steps]

        saved = sample()
        return SimpleNamespace(
            config=config, params=params, upper=upper, describe=describe, sample=sample,
            plan=plan, level_of=level_of, codes=saved[-1].codes, saved=saved,
        )  # fmt: skip

    return level


def choose(logits, u):
    """Tokens (B, T) of logits (B, T, K) at u (B, T), in float64."""
    cumulative = windows.edges(logits, TEMPERATURE)
    return (cumulative <= np.asarray(u, np.float64)[..., None]).sum(-1)


NAMES = pytest.mark.parametrize("name", ["top", "upsampler"])
# (start, given, stop) by the published rule for 44 tokens, 16 a window, moved by 8
WINDOWS = [(0, 0, 16), (8, 16, 24), (16, 24, 32), (24, 32, 40), (28, 40, 44)]


@NAMES
def test_every_token_is_drawn_from_its_window(level, name):
    x = level(name)
    assert x.codes.shape == (2, TOTAL) and len(np.unique(x.codes)) > 4
    u = np.asarray(draw(SEED, ITEMS, x.config.level, 0, TOTAL))
    for start, given, stop in WINDOWS:
        batch = {"codes": x.codes[:, start : start + T], **x.describe(10 * start)}
        if x.config.upper:
            batch["upper"] = x.upper[:, start // RATIO : (start + T) // RATIO]
        expected = choose(full(x.config, x.params, batch), u[:, start : start + T])
        made = slice(given - start, stop - start)
        np.testing.assert_array_equal(x.codes[:, given:stop], expected[:, made])


def done(plan, progress):
    """How many tokens there are, in one chain the first ones."""
    return int(plan.made(progress.rounds, progress.drawn.shape[1]).sum())


@NAMES
def test_progress_comes_with_every_token(level, name):
    x = level(name)
    counts = [done(x.plan(), p) for p in x.saved]
    assert counts[-1] == TOTAL and x.saved[-1].rounds == len(WINDOWS)
    assert {stop for *_, stop in WINDOWS} <= set(counts)
    assert len(x.saved) > TOTAL - 16  # the first chunks are longer
    for (codes, rounds, drawn), count in zip(x.saved, counts, strict=True):
        np.testing.assert_array_equal(codes[:, :count], x.codes[:, :count])
        assert not codes[:, count:].any()
        given = max((given for _, given, _ in WINDOWS if given < count), default=0)
        ends = any(count == stop for *_, stop in WINDOWS)
        assert drawn.shape == (2, 0 if ends else count - given)
        assert rounds == sum(stop <= count for *_, stop in WINDOWS)


@pytest.mark.parametrize(
    ("name", "chains"),
    [
        ("top", 1),
        ("upsampler", 2),
        pytest.param("upsampler", 1, marks=pytest.mark.slow),
        pytest.param("prefix", 1, marks=pytest.mark.slow),
    ],
)
def test_going_on_from_anywhere_gives_the_same_codes(level, name, chains):
    """Interrupted after each chunk, often within one window, and restarted from disk each time."""
    x = level(name)
    plan = x.plan(chains=chains)
    saved = x.saved if chains == 1 else x.sample(chains=chains)
    for codes, rounds, drawn in saved[:-1]:
        there = plan.made(rounds, drawn.shape[1])
        rubbish = np.where(there, codes, CODES - 1)  # where nothing is made
        rest = x.sample(Progress(rubbish, rounds, drawn), seconds=100, chains=chains)
        np.testing.assert_array_equal(rest[-1].codes, saved[-1].codes)
        assert (rubbish[:, ~there] == CODES - 1).all()  # what was handed in is left alone
    progress = None
    for _ in range(2):  # two lives in a row
        progress = x.sample(progress, chains=chains)[2]
    np.testing.assert_array_equal(x.sample(progress, chains=chains)[-1].codes, saved[-1].codes)


def test_the_caches_that_come_back_are_those_of_an_undisturbed_window(level, monkeypatch):
    """Bit for bit, or a later token could turn."""
    ends = []

    def kept(config, stream, music=cascade.music):
        ends.append(jax.tree.map(np.array, stream))
        return music(config, stream)

    monkeypatch.setattr(cascade, "music", kept)
    x = level("prefix")
    x.sample(total=T)
    undisturbed = ends[-1]
    stopped = next(p for p in x.sample(total=T) if p.drawn.shape[1] == 11)
    assert (stopped.drawn[0] < 79).any()  # a lyric character, whose code is 0
    x.sample(stopped, total=T)
    for a, b in zip(*map(jax.tree.leaves, (undisturbed, ends[-1])), strict=True):
        np.testing.assert_array_equal(a, b)


def test_given_codes_are_kept_and_gone_on_from(level):
    x = level("top")
    given = begin(np.where(np.arange(TOTAL) < 21, 7, 0) * np.ones((2, 1), int))
    found = x.sample(given, given=21)[-1].codes
    assert (found[:, :21] == 7).all()
    batch = {"codes": found[:, 8:24]}  # tokens 21 to 23 are made in the window from 8 on
    u = draw(SEED, ITEMS, x.config.level, 8, T)
    expected = choose(full(x.config, x.params, batch), u)
    np.testing.assert_array_equal(found[:, 21:24], expected[:, 13:])


def test_logits_that_are_nan_end_the_level_with_a_sentence(level):
    """One NaN in the weights, which the second song alone reads."""
    x = level("upsampler")
    artist = x.params["labels"]["artist"]
    artist = artist.at[x.describe(0)["artist"][1]].set(jnp.nan)  # of the second song
    broken = {**x.params, "labels": {**x.params["labels"], "artist": artist}}
    sampler = x.level_of(x.plan(given=20), x.describe)
    sampler = dataclasses.replace(sampler, params=sampler.loop.place(broken))
    steps = sample_level(sampler, begin(np.zeros((2, TOTAL), np.int32)), x.upper)
    with pytest.raises(CheckpointError, match=r"prior of level 1 .* NaN at 2\.00 s of song 9: its"):
        next(steps)


def assert_equal_but_for_rounding(x, item, one, other, plan):
    """Codes of a song; rounding may change a token, but only where its number is on an edge."""

    def batch_of(window, codes):
        upper = x.upper[[item]] if x.config.upper else None

        def describe(offset):
            return {k: v[[item]] for k, v in x.describe(offset).items()}

        return window_batch(x.config, window, codes, upper, describe)

    windows.assert_differs_by_rounding_alone(
        x.config, x.params, batch_of, plan.windows, SEED, ITEMS[item], TEMPERATURE, one, other
    )


@pytest.mark.parametrize("item", [0, 1])
def test_an_item_alone_gives_the_codes_that_it_gives_in_a_batch(level, item):
    x = level("top")
    alone = x.sample(rows=slice(item, item + 1), seconds=100)[-1].codes[0]
    assert_equal_but_for_rounding(x, item, alone, x.codes[item], x.plan())
    assert not np.array_equal(x.codes[0], x.codes[1])


# --- chains ---------------------------------------------------------------------------------------

# (start, given, stop) a chain: 44 tokens from 0 (or 19) on, 16 a window, moved by 8
CHAINS = {
    (0, 2): [[(0, 0, 16), (4, 16, 20)], [(20, 20, 36), (28, 36, 44)]],
    (0, 3): [[(0, 0, 12)], [(12, 12, 28)], [(28, 28, 44)]],
    (19, 2): [[(8, 19, 24), (12, 24, 28)], [(28, 28, 44)]],  # one chain is over before the other
}


@pytest.mark.parametrize(("given", "count"), CHAINS)
def test_chains_as_one_batch_equal_the_same_chains_alone(level, given, count):
    """Each alone, in batches of its own: every window by its own, one after another."""
    x = level("upsampler")
    plan = x.plan(given=given, chains=count)
    chains = CHAINS[given, count]
    assert sorted((w.start, w.given, w.stop) for w in plan.windows) == sorted(
        itertools.chain(*chains)
    )
    start = begin(np.where(np.arange(TOTAL) < given, x.codes, 0))
    together = x.sample(start, given=given, chains=count)[-1].codes
    np.testing.assert_array_equal(together[:, :given], x.codes[:, :given])
    for chain in chains:
        own = Plan(TOTAL, given, tuple((Window(*window),) for window in chain))
        *_, made = sample_level(x.level_of(own, x.describe), begin(start.codes), x.upper)
        here = slice(chain[0][1], chain[-1][2])
        alone = together.copy()
        alone[:, here] = made.codes[:, here]
        for item in (0, 1):
            assert_equal_but_for_rounding(x, item, together[item], alone[item], own)


def test_every_token_of_a_chain_is_drawn_from_its_window(level):
    """By the full forward pass: nothing before a chain's beginning is heard, all inside it is."""
    x = level("upsampler")
    codes = x.sample(chains=2)[-1].codes
    u = np.asarray(draw(SEED, ITEMS, x.config.level, 0, TOTAL))
    for start, given, stop in itertools.chain(*CHAINS[0, 2]):
        batch = {"codes": codes[:, start : start + T], **x.describe(10 * start)}
        batch["upper"] = x.upper[:, start // RATIO : (start + T) // RATIO]
        expected = choose(full(x.config, x.params, batch), u[:, start : start + T])
        made = slice(given - start, stop - start)
        np.testing.assert_array_equal(codes[:, given:stop], expected[:, made])
    # the first chain is that of the song at once, until its last window is moved back
    np.testing.assert_array_equal(codes[:, :16], x.codes[:, :16])
    assert (codes[:, 20:] != x.codes[:, 20:]).any()


def test_a_song_that_ends_inside_the_window_is_made_to_its_end(level):
    x = level("upsampler")
    short = x.sample(total=8, seconds=100)[-1].codes
    assert short.shape == (2, 8)
    upper = np.concatenate([x.upper[:, :2], x.upper[:, [1, 1]]], 1)
    tokens = np.pad(short, ((0, 0), (0, T - 8)))
    batch = {"codes": tokens, **x.describe(0)}
    logits = full(x.config, x.params, batch | {"upper": upper})
    u = draw(SEED, ITEMS, x.config.level, 0, TOTAL)
    np.testing.assert_array_equal(short, choose(logits, u[:, :T])[:, :8])
    upper[:, 2:] = 0  # what is held there is heard before the end
    other = full(x.config, x.params, batch | {"upper": upper})
    assert np.abs(logits - other)[:, :8].max() > 0.1
