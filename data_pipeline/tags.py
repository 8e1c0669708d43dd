"""Labels and lyrics in tags: ID3, Vorbis comments, APE, MP4, ASF, and WAV's INFO."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mutagen
import soundfile
from mutagen.apev2 import APEv2
from mutagen.id3 import ID3

from jukejax.label_kinds import KINDS
from jukejax.text.lyric_files import Lyrics, parse_lyrics
from jukejax.text.normal import nfc

# Names of a label in Vorbis comments and APE tags, then in ID3, MP4 and ASF; the first counts.
_NAMES = {
    "artist": ("artist", "tpe1", "©art", "author"),
    "albumartist": (
        *("albumartist", "album artist", "album_artist", "tpe2", "aart", "wm/albumartist"),
    ),
    "album": ("album", "talb", "©alb", "wm/albumtitle"),
    "genre": ("genre", "tcon", "©gen", "wm/genre"),
    "date": ("date", "year", "tdrc", "tyer", "tdor", "©day", "wm/year"),
    "lyrics": (
        *("syncedlyrics", "lyrics", "unsyncedlyrics", "unsynced lyrics", "sylt", "uslt", "©lyr"),
        *("wm/lyrics",),
    ),
}
# Names that say that there is none.
_PLACEHOLDER = re.compile(
    r"^\W*(?:unknown(?: (?:artist|album|genre))?|no (?:artist|genre)|undefined|none|n/a)\W*$", re.I
)
_NO_ARTIST = ("various artists", "various", "va", "v.a.")  # of an album, not of a song


def read_tags(path: Path) -> tuple[dict[str, Any], Lyrics]:
    """The album and the labels in a file's tags, and the lyrics; empty if they cannot be read."""
    tags = _texts(path)
    lyrics = parse_lyrics(tags["lyrics"][0].replace("\0", "")) if tags.get("lyrics") else Lyrics()
    tags = {key: _names(texts) for key, texts in tags.items()}
    of_album = [x for x in tags.get("albumartist", []) if x.casefold() not in _NO_ARTIST]
    tags["artist"] = tags.get("artist") or of_album
    labels: dict[str, Any] = {"album": tags["album"][0]} if tags.get("album") else {}
    for kind in KINDS:
        texts = tags.get(kind.tag, [])
        if kind.most:
            names = (part for text in texts for part in text.split(";"))
            labels[kind.field] = tuple(_names(names))
        elif kind.decades:
            years = (int(year) for year in re.findall(r"\d{4}", " ".join(texts)))
            if year := next((year for year in years if year), None):
                labels[kind.field] = year
        elif texts:
            labels[kind.field] = texts[0]
    return labels, lyrics


def _names(texts: Iterable[str]) -> list[str]:
    """Names in NFC without NULs and spaces around them; none that says that there is none."""
    names = (nfc(part.strip()) for text in texts for part in text.split("\0"))
    return [name for name in names if name and not _PLACEHOLDER.match(name)]


def _texts(path: Path) -> dict[str, list[str]]:
    """The texts of the tags by the keys of `_NAMES`."""
    found: dict[str, list[str]] = {}
    for read in (mutagen.File, ID3, APEv2, _info):
        try:
            tags = read(path)
        except Exception:  # mutagen raises many types; decoding reports what is wrong
            continue
        by_name: dict[str, list[str]] = {}
        tags = getattr(tags, "tags", tags) if read is mutagen.File else tags
        for key, value in (tags or {}).items():
            by_name.setdefault(key.partition(":")[0].lower(), []).extend(_values(value))
        for key, names in _NAMES.items():
            texts = (by_name[name] for name in names if any(by_name.get(name, ())))
            if key not in found and (first := next(texts, None)):
                found[key] = first
    return found


def _values(value: Any) -> list[str]:
    """The texts of a tag of any format."""
    if hasattr(value, "genres"):  # ID3's TCON, whose numbers are names
        return list(value.genres)
    text = getattr(value, "text", value)
    if type(value).__name__ == "SYLT":
        return [_timed(text, value.format)]
    return [text] if isinstance(text, str) else [str(x) for x in text]


def _timed(parts: Any, form: int) -> str:
    """Synchronized lyrics of ID3 as LRC; times are kept only in milliseconds (form 2)."""
    lines = []
    for text, time in parts:
        stamp = f"[{time // 60_000:02}:{time % 60_000 / 1000:06.3f}]" if form == 2 else ""
        lines.append(stamp + text.strip("\r\n"))
    return "\n".join(lines)


def _info(path: Path) -> dict[str, list[str]]:
    """Tags of a WAV's INFO chunk, by libsndfile."""
    if path.suffix.lower() != ".wav":
        return {}
    with soundfile.SoundFile(path) as sound:
        return {key: [value] for key, value in sound.copy_metadata().items()}
