"""Whether a song really aligned: the likelihood of its words against the same words shuffled."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from data_pipeline.align import sphinx

SHUFFLES = 8
LEAST_ADHERENCE = 0.4  # chosen on rendered songs (`experiments.benchmark alignment`)


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
        """Whether the words stand out from every shuffle."""
        return self.adherence >= LEAST_ADHERENCE


def score_words(samples: bytes, words: Sequence[str], score: float) -> Scores:
    """The score of `words` beside those of their shuffles, the same ones each time.

    No more shuffles are tried once one does nearly as well as the words.
    """
    found = Scores(score, ())
    for seed in range(SHUFFLES):
        other = list(words)
        random.Random(seed).shuffle(other)
        path = sphinx.best_path(samples, other)
        if path is not None:
            found = Scores(score, (*found.shuffled, path.score))
            if not found.aligned:
                break
    return found
