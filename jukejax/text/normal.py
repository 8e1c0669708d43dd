"""Unicode's canonical form, in time that grows with the text."""

import itertools
import unicodedata

_SHORT = 1_000  # characters; their marks are sorted fast enough whatever they are


def nfc(text: str) -> str:
    """`text` in Unicode's NFC.

    The library sorts combining marks by insertion: 50,000 on one letter take seconds. Sorted by
    class first (stable, so the text is canonically the same) they take milliseconds.
    """
    if len(text) > _SHORT and not text.isascii():
        runs = itertools.groupby(text, key=lambda c: unicodedata.combining(c) > 0)
        parts = (sorted(run, key=unicodedata.combining) if marks else run for marks, run in runs)
        text = "".join(itertools.chain.from_iterable(parts))
    return unicodedata.normalize("NFC", text)
