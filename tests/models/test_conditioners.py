"""What a prior is told: timing bins, labels, the codes above, the lyrics encoder."""

import jax
import numpy as np
import oracle
import pytest

from jukejax import presets
from jukejax.config import (
    LabelsConfig,
    LyricsConfig,
    PriorConfig,
    Track,
    TracksConfig,
    UpperConfig,
)
from jukejax.models.conditioners import (
    Labels,
    LyricEncoder,
    Tracks,
    Upper,
    shift_right,
    timing_bins,
)

F = np.float32


def test_shift_right():
    x = np.arange(12, dtype=F).reshape(2, 3, 2)
    out = np.asarray(shift_right(x, np.full((1, 1, 2), 9, F)))
    np.testing.assert_array_equal(out[:, 0], [[9, 9], [9, 9]])
    np.testing.assert_array_equal(out[:, 1:], x[:, :2])
    starts = np.arange(4, dtype=F).reshape(2, 1, 2)
    np.testing.assert_array_equal(np.asarray(shift_right(x, starts))[:, 0], starts[:, 0])


# --- timing ---------------------------------------------------------------------------------------


def bins_one_by_one(config, total, offset):
    """The bins of one window, a position at a time, every operation rounded to float32."""
    labels, t = config.labels, config.n_ctx
    n, rate = F(labels.timing_bins), config.sample_rate

    def index(position, low, high):
        share = F(F(position - F(low)) / F(high - low))
        return min(max(int(np.floor(F(n * share))), 0), labels.timing_bins - 1)

    start = F(offset)
    end = F(start + F(t * config.hop))
    first, last = F(start / F(total)), min(F(end / F(total)), F(1))
    low, high = labels.min_seconds * rate, labels.max_seconds * rate
    steps = [F(F(i) / F(t)) for i in range(t)]
    return (
        [index(F(total), low, high)],
        [index(F(start + F(F(end - start) * s)), 0.0, high) for s in steps],
        [index(F(first + F(F(last - first) * s)), 0.0, 1.0) for s in steps],
    )


def songs(config, seed):
    """(total, offset) in samples: ordinary songs, short and long ones, and window borders."""
    rate, window = config.sample_rate, config.window_samples
    rng = np.random.default_rng(seed)
    totals = rng.integers(60 * rate, 600 * rate, 20)
    pairs = [(int(t), int(rng.integers(0, max(1, t - window)))) for t in totals]
    low, high = (int(s * rate) for s in (config.labels.min_seconds, config.labels.max_seconds))
    pairs += [(t, 0) for t in (low, low + 1, high - 1, low - 1, high, high + 1, low // 2, 2 * high)]
    pairs += [(window, 0), (window, 8 * config.hop), (high, high - window), (2 * high, high)]
    width = high // config.labels.timing_bins
    pairs += [(high - 1, width * i) for i in (1, 2, 3, 50)]
    return pairs


@pytest.mark.parametrize(
    "config",
    [
        PriorConfig(n_ctx=64, hop=128, blocks=8, labels=LabelsConfig()),
        PriorConfig(
            n_ctx=64, hop=128, blocks=8, labels=LabelsConfig(timing_bins=64, min_seconds=17.84)
        ),
        presets.demo_prior().model,
    ],
)
def test_timing_bins(config):
    pairs = songs(config, 0)
    total, offset = (np.array(column, np.int32) for column in zip(*pairs, strict=True))
    found = jax.jit(lambda t, o: timing_bins(config, t, o))(total, offset)
    wrong = 0
    for i, (a, b) in enumerate(pairs):
        expected = bins_one_by_one(config, a, b)
        for bins, wanted in zip(found, expected, strict=True):
            assert bins.shape[1] == len(wanted)
            wrong += int((np.asarray(bins[i]) != wanted).sum())
    assert wrong == 0


def test_timing_bins_span_the_song():
    config = PriorConfig(
        n_ctx=8, hop=100, blocks=2, sample_rate=100,
        labels=LabelsConfig(timing_bins=8, min_seconds=10.0, max_seconds=90.0),
    )  # fmt: skip
    total = np.array([1000, 1999, 2000, 8999, 9000, 400, 800], np.int32)
    offset = np.array([0, 0, 1200, 8000, 8200, 0, 400], np.int32)
    length, absolute, relative = (np.asarray(b) for b in timing_bins(config, total, offset))
    np.testing.assert_array_equal(length[:, 0], [0, 0, 1, 7, 7, 0, 0])
    np.testing.assert_array_equal(absolute[2], [(1200 + 100 * i) * 8 // 9000 for i in range(8)])
    np.testing.assert_array_equal(relative[2], [8 * (1200 + 100 * i) // 2000 for i in range(8)])
    np.testing.assert_array_equal(relative[5], range(8))  # 800 samples of 400: the end is clamped
    np.testing.assert_array_equal(relative[6], [4, 4, 5, 5, 6, 6, 7, 7])


# --- labels ---------------------------------------------------------------------------------------

TOP = PriorConfig(
    n_ctx=12, hop=8, width=8, blocks=4, codes=5, depth=1, sample_rate=100,
    labels=LabelsConfig(
        artists=4, genres=6, max_genres=3, timing_bins=5, min_seconds=1.0, max_seconds=9.0
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def labels():
    """Parameters of the labels and their output for two songs."""
    batch = {
        "artist": np.array([2, 0], np.int32),
        "genres": np.array([[5, 0, -1], [-1, -1, -1]], np.int32),
        "total_length": np.array([600, 300], np.int32),
        "offset": np.array([200, 0], np.int32),
    }
    module = Labels(TOP)
    params = oracle.random_params(lambda key: module.init(key, batch)["params"])
    return params, batch, module.apply({"params": params}, batch)


def test_start_is_the_artist_and_the_sum_of_genres_that_are_there(labels):
    params, _, (start, _) = labels
    assert start.shape == (2, 1, 8)
    bag = params["genre"][5] + params["genre"][0]
    np.testing.assert_allclose(start[0, 0], params["artist"][2] + bag, rtol=1e-6)
    np.testing.assert_array_equal(start[1, 0], params["artist"][0])


def test_timing_is_the_sum_of_three_tables(labels):
    params, batch, (_, timing) = labels
    assert timing.shape == (2, 12, 8)
    names = ("total_length", "absolute_position", "relative_position")
    for i in range(2):
        found = bins_one_by_one(TOP, int(batch["total_length"][i]), int(batch["offset"][i]))
        expected = sum(params[name][bins] for name, bins in zip(names, found, strict=True))
        np.testing.assert_allclose(timing[i], expected, rtol=1e-5, atol=1e-6)


def test_upsamplers_have_no_timing():
    config = PriorConfig(
        n_ctx=8, width=8, blocks=4, depth=1, labels=TOP.labels, upper=UpperConfig(width=4, depth=1)
    )
    module, batch = Labels(config), {"artist": np.zeros(1, int), "genres": np.zeros((1, 3), int)}
    shapes = jax.eval_shape(module.init, jax.random.key(0), batch)
    assert set(shapes["params"]) == {"artist", "genre"}


# --- the level above, the lyrics ------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "scaled"), [(4, True), (2, False)])
def test_upper_is_a_stack_of_convolutions(ratio, scaled):
    upper = UpperConfig(
        ratio=ratio, width=4, depth=3, dilation_growth=2, dilation_cycle=2, scale_residual=scaled
    )
    config = PriorConfig(n_ctx=8 * ratio, width=6, blocks=4, depth=1, codes=7, upper=upper)
    codes = np.random.default_rng(0).integers(0, 7, (2, 8)).astype(np.int32)
    module = Upper(config)
    params = oracle.random_params(lambda key: module.init(key, codes)["params"])
    out = jax.jit(module.apply)({"params": params}, codes)
    assert out.shape == (2, 8 * ratio, 6)
    p = params["convolutions"]
    x = oracle.conv(p["in"], params["token"][codes], pad=1)
    for i in range({2: 1, 4: 2}[ratio]):
        x = oracle.resnet(p[f"resnet_{i}"], x, [1, 2, 1], 3**-0.5 if scaled else 1.0)
        x = oracle.conv_up(p[f"up_{i}"], x)
    np.testing.assert_allclose(out, oracle.layer_norm(params["norm"], x), rtol=1e-4, atol=1e-4)


def test_tracks_are_sums_of_embeddings_and_a_stack_of_convolutions():
    tracks = TracksConfig(
        (Track("phones", ("a", "b", "c")), Track("notes", ("60", "61"), places=2)),
        parts=4, width=5, depth=3, dilation_growth=2, dilation_cycle=2,
    )  # fmt: skip
    config = PriorConfig(n_ctx=8, width=6, blocks=4, depth=1, codes=7, tracks=tracks)
    phones = np.array([[0, 1, 3, -1, 4, 8, 11, -1], [-2] * 8], np.int32)[..., None]
    notes = np.full((2, 8, 2), -1, np.int32)
    notes[0, 2], notes[0, 3, 0], notes[1, 5] = [7, 1], 4, [0, 7]
    module, batch = Tracks(config), {"track_phones": phones, "track_notes": notes}
    p = oracle.random_params(lambda key: module.init(key, batch)["params"])
    out = jax.jit(module.apply)({"params": p}, batch)
    x = np.zeros((2, 8, 5))
    for name, ids in (("phones", phones), ("notes", notes)):
        for row, step, place in np.ndindex(ids.shape):
            number = ids[row, step, place]
            if number == -2:
                x[row, step] += p[name][-1]  # the song has no such track
            elif number >= 0:
                x[row, step] += p[name][number // 4] + p[f"{name}_parts"][number % 4]
    x = oracle.conv(p["out"], oracle.resnet(p["convolutions"], x, [1, 2, 1]))
    np.testing.assert_allclose(out, oracle.layer_norm(p["norm"], x), rtol=1e-4, atol=1e-4)


def test_lyrics_encoder():
    lyrics = LyricsConfig(tokens=6, width=8, depth=2, heads=2, blocks=2, attn_order=1)
    config = PriorConfig(
        n_ctx=8, width=12, heads=1, blocks=4, attn_ratio=0.5, depth=1, lyrics=lyrics
    )
    rng = np.random.default_rng(0)
    text = np.repeat(rng.integers(0, 80, (1, 6)), 7, 0).astype(np.int32)
    text[1 + np.arange(6), np.arange(6)] += 1  # copy 1 + j differs at character j
    text %= 80
    module = LyricEncoder(config)
    p = oracle.random_params(lambda key: module.init(key, text)["params"])
    states, logits = jax.jit(module.apply)({"params": p}, text)
    assert states.shape == (7, 6, 12)
    assert logits.shape == (7, 6, 80)
    x = np.concatenate([np.repeat(p["start"][None], 7, 0), p["token"][text][:, :-1]], 1)
    layers = oracle.unrolled(p["stack"], ((1, ("row", "column")),))
    x, _ = oracle.stack(layers, x + p["position"], 2, 2)
    expected = oracle.layer_norm(p["norm"], oracle.dense(p["project"], x))
    np.testing.assert_allclose(states, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits, expected @ p["output"].T, rtol=1e-4, atol=1e-4)
    changed = (np.asarray(states[1:]) != np.asarray(states[:1])).any(-1)  # (j, i)
    assert not np.tril(changed).any()  # state i has seen the characters before i alone
    assert changed[np.arange(5), np.arange(1, 6)].all()
