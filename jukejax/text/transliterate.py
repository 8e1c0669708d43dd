"""Transliterates any text to ASCII, as the lyrics of the published models were.

They were made with Unidecode 1.1.1, which is GPL. text-unidecode has the same origin and a
permissive licence; within the lyric alphabets the two differ on 18,670 of Unicode's 1,112,064 code
points. With the three rules here they differ on 366, none a letter of a living script: currency
signs, phonetic and boxed letters and the like.
"""

import re
import unicodedata

from text_unidecode import unidecode

# Letters and signs that occur in songs and that Unidecode 1.1.1 spells otherwise.
_SPELLINGS = {
    "¼": " 1/4 ", "½": " 1/2 ", "¾": " 3/4 ", "№": "No. ", "™": "(tm)", "Å": "A", "−": "-",
    "\u2060": "",  # the word joiner
    "Є": "Ie", "Ъ": "'", "ъ": "'", "։": ":",
    "־": "-", "א": "A", "ח": "KH", "ץ": "TS", "צ": "TS", "ש": "SH", "ױ": "OY",
    "し": "shi", "ち": "chi", "っ": "tsu", "つ": "tsu",
    "シ": "shi", "チ": "chi", "ッ": "tsu", "ツ": "tsu",
}  # fmt: skip
_UNKNOWN = "[?]"  # what both write for a code point that is not in their tables
# Blocks that Unidecode has no table for: unknown code points there become nothing.
_NO_TABLE = (
    (0x0800, 0x08FF), (0x1900, 0x1CFF), (0x1D00, 0x1DFF), (0x2900, 0x2DFF), (0x3400, 0x4CFF),
    (0xA500, 0xABFF), (0xD800, 0xF8FF),
)  # fmt: skip


def _spell(character: str) -> str:
    if character in _SPELLINGS:
        return _SPELLINGS[character]
    spelt: str = unidecode(character)
    if spelt and not spelt.startswith(_UNKNOWN):
        return spelt
    plain = unicodedata.normalize("NFKC", character)  # styled letters: circled, mathematical
    if plain.isascii():
        return plain
    code = ord(character)
    no_table = code % 256 == 255 or any(low <= code <= high for low, high in _NO_TABLE)
    return "" if no_table else spelt


class _Table(dict[int, str]):
    """Spellings by code point, computed on demand."""

    def __missing__(self, code: int) -> str:
        self[code] = _spell(chr(code))
        return self[code]


_TABLE = _Table()


def to_ascii(text: str) -> str:
    """`text` in ASCII: letters of other scripts by their sound, some unknown ones as "[?]"."""
    return text.translate(_TABLE)


def spoken(word: str) -> str:
    """The word as in a dictionary, lower case; "" if it has no Latin letters."""
    plain = re.sub(r"[^a-z']", "", to_ascii(word.replace("’", "'")).lower())
    return plain.strip("'")
