"""Whether a song really aligned: the likelihood of its words against the same words shuffled."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from data_pipeline.alignment import sphinx

SHUFFLES = 4


@dataclass(frozen=True)
class Scores:
    """Mean log likelihoods a frame: of the words, and of each shuffle that found a path."""

    score: float
    shuffled: tuple[float, ...]

    @property
    def adherence(self) -> float | None:
        """Score less that of the best shuffle; None where no shuffle found a path."""
        return self.score - max(self.shuffled) if self.shuffled else None


def score_words(samples: bytes, words: Sequence[str], path: sphinx.Path) -> Scores:
    """Scores `path` against shuffles of `words`, the same ones each time."""
    shuffled = []
    for seed in range(SHUFFLES):
        other = list(words)
        random.Random(seed).shuffle(other)
        found = sphinx.best_path(samples, other)
        if found is not None and len(found.times) == len(words):
            shuffled.append(found.score)
    return Scores(path.score, tuple(shuffled))


def doubt(scores: Scores) -> str:
    """Why the song did not really align, or an empty text where it did."""
    if scores.adherence is not None and scores.adherence <= 0:
        return "shuffled lyrics fit the voice as well"
    return ""
