"""Did a song align? The likelihood of its words against that of the same words shuffled."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from data_pipeline.align import sphinx
from data_pipeline.align.voice import Sound

PlacedText = tuple[float, tuple[float | None, ...]]
SHUFFLES = 8
LEAST_ADHERENCE = 0.4  # chosen on rendered songs (`jukejax benchmark alignment`)


@dataclass(frozen=True)
class Scores:
    """Mean log likelihoods a frame, of the words' best path and of those of their shuffles."""

    score: float
    shuffled: tuple[float, ...]

    @property
    def adherence(self) -> float:
        """The score minus that of the best shuffle; above 0 for the right words."""
        return self.score - max(self.shuffled, default=self.score)

    @property
    def aligned(self) -> bool:
        """Whether the words score clearly better than every shuffle."""
        return self.adherence >= LEAST_ADHERENCE


@dataclass(frozen=True)
class Placed:
    """Times of words, None for those without pronunciation, and how well they fit."""

    times: tuple[tuple[float, float] | None, ...]
    scores: Scores


def place_words(sound: Sound, plain: Sequence[str]) -> Placed | str:
    """Aligns and scores the words of a sound (N,) at 16 kHz; the reason where that fails.

    Args:
      plain: the words as of `jukejax.text.transliterate.spoken`.
    """
    known = sphinx.known(plain)
    words = [word for word, is_known in zip(plain, known, strict=True) if is_known]
    if not words:
        return "no word could be pronounced"
    sphinx.begin_song()
    samples = sphinx.pcm(sound)
    path = sphinx.best_path(samples, words)
    if path is None:
        return "no path"
    times = iter(path.times)
    placed = tuple(next(times) if is_known else None for is_known in known)
    return Placed(placed, score_words(samples, words, path.score))


def place_texts(sound: Sound, texts: Sequence[Sequence[str]]) -> list[PlacedText | None]:
    """How well each of several texts fits a sound (N,) at 16 kHz.

    Mean log likelihood a frame, and the start of each word in seconds, None of words without
    pronunciation; None for a text without a path. Texts do not depend on each other's order.
    """
    samples = sphinx.pcm(sound)
    placed: list[PlacedText | None] = []
    for plain in texts:
        known = sphinx.known(plain)
        words = [word for word, is_known in zip(plain, known, strict=True) if is_known]
        sphinx.begin_song()
        path = sphinx.best_path(samples, words) if words else None
        if path is None:
            placed.append(None)
            continue
        starts = iter(path.times)
        placed.append((path.score, tuple(next(starts)[0] if x else None for x in known)))
    return placed


def score_words(samples: bytes, words: Sequence[str], score: float) -> Scores:
    """The score of `words` and those of their shuffles, which do not change between calls.

    Stops at the first shuffle that scores nearly as well as the words.
    """
    scores = Scores(score, ())
    for seed in range(SHUFFLES):
        other = list(words)
        random.Random(seed).shuffle(other)
        path = sphinx.best_path(samples, other)
        if path is not None:
            scores = Scores(score, (*scores.shuffled, path.score))
            if not scores.aligned:
                break
    return scores
