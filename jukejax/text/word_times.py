"""Which lyric token is sung when, for songs whose manifest has the times of their words."""

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
    """Times in seconds (k,), never decreasing, and the lyric token (k,) sung at each."""

    seconds: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.float64]

    def token(self, seconds: float) -> int:
        """The token sung at a time; between two words it is interpolated linearly."""
        return int(np.interp(seconds, self.seconds, self.tokens))


def word_times(text: str, words: Sequence[Word], alphabet: str) -> WordTimes | None:
    """When the tokens of a song's lyrics are sung, by the times of its words.

    Words are matched with `text` by the longest common runs of the two, ignoring case and
    punctuation. None if no word matches.

    Args:
      text: the lyrics.
      words: (text, start, end in seconds) in the order they are sung.
      alphabet: of the tokens (`lyrics.encode`).
    """
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    printed = [_plain(text[begin:end]) for begin, end in spans]
    sung = [_plain(word) for word, _, _ in words]
    runs = SequenceMatcher(None, printed, sung, autojunk=False).get_matching_blocks()
    pairs = [(spans[a + i], words[b + i]) for a, b, size in runs for i in range(size)]
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
