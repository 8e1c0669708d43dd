"""Lyrics as tokens of an alphabet (`jukejax.alphabets`), and the window rule.

Text is brought to Unicode's NFC for alphabets of bytes and of characters, so that one word is not
spelled in two ways.
"""

import functools
import unicodedata
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from jukejax.alphabets import BYTES, CHARACTERS, PUBLISHED, characters, size
from jukejax.errors import DataError
from jukejax.text.normal import nfc
from jukejax.text.transliterate import to_ascii

Tokens = npt.NDArray[np.int32]
Real = type[np.float32] | type[np.float64]


def _characters(alphabet: str) -> str:
    known = characters(alphabet)
    if known is None:
        raise DataError(
            f"the lyric alphabet {alphabet!r} is unknown; choose from {[*PUBLISHED, BYTES]}, or "
            f"give {CHARACTERS!r} followed by the characters"
        )
    return known


def alphabet_of(texts: Iterable[str]) -> str:
    """The "characters:" alphabet of all characters of some lyrics, by code point.

    Raises:
      DataError: there are no lyrics.
    """
    used: set[str] = set()
    for text in texts:
        used.update(_normal(text))
    if not used:
        raise DataError(
            "no song has lyrics to take an alphabet from; add lyrics, choose the alphabet "
            f"{BYTES!r}, or train without lyrics"
        )
    return CHARACTERS + "".join(sorted(used))


def _normal(text: str) -> str:
    """NFC, with "\n" as the end of a line, without lone surrogates."""
    text = nfc(text).replace("\r\n", "\n")
    return text.encode("utf-8", "ignore").decode("utf-8")


def clean(text: str, alphabet: str = "v2") -> str:
    """`text` without what `alphabet` does not have.

    For v2 and v3 it is transliterated to ASCII first, and a backslash is a newline.
    """
    if alphabet == BYTES:
        return _normal(text)
    own = alphabet.startswith(CHARACTERS)
    plain = _normal(text) if own else to_ascii(text).replace("\\", "\n")
    return "".join(c for c in plain if c in _places(alphabet))


@functools.cache
def _places(alphabet: str) -> dict[str, int]:
    """Ids by character."""
    return {c: i for i, c in enumerate(_characters(alphabet), start=1)}


def encode(text: str, alphabet: str = "v2") -> Tokens:
    """The tokens of `clean(text)`: (length,) int32, values 1..size-1."""
    if alphabet == BYTES:
        return np.frombuffer(_normal(text).encode(), np.uint8).astype(np.int32) + 1
    places = _places(alphabet)
    return np.array([places[c] for c in clean(text, alphabet)], np.int32)


def token_counts(text: str, alphabet: str = "v2") -> list[int]:
    """Number of tokens of each character of a text; they add up to those of the text.

    Of characters that NFC joins, the first has the tokens of all.
    """
    parts: list[str] = []
    for c in text:
        separate = alphabet in PUBLISHED or not unicodedata.combining(c)
        if separate and alphabet not in PUBLISHED and parts:
            separate = _normal(parts[-1] + c) == _normal(parts[-1]) + _normal(c)
        if separate or not parts:
            parts.append(c)
        else:
            parts[-1] += c
    return [n for part in parts for n in (len(encode(part, alphabet)), *[0] * (len(part) - 1))]


def decode(tokens: npt.ArrayLike, alphabet: str = "v2") -> str:
    """The text of tokens, without padding (0); bytes that are no character become "\ufffd".

    Raises:
      DataError: a token is outside the alphabet.
    """
    last = size(alphabet) - 1
    ids = np.asarray(tokens).ravel()
    if ids.size and (ids.min() < 0 or ids.max() > last):
        raise DataError(
            f"lyric tokens of alphabet {alphabet:.40} are in 0..{last}, but these are in "
            f"{ids.min()}..{ids.max()}; check that the alphabet is the model's"
        )
    if alphabet == BYTES:
        return (ids[ids > 0] - 1).astype(np.uint8).tobytes().decode("utf-8", "replace")
    known = _characters(alphabet)
    return "".join(known[index - 1] for index in ids if index > 0)


def window(
    tokens: Tokens,
    n: int,
    total_length: int,
    offset: int,
    duration: int,
    real: Real = np.float64,
    alphabet: str = "v2",
) -> Tokens:
    """The `n` lyric tokens around the middle of a part of a song: (n,) int32 (paper section 4.2).

    Args:
      tokens: (length,) int32, the tokens of all lyrics of the song.
      n: number of tokens of the window.
      total_length: length of the song in samples.
      offset: start of the part in samples.
      duration: length of the part (the prior's window) in samples.
      real: precision in which the middle is computed. The published models were trained with
        float64 and are sampled with float32; about one window in a thousand differs by a token.
      alphabet: of the tokens; a window of "bytes" begins and ends between two characters.

    Shorter lyrics are padded with 0 on the left. In longer ones the place is linear in time. Where
    the offset is outside the song, which is an error in the published code, the window is clamped
    to the text.
    """
    start, stop = window_span(tokens, n, total_length, offset, duration, real, alphabet)
    padding = np.zeros(max(n, 0) - (stop - start), np.int32)
    return np.concatenate([padding, tokens[start:stop]]).astype(np.int32)


def window_span(
    tokens: Tokens,
    n: int,
    total_length: int,
    offset: int,
    duration: int,
    real: Real = np.float64,
    alphabet: str = "v2",
) -> tuple[int, int]:
    """The first token of `window` and the one after its last; padding fills it up to n."""
    start = window_start(len(tokens), n, total_length, offset, duration, real)
    stop = start + max(n, 0)
    start = max(start, 0)
    if alphabet == BYTES:
        start += _inside(tokens[start:stop])
        while stop > start and _inside(tokens[stop : stop + 1]):
            stop -= 1
    return start, stop


def _inside(tokens: Tokens) -> int:
    """How many of the first tokens are continuation bytes of a character (0x80..0xBF)."""
    first = tokens[:3]
    return int(np.cumprod((first > 0x80) & (first <= 0xC0)).sum())


def window_start(
    length: int, n: int, total_length: int, offset: int, duration: int, real: Real = np.float64
) -> int:
    """Where the window starts among `length` tokens; -k: it begins with k tokens of padding."""
    if n <= 0:
        return 0
    if length < n:
        return length - n
    middle = int(real(length) * (real(offset) + real(duration / 2)) / real(total_length))
    return min(max(middle, n // 2), length - n + n // 2) - n // 2
