"""Lyrics as people store them (.txt, .lrc, tags), as the text that is sung and its times.

One parser for all of them: LRC is recognised by its times, whatever the file is called. Not sung
and so left out: header tags, headings, chords, tablature, notes such as "(x2)", and what pages of
lyric sites add.
"""

from __future__ import annotations

import codecs
import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jukejax.errors import DataError
from jukejax.text.word_times import Word

Line = tuple[str, float]  # text and start in seconds; "": the line before ends here
Section = tuple[str, float | None, float | None]  # name, start and end in seconds if known

LETTER_S = 0.08  # seconds of singing a letter, when nothing else limits a word
LONGEST_SECONDS = 1e6
_STAMP = r"\d{1,3}:\d{1,2}(?::\d{1,2})?(?:[.:]\d{1,6})?"
_LINE_STAMPS = re.compile(rf"\s*((?:\[{_STAMP}\]\s*)+)")
_ANY_STAMP = re.compile(rf"[\[<]({_STAMP})[\]>]")
_VOICE = re.compile(r"^\s*[FMD]:\s*")  # female, male, duet (Walaoke)
_HEADER = re.compile(r"^\s*\[\s*(?:[A-Za-z_]+|#)\s*:(.*)\]\s*$")
_OFFSET = re.compile(r"^\s*\[\s*offset\s*:\s*([+-]?\d{1,7})\s*\]\s*$", re.I)
_BRACKETS = re.compile(r"^\s*\[([^\[\]]*)\]\s*:?\s*$")
_KINDS = (
    r"(?:(?:pre|post)[- ]?)?(?:verse|chorus|bridge|intro|outro|hook|refrain|interlude|break|"
    r"breakdown|drop|coda|skit|solo|instrumental|(?:guitar|piano|sax|drum) solo)"
)
_KIND = re.compile(rf"^{_KINDS}\b", re.I)
_PLAIN_HEADING = re.compile(rf"^\s*\(?({_KINDS}(?:\s+(?:\d+|[ivx]+))?)\s*(?:\)\s*:?|:)\s*$", re.I)
_NOTE = re.compile(
    r"^\s*[\[(]?\s*(?:x\s?\d+|\d+\s?x|(?:repeat|rpt)\b.{0,30}|instrumental|\d+ times)\s*[\])]?\s*$",
    re.I,
)
_SITE_LINES = re.compile(
    r"^\s*(?:\d* ?contributors?.*\blyrics|you might also like|\d*embed|submit corrections|"
    r"(?:lyrics|letras?) (?:licensed|provided|powered|submitted|from|by)\b.*|"
    r".*lyrics (?:licensed|provided) .*|\*+ ?this lyrics is not for commercial use.*|"
    r"\(\d{6,}\)|(?:writer|songwriter|paroliers?)(?:\(s\)|s)?\s*:.*|"
    r"source\s*:.*|https?://\S+|www\.\S+|.*©.*all rights reserved.*|"
    r"lyrics for this song have yet to be released.*|"
    r"(?:sorry, )?we (?:do not|don't) have (?:the )?lyrics.*|纯音乐.*请.?欣赏.?)\s*$",
    re.I,
)
_SITE_END = re.compile(r"(?<=[^\s\d])\d{1,6}Embed\s*$")  # Genius: glued to the last word
_HTML = re.compile(r"^\s*(?:<!doctype html|<html|<head|<body)\b", re.I)
_CHORD = (
    r"[A-G][#b♯♭]?(?:maj|min|m|M|dim|aug|sus|add|°|\+)?\d*(?:(?:sus|add|maj)\d+)?(?:/[A-G][#b♯♭]?)?"
)
_CHORD_LINE = re.compile(rf"^\s*[|(]?\s*{_CHORD}(?:[\s|()%-]+{_CHORD})*[\s|()%-]*$")
_PLAIN_CHORD = re.compile(r"^(?:[A-G]|Am)$")
_INLINE_CHORD = re.compile(rf"\[{_CHORD}\]")
_LONGEST_NOTE = 200  # characters of a line that may be no lyrics; bounds the matching
_TABLATURE = re.compile(r"^\s*[eBGDAEbd]\|?[-\d|hpbrxs/\\~() ]*--[-\d|hpbrxs/\\~() ]*$")


@dataclasses.dataclass(frozen=True)
class Lyrics:
    """The sung text of a song, and what the file says of its times.

    Attributes:
      text: the sung lines.
      words: with their times, of a file with the times of its words.
      lines: non-empty lines in the order they are sung, of a file with the times of its lines.
      sections: headings, in order.
    """

    text: str = ""
    words: tuple[Word, ...] = ()
    lines: tuple[Line, ...] = ()
    sections: tuple[Section, ...] = ()


def read_lyrics(path: Path) -> Lyrics:
    """The lyrics of a file in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
      DataError: the file is missing or is no text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"the lyrics file {path} cannot be read ({error.strerror}); correct the path"
        ) from error
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "damaged UTF-16" if wide else "not UTF-8"
        raise DataError(
            f"the lyrics file {path} is {kind} (byte {error.start}); save it as UTF-8"
        ) from error
    if "\0" in text:
        raise DataError(
            f"the lyrics file {path} has NUL characters and is no text; save it as UTF-8"
        )
    return parse_lyrics(text)


def parse_lyrics(text: str) -> Lyrics:
    """The sung lines of a text with any line ends, LRC or not; `text` itself if all is sung."""
    if _HTML.match(text):
        return Lyrics()
    lines = text.splitlines()
    if any(_LINE_STAMPS.match(line) for line in lines):
        return _parse_lrc(lines)
    lines, chords = _cleaned(lines)
    sung, sections, left_out = [], [], False
    for line in lines:
        name = _heading(line)
        if name and not _NOTE.match(line):
            sections.append((name, None, None))
        if name is None and not _HEADER.match(line) and not _is_note(line, chords):
            sung.append(line)
        else:
            left_out = True
    plain = "\n".join(sung) + "\n" * (bool(sung) and text[-1:] in "\r\n")
    plain = plain.lstrip("\n") if left_out else plain
    return Lyrics(plain if plain.strip() else "", sections=tuple(sections) if plain.strip() else ())


def spread(words: Sequence[str], begin: float, end: float) -> tuple[Word, ...]:
    """Words with times, sharing a span of seconds by their letters."""
    sizes = [max(1, len(word)) for word in words]
    clock, timed = begin, []
    for word, size in zip(words, sizes, strict=True):
        start, clock = clock, clock + max(0.0, end - begin) * size / sum(sizes)
        timed.append((word, round(start, 3), round(clock, 3)))
    return tuple(timed)


def _heading(line: str) -> str | None:
    """The name of a heading such as "[Chorus]", "(Bridge)" or "Verse 2:"; None of other lines."""
    if len(line) > _LONGEST_NOTE:
        return None
    if match := _BRACKETS.match(line):
        name = match[1].strip()
        if _HEADER.match(line) and not _KIND.match(name):
            return None
        return None if re.fullmatch(_CHORD, name) else name
    match = _PLAIN_HEADING.match(line)
    return match[1].strip() if match else None


def _is_note(line: str, chords: bool) -> bool:
    """Whether a line is an instruction, chords, or a lyric site's, and so is not sung."""
    if len(line) > _LONGEST_NOTE:
        return False
    if _NOTE.match(line) or _SITE_LINES.match(line) or _TABLATURE.match(line):
        return True
    return chords and bool(_CHORD_LINE.match(line))


def _cleaned(lines: Sequence[str]) -> tuple[list[str], bool]:
    """Lines without a site's mark at the end and chords in brackets, and whether it has chords."""
    lines = [_SITE_END.sub("", line) for line in lines]
    chords = _has_chords(lines)
    return [_INLINE_CHORD.sub("", line) if chords else line for line in lines], chords


def _has_chords(lines: Sequence[str]) -> bool:
    """Whether lines of chord names are chords and not letters that are sung ("A B C")."""
    return any(len(line) <= _LONGEST_NOTE and _tells_chords(line) for line in lines)


def _tells_chords(line: str) -> bool:
    """Whether a line shows by itself that chords are written: "[Am]la", "Am7 G", "C   G"."""
    if not _CHORD_LINE.match(line):
        return bool(_INLINE_CHORD.search(line))
    names = re.split(r"[\s|()%-]+", line.strip(" |()%-\t"))
    plain = all(map(_PLAIN_CHORD.match, names))
    return not plain or "Am" in names[1:] or bool(re.search(r"\S {2,}\S", line))


@dataclasses.dataclass(frozen=True)
class _Timed:
    """One singing of a line: start in seconds, text, and places in it with their seconds."""

    seconds: float
    text: str
    places: tuple[tuple[int, float], ...] = ()
    given: bool = True  # False: a line without a time, which follows the one before

    @property
    def sung(self) -> bool:
        return bool(self.text) and _heading(self.text) is None and not _HEADER.match(self.text)

    @property
    def longest_end(self) -> float:
        return max(self.seconds, *(s for _, s in self.places), 0.0) + LETTER_S * len(self.text)


def _parse_lrc(lines: Sequence[str]) -> Lyrics:
    offset = next((int(match[1]) / 1000 for x in lines if (match := _OFFSET.match(x))), 0.0)
    clock = _Clock(lines, offset)
    lines, chords = _cleaned(lines)
    timed = [x for x in _timed_lines(lines, clock) if not _is_note(x.text, chords)]
    timed.sort(key=lambda x: x.seconds)  # stable
    if not any(x.sung for x in timed):
        return Lyrics()
    text = "\n".join(x.text for x in timed if x.sung or not x.text).strip("\n") + "\n"
    names = [(name, x.seconds) for x in timed if (name := _heading(x.text))]
    ends = [*(seconds for _, seconds in names[1:]), None]
    marks = ((x.text if x.sung else "", x.seconds) for x in timed if x.given)
    sections = tuple((*name, end) for name, end in zip(names, ends, strict=False))
    return Lyrics(text, _lrc_words(timed), tuple(marks), sections)


def _timed_lines(lines: Sequence[str], clock: _Clock) -> Iterator[_Timed]:
    """Every singing of every line, in the order of the file."""
    seconds = 0.0
    for line in lines:
        if match := _LINE_STAMPS.match(line):
            starts = [clock.seconds(stamp) for stamp in _ANY_STAMP.findall(match[1])]
            text, places = _places(_VOICE.sub("", line[match.end() :]), starts[0], clock)
            for start in starts:
                shifted = tuple((i, max(0.0, s + start - starts[0])) for i, s in places)
                yield _Timed(start, text, shifted)
            seconds = starts[0]
        elif not _HEADER.match(line) or _heading(line):
            yield _Timed(seconds, line.strip(), given=False)


def _places(line: str, start: float, clock: _Clock) -> tuple[str, tuple[tuple[int, float], ...]]:
    """A line without the times inside it, and the places and seconds of these; () if none."""
    first, *parts = _ANY_STAMP.split(line)
    if not parts:
        return line.strip(), ()
    text, places = " ".join(first.split()) + " " * first[-1:].isspace(), {0: start}
    for stamp, part in zip(parts[::2], parts[1::2], strict=True):
        part = re.sub(r"\s+", " ", part)
        part = part.lstrip() if not text or text.endswith(" ") else part
        places[len(text) + part.startswith(" ")] = clock.seconds(stamp)
        text += part
    text = text.rstrip()
    return text, tuple({min(i, len(text)): seconds for i, seconds in places.items()}.items())


def _lrc_words(timed: Sequence[_Timed]) -> tuple[Word, ...]:
    """The words with their times, if most lines have times inside them."""
    sung = [x for x in timed if x.sung]
    if 2 * sum(bool(x.places) for x in sung) < max(1, len(sung)):
        return ()
    words: list[tuple[Word, ...]] = []
    later = after = math.inf  # start of the next line, and of the next that is later than it
    for line in reversed(timed):
        if line.seconds < later:
            later, after = line.seconds, later
        if line.sung:
            end = min(line.longest_end, after)
            spread_out = () if line.places else spread(line.text.split(), line.seconds, end)
            words.append(spread_out or tuple(_line_words(line, end)))
    return tuple(itertools.chain.from_iterable(reversed(words)))


def _line_words(line: _Timed, end: float) -> Iterator[Word]:
    """Words of a line; between two given places time is linear in the letters."""
    times = dict(line.places)
    times.setdefault(len(line.text), max(end, *times.values()))
    places = sorted(times)
    seconds = np.maximum.accumulate([times[i] for i in places])
    matches = list(re.finditer(r"\S+", line.text))
    # a word ends where the next one's time is given, after the space
    last = [match.end() + (match.end() + 1 in times) for match in matches]
    begin = np.interp([match.start() for match in matches], places, seconds)
    stop = np.interp(last, places, seconds)
    for match, start, end in zip(matches, begin.tolist(), stop.tolist(), strict=True):
        yield match[0], round(start, 3), round(end, 3)


class _Clock:
    """Times of an LRC file in seconds: [mm:ss], [mm:ss.xx], [mm:ss:xx], [hh:mm:ss] and .xx."""

    def __init__(self, lines: Sequence[str], offset: float) -> None:
        """`offset` seconds are subtracted: a positive [offset:] shows lyrics sooner."""
        self.offset = offset
        threes = [x.split(":") for line in lines for x in _ANY_STAMP.findall(line) if "." not in x]
        threes = [x for x in threes if len(x) == 3]
        # "00:01:30" is 1.3 s or 90 s: hours if no song would have them otherwise
        self.hours = all(int(x[0]) == 0 and int(x[2]) < 60 and len(x[2]) == 2 for x in threes)

    def seconds(self, stamp: str) -> float:
        """Seconds of a time without its brackets, 0 or more."""
        whole, _, fraction = stamp.partition(".")
        parts = whole.split(":")
        if not fraction and (len(parts) == 4 or (len(parts) == 3 and not self.hours)):
            fraction = parts.pop()
        total = 0
        for part in parts:
            total = 60 * total + int(part)
        at = total + float(f"0.{fraction or 0}") - self.offset
        return min(max(0.0, round(at, 3)), LONGEST_SECONDS)
