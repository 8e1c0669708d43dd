"""Forced alignment for evaluation: `jukejax.evaluation.words.Aligner` over pocketsphinx."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.align import judge, sphinx
from data_pipeline.align.songs import Options
from data_pipeline.align.voice import RATE
from jukejax.evaluation.words import Fit, Placed


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
        placed = self._judged(judge.place_words, sound, rate, list(words))
        if placed is None or isinstance(placed, str):
            return None
        starts = [time and time[0] for time in placed.times]
        return Placed(starts, placed.scores.adherence, placed.scores.aligned)

    def fits(
        self, sound: NDArray[Any], rate: int, texts: Sequence[Sequence[str]]
    ) -> list[Fit | None]:
        placed = self._judged(judge.place_texts, sound, rate, [list(text) for text in texts])
        return [x and Fit(*x) for x in placed or [None] * len(texts)]

    def _judged(self, judge: Callable[..., Any], sound: NDArray[Any], rate: int, words: Any) -> Any:
        """What `judge` says of a sound and words; None where the decoder crashed or did not end."""
        import pebble
        import soxr

        given = [soxr.resample(np.asarray(sound, np.float32), rate, RATE), words]
        try:
            return self._pool.schedule(judge, given, timeout=Options().time_limit).result()
        except (pebble.ProcessExpired, TimeoutError):
            return None
