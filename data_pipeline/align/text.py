"""Words of lyrics as printed, their pronunciations and the gaps between their times."""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Callable, Sequence

from jukejax.errors import DataError
from jukejax.text.lyric_files import LETTER_S, parse_lyrics, spread
from jukejax.text.word_times import Word

# espeak's IPA for American English in the phones of the CMU dictionary; longest first.
_PHONES = {
    "aɪɚ": "AY ER", "aɪə": "AY AH", "tʃ": "CH", "dʒ": "JH", "eɪ": "EY", "oʊ": "OW", "aɪ": "AY",
    "aʊ": "AW", "ɔɪ": "OY", "iə": "IY AH", "oːɹ": "AO R", "n̩": "AH N", "l̩": "AH L", "m̩": "AH M",
    "i": "IY", "ɪ": "IH", "ᵻ": "IH", "ɛ": "EH", "e": "EH", "æ": "AE", "a": "AE", "ɑ": "AA",
    "ɒ": "AA", "ɔ": "AO", "o": "OW", "ʊ": "UH", "u": "UW", "ʌ": "AH", "ə": "AH", "ɐ": "AH",
    "ɜ": "ER", "ɚ": "ER", "p": "P", "b": "B", "t": "T", "d": "D", "k": "K", "ɡ": "G", "g": "G",
    "f": "F", "v": "V", "θ": "TH", "ð": "DH", "s": "S", "z": "Z", "ʃ": "SH", "ʒ": "ZH", "h": "HH",
    "m": "M", "n": "N", "ŋ": "NG", "l": "L", "ɹ": "R", "r": "R", "j": "Y", "w": "W", "ʔ": "T",
    "ɾ": "T", "x": "K", "ɬ": "L", "ç": "HH",
}  # fmt: skip
_IPA = re.compile("|".join(sorted(map(re.escape, _PHONES), key=len, reverse=True)) + "|.")
_SILENT = set("ˈˌːˑ .-_\u0361\u200d")


def lyric_words(lyrics: str) -> list[str]:
    """The words of lyrics as printed, without headings such as "[Chorus]"."""
    return parse_lyrics(lyrics).text.split()


def arpabet(ipa: str) -> str | None:
    """espeak's IPA as phones of the CMU dictionary, separated by spaces; None for unknown signs."""
    phones = []
    for sign in _IPA.findall("".join(c for c in ipa if c not in _SILENT or c == "ː")):
        if sign in _PHONES:
            phones.append(_PHONES[sign])
        elif sign not in _SILENT:
            return None
    return " ".join(phones) or None


@functools.cache
def _espeak() -> Callable[[str], str]:
    """espeak's function from a word to IPA."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise DataError("espeakng-loader is missing: pip install 'jukejax[align]'") from error
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    synchronous, folder = 2, espeakng_loader.get_data_path().encode()
    if library.espeak_Initialize(synchronous, 0, folder, 0) < 0:
        raise DataError(f"espeak-ng cannot read its data in {folder!r}; install it again")
    library.espeak_SetVoiceByName(b"en-us")
    to_phonemes = library.espeak_TextToPhonemes
    to_phonemes.restype = ctypes.c_char_p
    to_phonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]

    def ipa(word: str) -> str:
        text, utf8, as_ipa = ctypes.c_char_p(word.encode()), 1, 2
        return str((to_phonemes(ctypes.byref(text), utf8, as_ipa) or b"").decode())

    return ipa


def pronounce(word: str) -> str | None:
    """Phones of a word that is not in the dictionary, by espeak's rules for English."""
    return arpabet(_espeak()(word))


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
