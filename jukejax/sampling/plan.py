"""Which tokens each window is given and which it makes, as data."""

from __future__ import annotations

from dataclasses import dataclass

from jukejax.config import ConfigError


@dataclass(frozen=True)
class Window:
    """Tokens [start, start + n_ctx) of a song: [start, given) are there, [given, stop) are made."""

    start: int
    given: int
    stop: int


def plan_windows(
    total: int, n_ctx: int, hop_fraction: float, step: int, given: int = 0
) -> tuple[Window, ...]:
    """Windows that make tokens given .. total - 1 of one level (paper section 4.4).

    The window moves by hop_fraction * n_ctx; the last one is moved back so that it ends with the
    song. A song shorter than a window is one window that stops early. Windows with nothing to make
    are left out.

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


def codes_above(window: Window, n_ctx: int, ratio: int, total_above: int) -> int:
    """How many codes of the level above must be there before a window can be made."""
    return min(total_above, (window.start + n_ctx) // ratio)
