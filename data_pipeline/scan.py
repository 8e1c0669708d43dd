"""A folder of sound files as a manifest: labels from tags, lyrics from files of the same name."""

import collections
import dataclasses
import itertools
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from data_pipeline import ffmpeg
from data_pipeline.copies import Copies
from data_pipeline.manifest import Song
from data_pipeline.tags import read_tags
from jukejax.errors import DataError
from jukejax.text.lyric_files import read_lyrics
from jukejax.text.normal import nfc

_LOG = logging.getLogger(__name__)
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus", *ffmpeg.SUFFIXES)
# Other sound files, which are not supported.
_OTHERS = (
    *(".ac3", ".aif", ".aifc", ".aiff", ".alac", ".amr", ".ape", ".au", ".caf", ".dff"),
    *(".dsf", ".m4b", ".mka", ".mp2", ".mp4", ".mpc", ".oga", ".ra", ".snd", ".spx"),
    *(".tak", ".tta", ".w64", ".webm", ".wv"),
)
# Recycle bins, snapshots and thumbnails of NAS and operating systems, in lower case.
_SYSTEM_FOLDERS = frozenset(
    (
        *("$recycle.bin", "recycler", "system volume information", "lost+found", "__macosx"),
        *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "@snapshots"),
        *("~snapshot",),
    )
)


@dataclasses.dataclass
class Counts:
    """What a scan listed, and what it left out by reason."""

    songs: int = 0
    without: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    grouped: int = 0
    left_out: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    kinds: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def lines(self) -> list[str]:
        """The counts as sentences."""
        kinds = ", ".join(f"{suffix} {n}" for suffix, n in sorted(self.kinds.items()))
        total = self.kinds.total()
        out = [f"{total} files of other kinds left out: {kinds}; convert them"] if total else []
        out += [f"{n} left out: {reason}" for reason, n in sorted(self.left_out.items())]
        lacks = ", ".join(f"{self.without[what]} without {what}" for what in _LABELS)
        out.append(f"Of {self.songs} songs: {lacks}")
        if self.grouped:
            out.append(
                f"{self.grouped} songs are copies of another (equal files, or one name with "
                "several suffixes); those of a group get the same split"
            )
        return out


_LABELS = ("artist", "genre", "lyrics")


def scan_folder(folder: str | Path, counts: Counts | None = None) -> Iterator[Song]:
    """The sound files below `folder`, sorted by path, as songs; one folder's names in memory.

    A song's id is its path inside the folder without the suffix. Labels and album come from the
    file's tags, lyrics from a .txt or .lrc file of the same name, else from the tags. Copies of a
    song share a `group`. Links to folders outside are followed. Hidden files and folders, recycle
    bins and snapshots are left out.

    Args:
      folder: with the songs.
      counts: updated while songs are taken.

    Raises:
      DataError: the folder does not exist or has no sound file (raised by the call itself).
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        is_file = f"{folder} is a file, not a folder"
        what = is_file if folder.is_file() else f"the folder {folder} does not exist"
        raise DataError(f"{what}; give the folder with the songs")
    counts = Counts() if counts is None else counts
    copies = Copies(lambda: (file.path for file in _Walk(folder, Counts(), quiet=True).files()))
    songs = _songs(folder, copies, counts)
    first = next(songs, None)
    if first is None:
        kinds = ", ".join(SUFFIXES)
        others = ", ".join(sorted(counts.kinds))
        remedy = f"convert files of other kinds ({others}) or " if others else ""
        raise DataError(f"{folder} holds no sound file ({kinds}); {remedy}give another folder")
    return itertools.chain([first], songs)


def _songs(folder: Path, copies: Copies, counts: Counts) -> Iterator[Song]:
    for file in _Walk(folder, counts).files():
        song = _song(file, _group(copies.group(file.path), folder), counts)
        counts.songs += 1
        counts.grouped += bool(song.group)
        lacks = (not song.artist, not song.genres, not song.lyrics)
        counts.without.update(itertools.compress(_LABELS, lacks))
        yield song


def _group(name: str, folder: Path) -> str:
    """The name of a group, without the place of the folder."""
    return name.replace(f"{folder.as_posix()}/", "", 1)


@dataclasses.dataclass(frozen=True)
class _File:
    """A sound file, its id, and the files that may have its lyrics, best first."""

    path: Path
    id: str
    lyrics: tuple[Path, ...]


class _Walk:
    """The sound files of a folder tree, sorted by path; one folder's names in memory."""

    def __init__(self, root: Path, counts: Counts, quiet: bool = False) -> None:
        self.root, self.counts, self.quiet = root, counts, quiet
        self.linked: set[Path] = set()

    def files(self) -> Iterator[_File]:
        """The supported sound files."""
        return self._below(self.root)

    def _leave_out(self, reason: str, warning: str = "") -> None:
        self.counts.left_out[reason] += 1
        if warning and not self.quiet:
            _LOG.warning("%s", warning)

    def _below(self, folder: Path) -> Iterator[_File]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            warning = f"the folder {folder} cannot be read ({error.strerror}) and is left out"
            self._leave_out("folders that cannot be read", warning)
            return
        names = self._names(entries)
        ids, texts = _ids(names), _texts_by_name(folder, entries)
        prefix = folder.relative_to(self.root)
        for entry in entries:
            path = folder / entry.name
            if entry.name in ids:
                lyrics = sorted(
                    texts.get(_key(path.stem), ()), key=lambda x, stem=path.stem: x.stem != stem
                )
                yield _File(path, (prefix / ids[entry.name]).as_posix(), tuple(lyrics))
            elif entry.is_dir() and self._enters(entry):
                yield from self._below(path)

    def _names(self, entries: list[os.DirEntry[str]]) -> list[str]:
        """Names of the supported sound files of a folder."""
        names = []
        for entry in entries:
            suffix = Path(entry.name).suffix.lower()
            if suffix not in (*SUFFIXES, *_OTHERS) or entry.is_dir():
                continue
            if entry.name.startswith("."):
                self._leave_out("hidden sound files")
            elif suffix in _OTHERS:
                self.counts.kinds[suffix] += 1
            elif not entry.is_file():
                self._leave_out("links to files that do not exist")
            elif not _is_unicode(entry.path):
                warning = f"{entry.path!r} has a name that is not UTF-8 and is left out; rename it"
                self._leave_out("names that are not UTF-8", warning)
            else:
                names.append(entry.name)
        return names

    def _enters(self, entry: os.DirEntry[str]) -> bool:
        """Whether a folder is scanned; a link is followed once, to a folder that is not inside."""
        if entry.name.startswith("."):
            self._leave_out("hidden folders")
            return False
        if entry.name.lower() in _SYSTEM_FOLDERS:
            self._leave_out("recycle bins, snapshots and system folders")
            return False
        if not entry.is_symlink():
            return True
        target = Path(entry.path).resolve()
        around = (target, *target.parents)
        seen = self.root in around or target in self.root.parents or self.linked & {*around}
        if seen:
            self._leave_out("links to folders that are listed elsewhere")
            return False
        self.linked.add(target)
        return True


def _ids(names: list[str]) -> dict[str, str]:
    """Ids of the files of one folder: names without the suffix where these are unique."""
    taken = collections.Counter([*(Path(name).stem for name in names), *names])
    return {name: x if taken[x := Path(name).stem] == 1 else name for name in names}


def _is_unicode(path: str) -> bool:
    """Whether a path can be written to a manifest, which is UTF-8."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _key(stem: str) -> str:
    """Of names that differ in case or in Unicode's form alone."""
    return nfc(stem).casefold()


def _texts_by_name(folder: Path, entries: list[os.DirEntry[str]]) -> dict[str, list[Path]]:
    """The .txt files, then the .lrc files of a folder by `_key`."""
    texts: dict[str, list[Path]] = {}
    for suffix in (".txt", ".lrc"):
        for entry in entries:
            path = folder / entry.name
            if path.suffix.lower() == suffix and entry.is_file() and _is_unicode(entry.path):
                texts.setdefault(_key(path.stem), []).append(path)
    return texts


def _song(file: _File, group: str, counts: Counts) -> Song:
    labels, lyrics = read_tags(file.path)
    lyrics_file = None
    for path in file.lyrics:
        try:
            lyrics, lyrics_file = read_lyrics(path), path
            break
        except DataError as error:
            _LOG.warning("%s; it is left out", error)
            counts.left_out["lyrics files that cannot be read"] += 1
    sung = {field.name: getattr(lyrics, field.name) for field in dataclasses.fields(lyrics)}
    sung["lyrics"] = sung.pop("text")
    return Song(id=file.id, audio=file.path, lyrics_file=lyrics_file, group=group, **sung, **labels)
