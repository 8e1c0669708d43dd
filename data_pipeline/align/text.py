"""Words of lyrics as printed, their pronunciations and the gaps between their times."""

from __future__ import annotations

from collections.abc import Sequence

from jukejax.text import pronunciation
from jukejax.text.lyric_files import LETTER_S, parse_lyrics, spread
from jukejax.text.word_times import Word


def lyric_words(lyrics: str) -> list[str]:
    """The words of lyrics as printed, without headings such as "[Chorus]"."""
    return parse_lyrics(lyrics).text.split()


def pronounce(word: str) -> str | None:
    """Phones of a word that is not in the CMU dictionary, in its symbols, by espeak's rules."""
    phones = pronunciation.phones(word)
    return " ".join(phones).upper().replace("AX", "AH") if phones else None


def fill_gaps(
    words: Sequence[str], times: Sequence[tuple[float, float] | None], seconds: float
) -> tuple[Word, ...]:
    """Every word with times; words without share the gap between their neighbours by letters.

    Args:
      words: as printed.
      times: (start, end) in seconds, or None; at least one is given.
      seconds: length of the song.
    """
    out: list[Word] = []
    i = 0
    while i < len(words):
        known = times[i]
        if known is not None:
            out.append((words[i], round(known[0], 3), round(known[1], 3)))
            i += 1
            continue
        last = next((j for j in range(i, len(words)) if times[j] is not None), len(words))
        after = times[last] if last < len(words) else None
        longest = LETTER_S * sum(max(1, len(word)) for word in words[i:last])
        end = seconds if after is None else after[0]
        begin = out[-1][2] if out else max(0.0, end - longest)
        if after is None:
            end = min(end, begin + longest)
        out += spread(words[i:last], begin, end)
        i = last
    return tuple(out)


def fill_line(
    words: Sequence[str], times: Sequence[tuple[float, float] | None], start: float, end: float
) -> tuple[Word, ...]:
    """Every word of a line with times between the line's start and end, as `fill_gaps`."""
    if not any(times):
        letters = sum(max(1, len(word)) for word in words)
        return spread(words, start, min(end, start + LETTER_S * letters))
    inside = [x and (x[0] - start, x[1] - start) for x in times]
    filled = fill_gaps(words, inside, end - start)
    return tuple((word, round(start + a, 3), round(start + b, 3)) for word, a, b in filled)
