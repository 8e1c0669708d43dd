"""Which words of sung excerpts can still be heard: by free recognition and by forced alignment.

Free recognition writes down what it hears: word error rate (WER) and phoneme error rate (PER) are
the fewest substitutions, deletions and insertions that turn the sung words (phonemes) into those
heard, over the number sung. Forced alignment is given the words: adherence is how much better it
fits them than shuffles of them, and the onset error how far the words are placed from their true
times. Alignment is the easier judge; a language model helps recognition with songs it knows.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from jukejax.text.transliterate import spoken


class Recogniser(Protocol):
    """Writes down the words of a mono sound (S,) in [-1, 1]."""

    name: str

    def __call__(self, sound: NDArray[Any], rate: int) -> str: ...


class Placed(NamedTuple):
    """Words placed in a sound: start of each in seconds, None for words without pronunciation."""

    starts: Sequence[float | None]
    adherence: float  # mean log likelihood a frame, minus that of the best shuffle
    fits: bool  # whether that is enough: the rule of `jukejax align`


class Fit(NamedTuple):
    """How well a text fits a sound, to be compared with other texts of the same sound."""

    score: float  # mean log likelihood a frame
    starts: Sequence[float | None]  # of its words in seconds; None without pronunciation


class Aligner(Protocol):
    """Forced alignment, and the pronunciations that it uses; the caller hands one in."""

    def phones(self, words: Sequence[str]) -> list[list[str]]:
        """The phonemes of each word; none for a word without pronunciation."""
        ...

    def align(self, sound: NDArray[Any], rate: int, words: Sequence[str]) -> Placed | None:
        """Places words in a mono sound (S,); None where no path of the words fits."""
        ...

    def fits(
        self, sound: NDArray[Any], rate: int, texts: Sequence[Sequence[str]]
    ) -> list[Fit | None]:
        """How well each of several texts fits a mono sound (S,); None for one without a path."""
        ...


class Sung(NamedTuple):
    """The words of an excerpt as printed, and when each begins, in seconds."""

    printed: list[str]
    starts: list[float]


def plain_words(text: str) -> list[str]:
    """The words of a text as spoken: lower case without signs, split at hyphens."""
    return [word for word in map(spoken, text.replace("-", " ").split()) if word]


def edits(wanted: Sequence[str], heard: Sequence[str]) -> int:
    """The fewest substitutions, deletions and insertions from one sequence to the other."""
    row = list(range(len(heard) + 1))
    for i, a in enumerate(wanted, start=1):
        above, row[0] = row[0], i
        for j, b in enumerate(heard, start=1):
            above, row[j] = row[j], min(above + (a != b), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def shuffled(text: Sung) -> Sung:
    """The same words in another order: what a text that is not sung scores."""
    words = list(text.printed)
    random.Random(0).shuffle(words)
    return Sung(words, text.starts)


def recognised(text: Sung, heard: str, aligner: Aligner) -> dict[str, Any]:
    """Counts of words and phonemes, their errors, and the text heard, as JSON."""
    wanted, words = plain_words(" ".join(text.printed)), plain_words(heard)
    phones, of_heard = ([*chain.from_iterable(aligner.phones(x))] for x in (wanted, words))
    return {
        "words": len(wanted),
        "word_errors": edits(wanted, words),
        "phones": len(phones),
        "phone_errors": edits(phones, of_heard),
        "heard": heard,
    }


def aligned(text: Sung, sound: NDArray[Any], rate: int, aligner: Aligner) -> dict[str, Any]:
    """ "fits", "adherence" and median "onset_error" in seconds, None where there is no path."""
    placed = aligner.align(sound, rate, [spoken(word) for word in text.printed])
    if placed is None:
        return {"fits": False, "adherence": None, "onset_error": None}
    gaps = [
        abs(start - true)
        for start, true in zip(placed.starts, text.starts, strict=True)
        if start is not None
    ]
    fit = {"fits": placed.fits, "adherence": placed.adherence}
    return {**fit, "onset_error": float(np.median(gaps))}


def heard(
    text: Sung,
    sounds: Mapping[str, NDArray[Any]],
    rate: int,
    recogniser: Recogniser,
    aligner: Aligner,
) -> dict[str, dict[str, Any]]:
    """What is heard of one excerpt in each of its versions, by name.

    The first, "original", is also judged by its words in another order: "shuffled words".
    """
    rows = {}
    for name, sound in sounds.items():
        transcript = recogniser(sound, rate)
        rows[name] = recognised(text, transcript, aligner) | aligned(text, sound, rate, aligner)
        if name == "original":
            other = shuffled(text)
            rows["shuffled words"] = recognised(other, transcript, aligner) | aligned(
                other, sound, rate, aligner
            )
    return rows
