"""Whether a song really aligned: the likelihood of its words against the same words shuffled."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from data_pipeline.alignment import sphinx

SHUFFLES = 3
LEAST_ADHERENCE = 0.1  # chosen on rendered songs (`experiments.benchmark alignment`)


@dataclass(frozen=True)
class Scores:
    """Mean log likelihoods of a frame: of the words' path, and of those of their shuffles."""

    score: float
    shuffled: tuple[float, ...]

    @property
    def adherence(self) -> float:
        """Score less that of the best shuffle: over 0 for the right words."""
        return self.score - max(self.shuffled, default=self.score)

    @property
    def aligned(self) -> bool:
        """Whether the words stand out from their shuffles, by more than those differ."""
        spread = max(self.shuffled) - min(self.shuffled) if self.shuffled else 0.0
        return self.adherence >= max(LEAST_ADHERENCE, spread)


def score_words(samples: bytes, words: Sequence[str], score: float) -> Scores:
    """The score of `words` beside those of their shuffles, the same ones each time."""
    shuffled = []
    for seed in range(SHUFFLES):
        other = list(words)
        random.Random(seed).shuffle(other)
        path = sphinx.best_path(samples, other)
        if path is not None:
            shuffled.append(path.score)
    return Scores(score, tuple(shuffled))
