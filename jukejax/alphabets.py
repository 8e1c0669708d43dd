"""Lyric alphabets by name. Token 0 is padding; ids start at 1. Standard library.

v2            80 ids, published: what is not ASCII is transliterated, the rest dropped
v3            79 ids, published: v2 without '+', so every later id is one lower
bytes         257 ids: UTF-8, any language, nothing is lost
characters:X  the characters X, in that order: one token each, any other is dropped
"""

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
PUBLISHED = {
    "v2": _LETTERS + ".,:;!?-+'\"()[] \t\n",
    "v3": _LETTERS + ".,:;!?-'\"()[] \t\n",
}
BYTES = "bytes"
CHARACTERS = "characters:"


def characters(alphabet: str) -> str | None:
    """The characters of an alphabet in the order of their ids; None of bytes and unknown names."""
    if alphabet.startswith(CHARACTERS):
        return alphabet.removeprefix(CHARACTERS)
    return PUBLISHED.get(alphabet)


def size(alphabet: str) -> int:
    """Ids of an alphabet, that of padding included; 0 of "characters": those of the data."""
    if alphabet == BYTES:
        return 257
    known = characters(alphabet)
    return 0 if known is None else len(known) + 1
