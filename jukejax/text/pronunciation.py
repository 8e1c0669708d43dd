"""Words to phones, by espeak-ng's rules for American English (the wheel espeakng-loader)."""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Callable

from jukejax.errors import DataError

# espeak's IPA for American English in the phones of `jukejax.text.singing`
_PHONES = {
    "aɪɚ": "ay er", "aɪə": "ay ax", "tʃ": "ch", "dʒ": "jh", "eɪ": "ey", "oʊ": "ow", "aɪ": "ay",
    "aʊ": "aw", "ɔɪ": "oy", "iə": "iy ax", "oːɹ": "ao r", "n̩": "ax n", "l̩": "ax l", "m̩": "ax m",
    "i": "iy", "ɪ": "ih", "ᵻ": "ih", "ɛ": "eh", "e": "eh", "æ": "ae", "a": "ae", "ɑ": "aa",
    "ɒ": "aa", "ɔ": "ao", "o": "ow", "ʊ": "uh", "u": "uw", "ʌ": "ah", "ə": "ax", "ɐ": "ax",
    "ɜ": "er", "ɚ": "er", "p": "p", "b": "b", "t": "t", "d": "d", "k": "k", "ɡ": "g", "g": "g",
    "f": "f", "v": "v", "θ": "th", "ð": "dh", "s": "s", "z": "z", "ʃ": "sh", "ʒ": "zh", "h": "hh",
    "m": "m", "n": "n", "ŋ": "ng", "l": "l", "ɹ": "r", "r": "r", "j": "y", "w": "w", "ʔ": "t",
    "ɾ": "t", "x": "k", "ɬ": "l", "ç": "hh",
}  # fmt: skip
_IPA = re.compile("|".join(sorted(map(re.escape, _PHONES), key=len, reverse=True)) + "|.")
_SILENT = set("ˈˌːˑ .-_\u0361\u200d")


def phones(word: str) -> list[str]:
    """The phones of a word, in the symbols of `jukejax.text.singing`; [] where it has none.

    Raises:
      DataError: espeakng-loader is not installed.
    """
    return from_ipa(_espeak()(word))


def from_ipa(ipa: str) -> list[str]:
    """espeak's IPA as phones; [] where a sign is unknown."""
    found: list[str] = []
    for sign in _IPA.findall("".join(c for c in ipa if c not in _SILENT or c == "ː")):
        if sign in _PHONES:
            found += _PHONES[sign].split()
        elif sign not in _SILENT:
            return []
    return found


@functools.cache
def _espeak() -> Callable[[str], str]:
    """espeak's function from a word to IPA."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise DataError("espeakng-loader is missing: pip install 'jukejax[sing]'") from error
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
