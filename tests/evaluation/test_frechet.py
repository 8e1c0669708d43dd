"""Fréchet distance and neighbours against scipy and known cases."""

import numpy as np
import pytest
import scipy.linalg

from jukejax.evaluation import frechet


def sets(n=300, m=200, d=12, seed=0):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d))
    return rng.normal(size=(n, d)) @ mix, rng.normal(size=(m, d)) @ mix * 1.3 + 0.4


@pytest.mark.parametrize(("m", "d"), [(200, 12), (500, 40), (8, 12)])  # the last lacks rank
def test_distance_is_scipys(m, d):
    a, b = sets(m=m, d=d)
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(ca @ cb + 1e-13 * np.eye(d)).real
    gap = a.mean(0) - b.mean(0)
    wanted = gap @ gap + np.trace(ca + cb - 2 * root)
    assert frechet.distance(frechet.fit(a), b) == pytest.approx(wanted, rel=1e-5)


def test_distance_of_known_gaussians():
    a, _ = sets(n=2000)
    real = frechet.fit(a)
    assert frechet.distance(real, a) == pytest.approx(0, abs=1e-9)
    assert frechet.distance(real, a + 2.0) == pytest.approx(4.0 * 12)
    scaled = a.mean(0) + 3.0 * (a - a.mean(0))  # (3 - 1)^2 tr C
    assert frechet.distance(real, scaled) == pytest.approx(4 * np.trace(np.cov(a.T)))


def test_the_limit_takes_the_bias_of_few_vectors_away():
    rng = np.random.default_rng(1)
    real = frechet.fit(rng.normal(size=(20_000, 20)))
    made = rng.normal(size=(200, 20))
    made[:, 0] += 1.0  # the true distance is 1
    limits = [frechet.limit(real, made, seed).value for seed in range(5)]
    assert frechet.distance(real, made) > 1.2
    assert abs(np.mean(limits) - 1.0) < 0.25


def test_intervals_hold_the_truth_and_redraw_songs():
    rng = np.random.default_rng(2)
    real = frechet.fit(rng.normal(size=(20_000, 5)))
    made = rng.normal(size=(400, 5)) + np.array([1.0, 0, 0, 0, 0])
    plain, limit, line = frechet.estimate(real, made, np.arange(400) // 4)
    assert plain.low < plain.value < plain.high
    assert limit.low < 1.0 < limit.high
    assert line.sizes[-1] == 400
    # Far from the real ones, as an interval near 0 is cut there; the windows of a song are alike.
    songs = 3.0 + np.repeat(rng.normal(size=(20, 5)), 20, axis=0) + 0.1 * made
    by_song, _, _ = frechet.estimate(real, songs, np.arange(400) // 20)
    by_window, _, _ = frechet.estimate(real, songs, np.arange(400))
    assert by_song.high - by_song.low > 1.5 * (by_window.high - by_window.low)


def test_what_few_vectors_cannot_tell_is_not_told():
    rng = np.random.default_rng(4)
    real = frechet.fit(rng.normal(size=(50, 3)))
    made = rng.normal(size=(8, 3))
    few, limit, line = frechet.estimate(real, made[:7], np.arange(7))
    assert few.low < few.value and limit is line is None
    song, limit, line = frechet.estimate(real, made, np.zeros(8))
    assert (song.low, song.high) == (limit.low, limit.high) == (None, None)
    assert sorted(set(line.sizes)) == list(range(2, 9))


def test_neighbours_in_known_cases():
    rng = np.random.default_rng(3)
    real, same = rng.normal(size=(2, 400, 4))
    alike = frechet.neighbours(real, same)
    assert min(alike["precision"], alike["recall"], alike["coverage"]) > 0.8
    assert alike["density"] == pytest.approx(1.0, abs=0.1)
    far = frechet.neighbours(real, same + 100)
    assert [far[x] for x in ("precision", "recall", "density", "coverage")] == [0, 0, 0, 0]
    narrow = frechet.neighbours(real, 0.01 * same)  # true to life, of one kind
    assert narrow["precision"] == 1
    assert narrow["recall"] < 0.05


def test_neighbours_are_their_definition():
    rng = np.random.default_rng(4)
    real, made, k = rng.normal(size=(30, 3)), rng.normal(size=(20, 3)) + 0.7, 5

    def ball(own, x):
        return sorted(np.linalg.norm(own - x, axis=1))[k]

    pairs = [[np.linalg.norm(r - m) for m in made] for r in real]
    balls, made_balls = [ball(real, r) for r in real], [ball(made, m) for m in made]
    n, m = range(30), range(20)
    found = frechet.neighbours(real, made, k)
    assert found["precision"] == np.mean([any(pairs[i][j] < balls[i] for i in n) for j in m])
    assert found["recall"] == np.mean([any(pairs[i][j] < made_balls[j] for j in m) for i in n])
    counts = [sum(pairs[i][j] < balls[i] for i in n) / k for j in m]
    assert found["density"] == pytest.approx(np.mean(counts))
    assert found["coverage"] == np.mean([min(pairs[i]) < balls[i] for i in n])
