"""Which token of the lyrics is sung when, where a song's manifest has the times of its words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
import numpy.typing as npt

from jukejax.text import lyrics

Word = tuple[str, float, float]  # text, start and end in seconds


@dataclass(frozen=True)
class WordTimes:
    """Times in seconds (k,), never falling, and the token (k,) that each one belongs to."""

    seconds: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.float64]

    def token(self, seconds: float) -> int:
        """The token sung at a time; between two words one between them, straight in time."""
        return int(np.interp(seconds, self.seconds, self.tokens))


def word_times(text: str, words: Sequence[Word], alphabet: str) -> WordTimes | None:
    """Where the words of a manifest lie among the tokens of its lyrics.

    Words are found in `text` by the longest common runs of the two, whatever their case and
    punctuation. None where no word is found.

    Args:
      text: the lyrics.
      words: (text, start, end in seconds) in the order they are sung.
      alphabet: of the tokens (`lyrics.encode`).
    """
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    printed = [_plain(text[begin:end]) for begin, end in spans]
    sung = [_plain(word) for word, _, _ in words]
    found = SequenceMatcher(None, printed, sung, autojunk=False).get_matching_blocks()
    pairs = [(spans[a + i], words[b + i]) for a, b, size in found for i in range(size)]
    if not pairs:
        return None
    seconds, tokens, at, count = [], [], 0, 0
    for (begin, end), (_, start_s, end_s) in pairs:
        count += len(lyrics.encode(text[at:begin], alphabet))
        tokens.append(count)
        count += len(lyrics.encode(text[begin:end], alphabet))
        tokens.append(count)
        seconds += [start_s, end_s]
        at = end
    return WordTimes(np.maximum.accumulate(seconds), np.asarray(tokens, np.float64))


def _plain(word: str) -> str:
    """A word without case and punctuation; punctuation alone stays."""
    return re.sub(r"\W", "", word.casefold()) or word
