"""Intervals and comparisons against what is known of them."""

import numpy as np
import pytest

from jukejax.evaluation import bootstrap
from jukejax.evaluation.comparison import compare
from jukejax.evaluation.results import Score


def songs(values, weights=None):
    weights = np.ones(len(values)) if weights is None else weights
    pairs = zip(values, weights, strict=True)
    return {str(i): (float(v), float(w)) for i, (v, w) in enumerate(pairs)}


def test_the_interval_of_many_songs_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = bootstrap.interval(songs(values))
    half = 1.96 * values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_intervals_cover_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(100):
        weights = rng.uniform(1, 3, 60)
        low, high = bootstrap.interval(songs(rng.normal(0, 1, 60), weights))
        inside += low <= 0 <= high
    assert 88 <= inside <= 99


def test_weights_count_and_one_song_has_no_interval():
    difference, interval = bootstrap.difference(songs([1.0], [5.0]), songs([3.0], [7.0]))
    assert (difference, interval) == (2.0, None)
    difference, _ = bootstrap.difference(songs([0, 0], [3, 1]), songs([4, 8], [1, 1]))
    assert difference == (4 * 3 + 8) / 4
    with pytest.raises(ValueError, match="no song"):
        bootstrap.difference({"a": (1.0, 1.0)}, {"b": (1.0, 1.0)})


def test_pairs_show_what_each_alone_does_not():
    rng = np.random.default_rng(2)
    hard = rng.normal(5.0, 2.0, 20)  # songs differ far more than models do
    first, second = songs(hard), songs(hard - 0.1 + rng.normal(0, 0.02, 20))
    (row,) = compare([Score("bits", 0.0, "lower", first)], [Score("bits", 0.0, "lower", second)])
    assert row["better"] == "second" and row["songs"] == 20
    assert row["interval"][0] < -0.1 < row["interval"][1] < 0
    (row,) = compare([Score("dB", 0.0, "higher", first)], [Score("dB", 0.0, "higher", second)])
    assert row["better"] == "first"
    (row,) = compare([Score("x", 0.0, "", first)], [Score("x", 0.0, "", second)])
    assert row["better"] == ""


def test_only_songs_of_both_count():
    first = {"a": (1.0, 2.0), "b": (2.0, 2.0), "c": (9.0, 2.0)}
    second = {"b": (4.0, 5.0), "a": (1.0, 5.0), "d": (0.0, 1.0)}
    (row,) = compare([Score("s", 4.0, "lower", first)], [Score("s", 2.3, "lower", second)])
    assert (row["first"], row["second"], row["difference"]) == (1.5, 2.5, 1.0)
    assert (row["songs"], row["better"]) == (2, "unclear")


def test_intervals_without_songs_are_taken_as_independent():
    a = Score("fad", 10.0, "lower", interval=(7.0, 13.0))
    b = Score("fad", 4.0, "lower", interval=(0.0, 8.0))
    (row,) = compare([a, Score("only here", 1.0, "lower")], [b])
    assert row["interval"] == (-11.0, -1.0) and row["better"] == "second"
    (row,) = compare([a], [Score("fad", 4.0, "lower")])
    assert row["interval"] is None and row["better"] == ""
