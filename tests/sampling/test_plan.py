"""Windows: every token made once and in order, and the published starts."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jukejax.config import ConfigError
from jukejax.sampling.plan import Window, plan_windows

FRACTIONS = st.one_of(st.sampled_from([0.1, 0.125, 0.5, 1.0]), st.floats(1e-6, 1.0))


@st.composite
def songs(draw, whole=False):
    """(total, n_ctx, hop fraction, step); n_ctx is a multiple of step where `whole`."""
    step = draw(st.sampled_from([1, 2, 4, 8]))
    n_ctx = draw(st.integers(1, 12)) * step + (0 if whole else draw(st.integers(0, step - 1)))
    return draw(st.integers(1, 40)) * step, n_ctx, draw(FRACTIONS), step


@given(songs())
@example((40, 16, 0.1, 4))  # 1.6 tokens are no whole step
@example((8, 16, 0.5, 4))
@example((16, 16, 1.0, 4))
def test_every_token_is_made_once_inside_its_window(song):
    total, n_ctx, _, step = song
    windows = plan_windows(*song)
    assert [w.given for w in windows] == [0, *(w.stop for w in windows[:-1])]
    assert windows[-1].stop == total
    for w in windows:
        assert 0 <= w.start <= w.given < w.stop <= w.start + n_ctx
        assert w.start % step == 0
        assert w.start + n_ctx < max(total, n_ctx) + step  # nothing but padding lies past the end
    starts = [w.start for w in windows]
    assert starts == sorted(set(starts))


@given(songs(whole=True))
@example((40, 16, 0.5, 4))
@example((40, 16, 1.0, 4))
@example((44, 16, 0.5, 4))  # the last window moves back
@example((16, 16, 0.125, 1))
def test_starts_are_the_published_ones(song):
    total, n_ctx, fraction, step = song
    hop = max(int(fraction * n_ctx) // step * step, step)
    expected, start = [], 0
    while start + n_ctx < total:
        expected.append(start)
        start += hop
    expected.append(max(total - n_ctx, 0))
    assert [w.start for w in plan_windows(*song)] == expected


@given(songs(whole=True))
def test_windows_but_the_last_keep_the_past_that_the_fraction_leaves(song):
    _, n_ctx, fraction, step = song
    for w in plan_windows(*song)[1:]:
        # moving by at most the fraction of a window (or one step) leaves the rest as the past
        assert w.given - w.start >= n_ctx - max(fraction * n_ctx, step)


def test_windows_of_one_song():
    assert plan_windows(40, 16, 0.5, 4) == (
        Window(0, 0, 16), Window(8, 16, 24), Window(16, 24, 32), Window(24, 32, 40),
    )  # fmt: skip
    assert plan_windows(44, 16, 0.75, 4) == (
        Window(0, 0, 16), Window(12, 16, 28), Window(24, 28, 40), Window(28, 40, 44),
    )  # fmt: skip


def test_a_song_shorter_than_a_window_is_one_window_that_stops_early():
    assert plan_windows(12, 16, 0.125, 4) == (Window(0, 0, 12),)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.0001, float("nan"), float("inf")])
def test_hop_fraction_outside_its_range_is_refused(fraction):
    with pytest.raises(ConfigError, match=r"hop_fraction is .*over 0 and at most 1"):
        plan_windows(40, 16, fraction, 4)
