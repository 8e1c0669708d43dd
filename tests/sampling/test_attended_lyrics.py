"""Alignment of lyrics and music: a prior that attends diagonally by hand, and brute force."""

import itertools

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jukejax.config import LyricsConfig, MeshConfig, PriorConfig
from jukejax.errors import CheckpointError
from jukejax.models.prior import init_params
from jukejax.models.transformer import COLLECT_LYRICS
from jukejax.parallel.mesh import make_mesh
from jukejax.sampling import alignment
from jukejax.sampling.alignment import FLOOR, Head, SongCodes, align, head_weights, lyric_heads
from jukejax.sampling.inside import make_reader
from jukejax.sampling.plan import plan_windows

T, E, WIDTH, STEP = 32, 8, 24, 4
CONFIG = PriorConfig(
    n_ctx=T, hop=10, sample_rate=100, width=WIDTH, depth=4, attn_order=6, blocks=4, codes=7,
    heads=2, attn_ratio=1.0, tied_output=False,
    lyrics=LyricsConfig(tokens=E, width=WIDTH, depth=1, blocks=2, attn_order=0, heads=1),
)  # fmt: skip


def diagonal(sharpness):
    """Parameters whose second head of layer 3 has music token t attend to lyric state t // 4.

    All is zero but position tables (unit vectors), the norms' scales, the lyrics' projection
    (identity) and the head's queries and keys (`sharpness` times the first 8 coordinates).
    """
    params = oracle.random_params(lambda key: init_params(CONFIG, key), scale=0.0)
    eye = np.eye(WIDTH, dtype=np.float32)
    params["position"] = eye[np.arange(T) // STEP]
    lyrics = params["lyric_encoder"]
    lyrics["position"] = eye[:E]
    lyrics["project"]["kernel"] = eye.copy()
    lyrics["norm"]["scale"] += 1.0
    layer = params["stack"]["run_0"]["layer_3"]
    layer["norm_0"]["scale"] += 1.0
    second = WIDTH // CONFIG.heads  # its first coordinate
    layer["qkv"]["kernel"][0, :E, second : second + E] = sharpness * eye[:E, :E]
    layer["encoder_kv"]["kernel"][0, :E, second : second + E] = eye[:E, :E]
    return params


def song(tokens, hop_fraction=0.5, characters=20):
    """A song whose lyric window moves evenly through its characters."""
    last = max(1, tokens - T)

    def lyric(offset):
        return round((characters - E) * offset / CONFIG.hop / last)

    def describe(offset):
        return {"lyrics": np.full((1, E), 1 + lyric(offset), np.int32)}

    windows = plan_windows(tokens, T, hop_fraction, 1)
    return SongCodes(np.zeros(tokens, int), windows, describe, lyric, characters)


@pytest.fixture(scope="module")
def read():
    return make_reader(CONFIG, diagonal(4.0), make_mesh(MeshConfig()), COLLECT_LYRICS)


def test_lyric_layers_are_those_that_look_at_lyrics():
    assert lyric_heads(CONFIG) == [Head(3, 0), Head(3, 1)]
    assert alignment.lyric_layers(PriorConfig(depth=79, attn_order=10, lyrics=LyricsConfig())) == [
        18, 28, 38, 48, 58, 68, 78
    ]  # fmt: skip
    prefix = PriorConfig(
        n_ctx=6144, blocks=64, depth=72, attn_order=12, lyrics=LyricsConfig(tokens=384, prefix=True)
    )
    assert alignment.lyric_layers(prefix) == [15, 31, 63]


@pytest.mark.parametrize("tokens", [20, 32, 75])
def test_align_finds_the_diagonal_and_chooses_its_head(read, tokens):
    target = song(tokens)
    found = align(CONFIG, read, target, lyric_heads(CONFIG), batch=8)
    still, moving = found[Head(3, 0)], found[Head(3, 1)]
    # the first head's queries are zeros: it looks everywhere alike, and so never moves
    assert still.monotonicity == pytest.approx(0.0, abs=1e-6)
    if tokens < 32:  # one whole frame: nothing that could move
        assert moving.windows == 0
    else:
        assert moving.windows == len(target.windows)
        assert moving.monotonicity > 0.4  # the state before the first character counts for none
    frames = moving.weights.shape[0]
    assert moving.weights.shape == (-(-tokens // 16), 20)
    for t in range(frames):
        # frames of 16 tokens see the four states of their tokens; state i counts for i - 1
        states = set()
        for token in range(16 * t, min(16 * t + 16, tokens)):
            window = next(w for w in target.windows if w.given <= token < w.stop)
            states.add(target.lyric(window.start * 10) + (token - window.start) // STEP - 1)
        inside = [s for s in states if s >= 0]
        assert moving.weights[t, inside].sum() > 0.97 * len(inside) / len(states)


def test_align_adds_up_the_weights_of_the_window_that_made_a_token(read):
    tokens, characters = 75, 20
    target = song(tokens, 0.3, characters)
    heads = lyric_heads(CONFIG)
    found = align(CONFIG, read, target, heads, batch=8)
    layers = read({"codes": np.zeros((8, T), np.int32), "lyrics": np.zeros((8, E), np.int32)})
    for head in heads:
        weights = np.asarray(head_weights(CONFIG, layers[head.layer], head.head))[0]
        expected = np.zeros((5, characters))
        for token in range(tokens):
            window = next(w for w in target.windows if w.given <= token < w.stop)
            for state in range(E):
                at = target.lyric(window.start * 10) + state - 1
                if 0 <= at < characters:
                    expected[token // 16, at] += weights[token - window.start, state]
        expected[:4] /= 16
        expected[4] /= 11
        np.testing.assert_allclose(found[head].weights, expected, rtol=1e-4, atol=1e-6)


def test_attention_that_is_not_finite_is_refused():
    params = diagonal(np.nan)
    broken = make_reader(CONFIG, params, make_mesh(MeshConfig()), COLLECT_LYRICS)
    with pytest.raises(CheckpointError, match="not finite"):
        align(CONFIG, broken, song(32), lyric_heads(CONFIG), batch=8)


def test_padding_of_short_lyrics_counts_for_no_character(read):
    target = song(32, characters=3)._replace(lyric=lambda offset: 3 - E)
    weights = align(CONFIG, read, target, [Head(3, 1)], batch=8)[Head(3, 1)].weights
    # states 6 and 7 have read characters 0 and 1; none has read the last one
    assert weights.shape == (2, 3)
    np.testing.assert_allclose(weights[0], 0, atol=0.02)
    np.testing.assert_allclose(weights[1], [0.25, 0.25, 0], atol=0.02)


small = arrays.arrays(
    np.float64, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=st.floats(0, 1)
)


@given(small)
def test_kendall_counts_pairs(weights):
    total, frames = 0.0, range(len(weights))
    for s, t in itertools.combinations(frames, 2):
        for i, j in itertools.product(range(weights.shape[1]), repeat=2):
            total += weights[s, i] * weights[t, j] * np.sign(j - i)
    pairs = len(weights) * (len(weights) - 1) / 2
    assert alignment.kendall(weights) == pytest.approx(total / max(pairs, 1), abs=1e-9)


def test_kendall_of_plain_cases():
    eye = np.eye(6)
    assert alignment.kendall(eye) == pytest.approx(1)
    assert alignment.kendall(eye[::-1]) == pytest.approx(-1)
    for still in (eye[[2] * 6], np.full((6, 6), 1 / 6)):
        assert alignment.kendall(still) == pytest.approx(0, abs=1e-12)
    assert 0.1 < alignment.kendall(0.5 * eye + 0.5 / 6) < 0.5


@given(small)
def test_path_is_the_best_of_all_monotone_ones(weights):
    scores = np.log(np.maximum(weights, FLOOR))
    frames, characters = weights.shape
    ways = itertools.combinations_with_replacement(range(characters), frames)
    best = max(sum(scores[t, c] for t, c in enumerate(way)) for way in ways)
    found = alignment.path(weights)
    assert (np.diff(found) >= 0).all()
    assert sum(scores[t, c] for t, c in enumerate(found)) == pytest.approx(best)


def test_words_start_where_their_first_character_is_reached():
    text = "we  all live in a yellow"
    reading = np.array([4, 5, 8, 9, 13, 13, 16])  # begins behind "we", never comes to "yellow"
    seconds = np.arange(7) * 0.5
    found = alignment.timed_words(text, reading, seconds, 3.4)
    assert found == [
        ("all", 0.0, 1.0, 4, 7), ("live", 1.0, 2.0, 8, 12), ("in", 2.0, 3.0, 13, 15),
        ("a", 3.0, 3.4, 16, 17),
    ]  # fmt: skip
    np.testing.assert_array_equal(
        alignment.onsets(reading, seconds, 3.4, np.array([0, 10, 18])), [0.0, 2.0, 3.4]
    )


def test_weights_are_float32_softmax_rows(read):
    layers = read({"codes": np.zeros((8, T), np.int32), "lyrics": np.zeros((8, E), np.int32)})
    for head in range(2):
        weights = np.asarray(head_weights(CONFIG, layers[3], head))
        assert weights.dtype == np.float32
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
