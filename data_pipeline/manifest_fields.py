"""What each field of a manifest's line must be, and the sentences for what is not so."""

import difflib
import json
from collections.abc import Callable
from typing import Any

from jukejax.label_kinds import KINDS

SPLITS = ("train", "test")
_LONGEST_SECONDS = 1e6


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_path(value: Any) -> bool:
    return _is_text(value) and bool(value.strip()) and "\0" not in value


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_seconds(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= value <= _LONGEST_SECONDS  # false for NaN and infinity


def _is_word(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and _is_text(value[0])
        and all(map(_is_seconds, value[1:]))
        and value[1] <= value[2]
    )


def _is_line(value: Any) -> bool:
    return (
        isinstance(value, list)
        and [*map(_is_text, value)] == [True, False]
        and (_is_seconds(value[1]))
    )


def _is_section(value: Any) -> bool:
    if not (isinstance(value, list) and len(value) == 3 and _is_text(value[0])):
        return False
    times = [x for x in value[1:] if x is not None]
    return all(map(_is_seconds, times)) and times == sorted(times)


def _is_list(valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(valid, value))


def _is_stems(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_path, value.values()))


_PATH = (_is_path, "the path of a file")
_TEXT = (_is_text, "text in quotes")
_TEXTS = (_is_texts, 'a list of texts, such as ["rock", "folk"]')
_YEAR = (lambda value: type(value) is int, "a whole number, such as 1969")
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "id": (lambda value: _is_text(value) and bool(value.strip()), "a text that is not empty"),
    "audio": (_is_path, "the path of a sound file"),
    **{kind.field: _TEXTS if kind.most else _YEAR if kind.decades else _TEXT for kind in KINDS},
    "album": _TEXT,
    "lyrics": (lambda value: _is_text(value) and "\0" not in value, "text without NUL characters"),
    "lyrics_file": _PATH,
    "words": (
        _is_list(_is_word),
        'a list of ["text", start_seconds, end_seconds] with start <= end',
    ),
    "lines": (_is_list(_is_line), 'a list of ["text", start_seconds]'),
    "sections": (
        _is_list(_is_section),
        'a list of ["name", start_seconds, end_seconds] with start <= end, or null for each',
    ),
    "stems": (_is_stems, 'an object of paths, such as {"vocals": "vocals.wav"}'),
    "tracks_file": _PATH,
    "midi": _PATH,
    "licence": _TEXT,
    "group": _TEXT,
    "split": (lambda value: value in SPLITS, 'either "train" or "test"'),
    "alignment": (lambda value: isinstance(value, dict), "what `jukejax align` wrote"),
}


def entry_errors(entry: Any) -> list[str]:
    """What is wrong with a decoded line by itself, without looking at files."""
    if not isinstance(entry, dict):
        return ['the line is not a JSON object; write {"id": ..., "audio": ...}']
    errors = [f"the key {key!r} is missing; add it" for key in ("id", "audio") if key not in entry]
    for key, value in entry.items():
        if key not in _CHECKS:
            nearest = difflib.get_close_matches(key, _CHECKS, n=1, cutoff=0.0)[0]
            errors.append(f"the key {key!r} is unknown; did you mean {nearest!r}?")
        elif value is not None or key in ("id", "audio"):  # null: not given
            valid, form = _CHECKS[key]
            if not valid(value):
                errors.append(f"{key!r} must be {form}, but is {value!r:.80}")
    if entry.get("lyrics") is not None and entry.get("lyrics_file") is not None:
        errors.append("both 'lyrics' and 'lyrics_file' are given; keep one")
    return errors


def escape_errors(line: bytes, entry: Any) -> list[str]:
    """Checks that all \\u escapes of a line are characters."""
    try:
        if b"\\u" in line:
            json.dumps(entry, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return ["a \\u escape is half of a pair and is no character; write the text as UTF-8"]
    return []
