"""Windows: every token made once and in order, and the published starts."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jukejax.config import ConfigError, PriorConfig
from jukejax.sampling.job import Job
from jukejax.sampling.plan import Plan, Window, plan_rounds, plan_windows, positions
from jukejax.sampling.resolve import plan_level

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


# --- chains ---------------------------------------------------------------------------------------


@st.composite
def chained(draw):
    """(total, n_ctx, hop fraction, step, given, chains)."""
    total, n_ctx, fraction, step = draw(songs())
    return total, n_ctx, fraction, step, draw(st.integers(0, total)), draw(st.integers(1, 20))


@given(chained())
@example((44, 16, 0.5, 4, 19, 2))  # the first chain is over before the second
@example((20, 4, 1.0, 4, 3, 20))  # every window a chain, and given tokens that end inside a step
@example((16, 8, 0.5, 4, 16, 3))  # nothing to make
def test_chains_make_every_token_once_from_their_own(song):
    total, n_ctx, _, step, there, chains = song
    plan = plan_rounds(*song)
    made = np.zeros(total, int)
    made[:there] += 1
    begins = [] if not plan.rounds else [window.given for window in plan.rounds[0]]
    ends = [*begins[1:], total]
    for round in plan.rounds:
        assert len(round) == plan.chains
        first, last = positions(round)
        assert 0 <= first < last <= n_ctx
        for chain, w in enumerate(round):
            assert 0 <= w.start <= w.given <= w.stop <= w.start + n_ctx and w.start % step == 0
            assert begins[chain] <= w.given <= w.stop <= ends[chain]
            # what a window is given is there, and of its own chain (or of the song's beginning)
            assert made[w.start : w.given].all()
            assert w.start >= begins[chain] or chain == 0
            assert w.given == w.stop or first <= w.given - w.start < w.stop - w.start <= last
        for w in round:
            made[w.given : w.stop] += 1
    assert (made == 1).all()
    assert plan.chains <= max(1, min(chains, -(-(total - there) // n_ctx)))
    assert begins == [] or begins[0] == there


@given(chained())
def test_inside_a_chain_windows_are_those_of_the_chain_alone(song):
    total, n_ctx, fraction, step, there, chains = song
    plan = plan_rounds(*song)
    begins = [0, *(w.given for w in plan.rounds[0][1:])] if plan.rounds else [0]
    for chain, (begin, end) in enumerate(zip(begins, [*begins[1:], total], strict=True)):
        own = [w for round in plan.rounds for w in [round[chain]] if w.stop > w.given]
        alone = plan_windows(end - begin, n_ctx, fraction, step, there if chain == 0 else 0)
        assert own == [Window(begin + w.start, begin + w.given, begin + w.stop) for w in alone]
    if chains == 1:
        assert plan.windows == plan_windows(total, n_ctx, fraction, step, there)
        assert all(len(round) == 1 for round in plan.rounds)


@given(songs(whole=True), st.integers(1, 20))
def test_chains_of_a_song_from_nothing_are_equally_long_but_for_a_step(song, chains):
    total, n_ctx, _, step = song
    plan = plan_rounds(*song, 0, chains)
    assert plan.chains == min(chains, -(-total // n_ctx))
    begins = [w.given for w in plan.rounds[0]]
    lengths = np.diff([*begins, total])
    assert lengths.max() - lengths.min() <= step
    assert len(plan.rounds) == 1 or lengths.max() > n_ctx
    # side by side they take as long as the longest, but for a step a round
    longest = plan_windows(int(lengths.max()), *song[1:])
    assert plan.steps() <= int(lengths.max()) + step * len(longest)


@given(chained(), st.data())
def test_what_is_made_tells_how_many_rounds_are_over(song, data):
    plan = plan_rounds(*song)
    assert plan.rounds_over(plan.total) == len(plan.rounds)
    assert plan.made(len(plan.rounds)).all()
    if not plan.rounds:
        return
    over = data.draw(st.integers(0, len(plan.rounds) - 1))
    there = plan.made(over)
    assert plan.rounds_over(there.sum()) == over
    first, last = positions(plan.rounds[over])
    assert (plan.made(over, last - first) == plan.made(over + 1)).all()
    some = plan.made(over, data.draw(st.integers(1, last - first)))
    assert (some >= there).all()
    assert plan.steps(over) + last - first == plan.steps(over + 1) <= plan.steps()


def test_chains_of_one_song():
    assert plan_rounds(80, 16, 0.5, 4, 0, 3) == Plan(
        80, 0, (
            (Window(0, 0, 16), Window(24, 24, 40), Window(52, 52, 68)),
            (Window(8, 16, 24), Window(32, 40, 48), Window(60, 68, 76)),
            (Window(8, 24, 24), Window(36, 48, 52), Window(64, 76, 80)),  # the first one waits
        ),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="parallel_segments is 0"):
        plan_rounds(80, 16, 0.5, 4, 0, 0)


def test_windows_of_grouped_codes_begin_at_whole_encoder_outputs():
    job = Job(hop_fraction=(0.3, 0.5, 0.5))
    config = PriorConfig(level=0, hop=8, groups=4, n_ctx=64, blocks=1)
    windows = plan_level(job, config, 8 * 240).windows
    assert len(windows) > 3 and all(w.start % 4 == w.given % 4 == 0 for w in windows)
    assert windows[-1].stop == 240
