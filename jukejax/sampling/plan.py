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


def plan_windows(total: int, n_ctx: int, hop_fraction: float, step: int) -> tuple[Window, ...]:
    """Windows that make tokens 0 .. total - 1 of one level (paper section 4.4).

    The window moves by hop_fraction * n_ctx; the last one is moved back so that it ends with the
    song. A song shorter than a window is one window that stops early.

    Args:
      total: tokens of the song at this level, a multiple of `step`.
      n_ctx: tokens of a window.
      hop_fraction: in (0, 1]; smaller gives each window more past and costs more prefills.
      step: starts are multiples of it: codes of this level per code above.
    """
    if not 0.0 < hop_fraction <= 1.0:
        raise ConfigError(f"hop_fraction is {hop_fraction}; it must be over 0 and at most 1.")
    hop = max(step, int(hop_fraction * n_ctx) // step * step)
    windows: list[Window] = []
    done = 0
    while done < total:
        start = max(0, min(len(windows) * hop, -(-(total - n_ctx) // step) * step))
        stop = min(total, start + n_ctx)
        windows.append(Window(start, done, stop))
        done = stop
    return tuple(windows)
