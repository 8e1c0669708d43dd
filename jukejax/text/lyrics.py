"""Lyrics as tokens of an alphabet (`jukejax.alphabets`), and the window rule.

Text is brought to Unicode's NFC for alphabets of bytes and of characters, so that one word is not
spelled in two ways.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jukejax.alphabets import BYTES, CHARACTERS, PUBLISHED, characters, size
from jukejax.errors import DataError
from jukejax.text.transliterate import to_ascii

Tokens = npt.NDArray[np.int32]
Real = type[np.float32] | type[np.float64]

_LRC_TIME = re.compile(r"[\[<]\d+:\d{1,2}(?:[.:]\d+)?[\]>]")
_LRC_TAG = re.compile(r"^\[(?:ar|ti|al|au|by|length|offset|re|ve|tool|la|#)\s*:.*\]\s*$", re.I)


def _characters(alphabet: str) -> str:
    known = characters(alphabet)
    if known is None:
        raise DataError(
            f"the lyric alphabet {alphabet!r} is unknown; choose from {[*PUBLISHED, BYTES]}, or "
            f"give {CHARACTERS!r} followed by the characters"
        )
    return known


def alphabet_of(texts: Iterable[str]) -> str:
    """The "characters:" alphabet of all that occur in some lyrics, by code point.

    Raises:
      DataError: there are no lyrics.
    """
    found: set[str] = set()
    for text in texts:
        found.update(_normal(text))
    if not found:
        raise DataError(
            "not one song has lyrics to take an alphabet from; add lyrics, choose the alphabet "
            f"{BYTES!r}, or train without lyrics"
        )
    return CHARACTERS + "".join(sorted(found))


def _normal(text: str) -> str:
    """NFC with "\n" as the end of a line; without half pairs, which are no characters."""
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n")
    return text.encode("utf-8", "ignore").decode("utf-8")


def clean(text: str, alphabet: str = "v2") -> str:
    """`text` as `alphabet` can hold it.

    For v2 and v3: transliterated to ASCII, a backslash as a newline, without what is left over.
    """
    if alphabet == BYTES:
        return _normal(text)
    own = alphabet.startswith(CHARACTERS)
    plain = _normal(text) if own else to_ascii(text).replace("\\", "\n")
    return "".join(c for c in plain if c in _places(alphabet))


@functools.cache
def _places(alphabet: str) -> dict[str, int]:
    """ids by character."""
    return {c: i for i, c in enumerate(_characters(alphabet), start=1)}


def encode(text: str, alphabet: str = "v2") -> Tokens:
    """The tokens of `clean(text)`: (length,) int32, values 1..size-1."""
    if alphabet == BYTES:
        return np.frombuffer(_normal(text).encode(), np.uint8).astype(np.int32) + 1
    places = _places(alphabet)
    return np.array([places[c] for c in clean(text, alphabet)], np.int32)


def token_counts(text: str, alphabet: str = "v2") -> list[int]:
    """How many tokens each character of a text gives, as it stands; they sum to all.

    Characters that normalising joins give them together, at the first.
    """
    parts: list[str] = []
    for c in text:
        apart = alphabet in PUBLISHED or not unicodedata.combining(c)
        if apart and alphabet not in PUBLISHED and parts:
            apart = _normal(parts[-1] + c) == _normal(parts[-1]) + _normal(c)
        if apart or not parts:
            parts.append(c)
        else:
            parts[-1] += c
    return [n for part in parts for n in (len(encode(part, alphabet)), *[0] * (len(part) - 1))]


def decode(tokens: npt.ArrayLike, alphabet: str = "v2") -> str:
    """The text of tokens; padding (0) gives nothing, bytes that are no character "\ufffd".

    Raises:
      DataError: a token is outside the alphabet.
    """
    last = size(alphabet) - 1
    ids = np.asarray(tokens).ravel()
    if ids.size and (ids.min() < 0 or ids.max() > last):
        raise DataError(
            f"lyric tokens must lie in 0..{last} for alphabet {alphabet:.40}, but are "
            f"in {ids.min()}..{ids.max()}; see whether the alphabet is the model's"
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
    """The `n` lyric tokens around the middle of a stretch of a song: (n,) int32.

    Args:
      tokens: (length,) int32, the tokens of the whole song.
      n: tokens wanted.
      total_length: length of the song in samples.
      offset: start of the stretch in samples.
      duration: length of the stretch (the prior's window) in samples.
      alphabet: of the tokens; a window of "bytes" begins and ends between two characters.
      real: the precision that the middle is computed in. The published models were trained with
        float64 and are sampled with float32; about one window in a thousand differs by a token.

    Shorter lyrics are padded with 0 on the left. Longer ones are cut linearly in time. Where the
    published code stops because the offset is outside the song, the window is clamped to the text.
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
    """The first token of `window` and the one after its last; what lacks to n is padding."""
    start = window_start(len(tokens), n, total_length, offset, duration, real)
    stop = start + max(n, 0)
    start = max(start, 0)
    if alphabet == BYTES:
        start += _inside(tokens[start:stop])
        while stop > start and _inside(tokens[stop : stop + 1]):
            stop -= 1
    return start, stop


def _inside(tokens: Tokens) -> int:
    """How many of the first tokens are bytes that go on with a character (0x80..0xBF)."""
    first = tokens[:3]
    return int(np.cumprod((first > 0x80) & (first <= 0xC0)).sum())


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


def read_lyrics(path: Path) -> str:
    """The text of a lyrics file in UTF-8; of an .lrc file without its line times.

    Raises:
      DataError: the file is missing or is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"the lyrics file {path} cannot be read ({error.strerror}); mend the path"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"the lyrics file {path} is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from error
    return strip_lrc(text) if path.suffix.lower() == ".lrc" else text
