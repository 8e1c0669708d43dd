"""Windowed sampling as data: which tokens each window is given, and which it samples."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jukejax.config import ConfigError


@dataclass(frozen=True)
class Window:
    """Tokens [start, start + n_ctx) of a song: [start, given) are given, [given, stop) sampled."""

    start: int
    given: int
    stop: int


def plan_windows(
    total: int, n_ctx: int, hop_fraction: float, step: int, given: int = 0
) -> tuple[Window, ...]:
    """Windows that sample tokens given .. total - 1 of one level (paper section 4.4).

    The window moves by hop_fraction * n_ctx; the last one is moved back so that it ends with the
    song. A song shorter than a window is one window that stops early. Windows with nothing to
    sample are left out.

    Args:
      total: tokens of the song at this level, a multiple of `step`.
      n_ctx: tokens of a window.
      hop_fraction: in (0, 1]; smaller gives each window more past and costs more prefills.
      step: starts are multiples of it: codes of this level per code above.
      given: tokens that the song begins with, such as a prompt's.
    """
    if not 0.0 < hop_fraction <= 1.0:
        raise ConfigError(f"hop_fraction is {hop_fraction}; it must be over 0 and at most 1.")
    hop = max(step, int(hop_fraction * n_ctx) // step * step)
    last = max(0, -(-(total - n_ctx) // step) * step)
    windows: list[Window] = []
    start, done = 0, given
    while done < total:
        stop = min(total, start + n_ctx)
        if stop > done:
            windows.append(Window(start, done, stop))
            done = stop
        start = min(start + hop, last)
    return tuple(windows)


Round = tuple[Window, ...]  # one window per chain, filled side by side


@dataclass(frozen=True)
class Plan:
    """The windows of a level by rounds; the windows of a round are filled as one batch.

    Attributes:
      total: tokens of the song.
      given: tokens that it begins with.
      rounds: one window per chain each. Its windows may begin and end at different positions: a
        round is filled from the first position that any of them samples to the last.
    """

    total: int
    given: int
    rounds: tuple[Round, ...]

    @property
    def chains(self) -> int:
        return len(self.rounds[0]) if self.rounds else 1

    @property
    def windows(self) -> tuple[Window, ...]:
        """All windows that sample something, in the order of the song."""
        active = {w for round in self.rounds for w in round if w.stop > w.given}
        return tuple(sorted(active, key=lambda window: window.given))

    def steps(self, rounds: int | None = None) -> int:
        """Positions that all rounds (or the first `rounds`) fill: up to a token per chain each."""
        return sum(last - first for first, last in map(positions, self.rounds[:rounds]))

    def made(self, rounds: int, drawn: int = 0) -> NDArray[np.bool_]:
        """Which tokens (total,) exist after `rounds` rounds, and `drawn` positions of the next."""
        there = np.arange(self.total) < self.given
        for window in (w for round in self.rounds[:rounds] for w in round):
            there[window.given : window.stop] = True
        for window in self.rounds[rounds] if drawn else ():
            end = window.start + positions(self.rounds[rounds])[0] + drawn
            there[window.given : min(window.stop, end)] = True
        return there

    def rounds_over(self, made: int) -> int:
        """Completed rounds, given `made` tokens."""
        each = [sum(w.stop - w.given for w in round) for round in self.rounds]
        return int(np.searchsorted(self.given + np.cumsum(each), made, side="right"))


def positions(round: Round) -> tuple[int, int]:
    """The first position of its windows that a round samples, and the one after the last."""
    active = [window for window in round if window.stop > window.given]
    return min(w.given - w.start for w in active), max(w.stop - w.start for w in active)


def plan_rounds(
    total: int, n_ctx: int, hop_fraction: float, step: int, given: int = 0, chains: int = 1
) -> Plan:
    """Cuts a level into chains of windows that are sampled side by side.

    The first chain continues the given tokens, each other one begins with an empty past; inside a
    chain, windows are those of `plan_windows`. Chains differ in length by at most a step, and have
    at least half a window: there are never more than windows without overlap. A chain that
    finishes before the others waits in a window that samples nothing.

    Args:
      chains: how many, at most; the other arguments are those of `plan_windows`.
    """
    if chains < 1:
        raise ConfigError(f"parallel_segments is {chains}; it must be 1 (off) or more.")
    count = min(chains, max(1, -(-(total - given) // n_ctx)))
    seams = {(given + i * (total - given) // count) // step * step for i in range(1, count)}
    borders = [given, *sorted(seam for seam in seams if seam > given), total]
    lines = [plan_windows(borders[1], n_ctx, hop_fraction, step, given)]
    for begin, end in itertools.pairwise(borders[1:]):
        alone = plan_windows(end - begin, n_ctx, hop_fraction, step)
        lines.append(tuple(Window(begin + w.start, begin + w.given, begin + w.stop) for w in alone))
    waits = [Window(line[-1].start, line[-1].stop, line[-1].stop) for line in lines if line]
    rounds = tuple(
        tuple(line[i] if i < len(line) else wait for line, wait in zip(lines, waits, strict=True))
        for i in range(max(map(len, lines)))
    )
    return Plan(total, given, rounds)


def codes_above(window: Window, n_ctx: int, ratio: int, total_above: int) -> int:
    """How many codes of the level above must be sampled before a window can begin."""
    return min(total_above, (window.start + n_ctx) // ratio)
