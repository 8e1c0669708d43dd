"""Lyrics as tokens: the two published alphabets and the window rule.

Token 0 is padding; ids of characters start at 1. Alphabet "v2" has 80 ids, "v3" 79: it lacks
'+', so every later id is one lower.
"""

import functools
import re

import numpy as np
import numpy.typing as npt

from data_pipeline.errors import DataError
from data_pipeline.transliterate import to_ascii

Tokens = npt.NDArray[np.int32]
Real = type[np.float32] | type[np.float64]

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
ALPHABETS = {
    "v2": _LETTERS + ".,:;!?-+'\"()[] \t\n",
    "v3": _LETTERS + ".,:;!?-'\"()[] \t\n",
}
SIZES = {name: len(characters) + 1 for name, characters in ALPHABETS.items()}  # with id 0

_LRC_TIME = re.compile(r"[\[<]\d+:\d{1,2}(?:[.:]\d+)?[\]>]")
_LRC_TAG = re.compile(r"^\[(?:ar|ti|al|au|by|length|offset|re|ve|tool|la|#)\s*:.*\]\s*$", re.I)


def _characters(alphabet: str) -> str:
    if alphabet not in ALPHABETS:
        raise DataError(f"the lyric alphabet {alphabet!r} is unknown; choose from {list(SIZES)}")
    return ALPHABETS[alphabet]


def clean(text: str, alphabet: str = "v2") -> str:
    """`text` in the letters of `alphabet`.

    Transliterates to ASCII, then turns a backslash into a newline and drops what is left over.
    """
    keep = set(_characters(alphabet))
    plain = to_ascii(text).replace("\\", "\n")
    return "".join(character for character in plain if character in keep)


@functools.cache
def _table(alphabet: str) -> npt.NDArray[np.int32]:
    """ids by ASCII code: (128,) int32."""
    table = np.zeros(128, np.int32)
    for index, character in enumerate(_characters(alphabet), start=1):
        table[ord(character)] = index
    return table


def encode(text: str, alphabet: str = "v2") -> Tokens:
    """The tokens of `clean(text)`: (length,) int32, values 1..size-1."""
    plain = clean(text, alphabet).encode("ascii")
    return _table(alphabet)[np.frombuffer(plain, np.uint8)]


def decode(tokens: npt.ArrayLike, alphabet: str = "v2") -> str:
    """The text of tokens; padding (0) gives nothing.

    Raises:
      DataError: a token is outside the alphabet.
    """
    characters = _characters(alphabet)
    ids = np.asarray(tokens).ravel()
    if ids.size and (ids.min() < 0 or ids.max() > len(characters)):
        raise DataError(
            f"lyric tokens must lie in 0..{len(characters)} for alphabet {alphabet!r}, but are "
            f"in {ids.min()}..{ids.max()}; see whether the alphabet is the model's"
        )
    return "".join(characters[index - 1] for index in ids if index > 0)


def window(
    tokens: Tokens, n: int, total_length: int, offset: int, duration: int, real: Real = np.float64
) -> Tokens:
    """The `n` lyric tokens around the middle of a stretch of a song: (n,) int32.

    Args:
      tokens: (length,) int32, the tokens of the whole song.
      n: tokens wanted.
      total_length: length of the song in samples.
      offset: start of the stretch in samples.
      duration: length of the stretch (the prior's window) in samples.
      real: the precision that the middle is computed in. The published models were trained with
        float64 and are sampled with float32; about one window in a thousand differs by a token.

    Shorter lyrics are padded with 0 on the left. Longer ones are cut linearly in time. Where the
    published code stops because the offset is outside the song, the window is clamped to the text.
    """
    start = window_start(len(tokens), n, total_length, offset, duration, real)
    if start < 0:
        return np.concatenate([np.zeros(-start, np.int32), tokens]).astype(np.int32)
    return np.asarray(tokens[start : start + n], np.int32)


def window_start(
    length: int, n: int, total_length: int, offset: int, duration: int, real: Real = np.float64
) -> int:
    """Where the window starts among `length` tokens; -k stands for k tokens of padding."""
    if n <= 0:
        return 0
    if length < n:
        return length - n
    middle = int(real(length) * (real(offset) + real(duration / 2)) / real(total_length))
    return min(max(middle, n // 2), length - n + n // 2) - n // 2


def strip_lrc(text: str) -> str:
    """The words of an LRC file: without its line times, word times and header tags."""
    lines = (line for line in text.splitlines() if not _LRC_TAG.match(line.strip()))
    return "\n".join(_LRC_TIME.sub("", line).strip() for line in lines).strip("\n") + "\n"
