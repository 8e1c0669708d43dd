"""Forced alignment for evaluation: `jukejax.evaluation.words.Aligner` over pocketsphinx."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.align import judge, sphinx
from data_pipeline.align.songs import Options
from data_pipeline.align.voice import RATE
from jukejax.evaluation.words import Placed


class WordAligner:
    """Runs the decoder in a process of its own: native code that may crash, or never end."""

    def __init__(self) -> None:
        """Raises DataError: a package of the extra `align` is missing."""
        Options().check()
        import pebble

        self._pool = pebble.ProcessPool(1, context=multiprocessing.get_context("spawn"))

    def phones(self, words: Sequence[str]) -> list[list[str]]:
        phones: list[list[str]] = self._pool.schedule(sphinx.phones, [list(words)]).result()
        return phones

    def align(self, sound: NDArray[Any], rate: int, words: Sequence[str]) -> Placed | None:
        import pebble
        import soxr

        given = [soxr.resample(np.asarray(sound, np.float32), rate, RATE), list(words)]
        future = self._pool.schedule(judge.place_words, given, timeout=Options().time_limit)
        try:
            placed = future.result()
        except (pebble.ProcessExpired, TimeoutError):
            return None
        if isinstance(placed, str):
            return None
        starts = [time and time[0] for time in placed.times]
        return Placed(starts, placed.scores.adherence, placed.scores.aligned)
