"""Counting models against brute force."""

import itertools
from collections import Counter

import numpy as np
import pytest

from jukejax.errors import CheckpointError
from jukejax.evaluation import counting


def counted(sequences, codes=5):
    counts = counting.empty_counts(codes)
    for sequence in sequences:
        counting.count(counts, np.asarray(sequence, np.uint16))
    return counts


def test_counts_do_not_cross_songs():
    counts = counted([[0, 1, 1, 1, 0], [2], [], [0, 1]])
    assert counts.tokens.tolist() == [3, 4, 1, 0, 0]
    pairs = {(a, b): int(n) for (a, b), n in np.ndenumerate(counts.pairs) if n}
    assert pairs == {(0, 1): 2, (1, 1): 2, (1, 0): 1}


def test_each_place_of_a_group_is_counted_by_itself_with_the_codes_before_it():
    counts = counting.empty_counts(3)
    counting.count(counts, np.array([0, 1, 2, 2, 0, 1, 1]), place=0, groups=3)
    assert counts.tokens.tolist() == [1, 1, 1]  # at 0, 3 and 6
    assert [tuple(map(int, pair)) for pair in np.argwhere(counts.pairs)] == [(1, 1), (2, 2)]
    counting.count(counts, np.array([0, 1, 2]), place=2, groups=3)
    assert counts.tokens.tolist() == [1, 1, 2] and counts.pairs[1, 2] == 1


def test_a_code_beyond_the_codebook_is_refused():
    with pytest.raises(CheckpointError, match="go up to 5"):
        counted([[0, 5]])


def test_unigram_and_bigram_bits_by_brute_force():
    rng = np.random.default_rng(0)
    songs = [rng.integers(0, 4, n).tolist() for n in (30, 17, 1)]
    model = counting.fit(counted(songs))._replace(alpha=2.5)
    windows = rng.integers(0, 5, (3, 7))  # code 4 never occurs in training
    tokens = [b for song in songs for b in song]
    pairs = [pair for song in songs for pair in itertools.pairwise(song)]

    def unigram(b):
        return (tokens.count(b) + 1) / (len(tokens) + 5)

    def bigram(a, b):
        after = sum(first == a for first, _ in pairs)
        return (pairs.count((a, b)) + 2.5 * unigram(b)) / (after + 2.5)

    assert sum(unigram(b) for b in range(5)) == pytest.approx(1)
    for a in range(5):
        assert sum(bigram(a, b) for b in range(5)) == pytest.approx(1)
    for window, single, double in zip(
        windows, model.unigram_bits(windows), model.bigram_bits(windows), strict=True
    ):
        wanted = [-np.log2(unigram(b)) for b in window]
        np.testing.assert_allclose(single, wanted, rtol=1e-12)
        pairwise = [-np.log2(bigram(a, b)) for a, b in itertools.pairwise(window)]
        np.testing.assert_allclose(double, [wanted[0], *pairwise], rtol=1e-12)


def test_alpha_is_the_best_when_pairs_are_left_out_in_turn():
    rng = np.random.default_rng(1)
    song = np.cumsum(rng.choice([0, 0, 1], 60)) % 5
    counts = counted([song])

    def bits(alpha):
        total = 0.0
        for t in range(1, len(song)):
            others = [(song[i - 1], song[i]) for i in range(1, len(song)) if i != t]
            a, b = song[t - 1], song[t]
            unigram = ((song == b).sum() - 1 + 1) / (len(song) - 1 + 5)
            after = sum(first == a for first, _ in others)
            total -= np.log2((others.count((a, b)) + alpha * unigram) / (after + alpha))
        return total

    assert counting.choose_alpha(counts) == min(counting.ALPHAS, key=bits)


def test_alpha_is_large_where_neighbours_say_nothing_and_small_where_they_say_all():
    rng = np.random.default_rng(2)
    assert counting.choose_alpha(counted([rng.integers(0, 5, 4000)])) > 50
    assert counting.choose_alpha(counted([np.arange(4000) % 5])) == counting.ALPHAS[0]


# --- Kneser-Ney -----------------------------------------------------------------------------------

SONGS = [np.random.default_rng(3).binomial(3, 0.4, n) for n in (50, 31, 2, 1)]


def kneser_ney(history, code, top, place, groups):
    """p(code | history) of interpolated Kneser-Ney from the songs, straight from the formula."""

    def grams(n):
        return Counter(
            tuple(s[i - n + 1 : i + 1])
            for s in SONGS
            for i in range(n - 1, len(s))
            if i % groups == place
        )

    n = len(history) + 1
    counts = grams(n) if top else Counter(gram[1:] for gram in grams(n + 1))
    once, twice = (list(counts.values()).count(times) for times in (1, 2))
    discount = once / (once + 2 * twice) if once and twice else 0.5
    lower = kneser_ney(history[1:], code, False, place, groups) if history else 1 / 4
    follow = [counts[(*history, b)] for b in range(4)]
    if not sum(follow):
        return lower
    kept = max(counts[(*history, code)] - discount, 0)
    return (kept + discount * np.count_nonzero(follow) * lower) / sum(follow)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_kneser_ney_is_the_formula_of_each_place(order, groups):
    windows = np.random.default_rng(4).integers(0, 4, (3, 9))
    for place in range(groups):
        model = counting.KneserNey(SONGS, codes=4, order=4, place=place, groups=groups)
        found = 2.0 ** -model.bits(windows, (2, order))[order]
        for window, row in zip(windows.tolist(), found, strict=True):
            for t in range(place, 9, groups):
                n = min(t + 1, order)  # less is known at the beginning
                history = tuple(window[t - n + 1 : t])
                wanted = kneser_ney(history, window[t], n == order, place, groups)
                assert row[t] == pytest.approx(wanted, rel=1e-12)


def test_kneser_ney_sums_to_one_also_after_what_never_occurred():
    model = counting.KneserNey([np.array([0, 1, 1, 2, 0, 1])], codes=5, order=3)
    for before in itertools.product(range(5), repeat=2):
        windows = np.array([[*before, b] for b in range(5)])
        assert (2.0 ** -model.bits(windows, (3,))[3][:, 2]).sum() == pytest.approx(1)


def test_longer_contexts_pay_where_they_say_more_and_nothing_is_infinite():
    rng = np.random.default_rng(5)
    song = [0, 1, 0]
    for _ in range(4000):  # the next code follows from the one three before, mostly
        song.append((song[-3] + 1) % 6 if rng.random() < 0.9 else int(rng.integers(6)))
    model = counting.KneserNey([np.array(song[:3000])], codes=6, order=5)
    bits = model.bits(np.array([song[3000:]]), (1, 2, 4))
    assert bits[4].mean() < bits[2].mean() - 1 < bits[1].mean()
    nothing = counting.KneserNey([np.zeros(0, np.uint16)], codes=6, order=5)
    np.testing.assert_allclose(nothing.bits(np.array([[1, 2, 3]]), (5,))[5], np.log2(6))


def test_orders_that_do_not_fit_into_a_number_are_refused():
    with pytest.raises(ValueError, match="64 bits"):
        counting.KneserNey([], codes=2**13, order=5)
