"""The explorer: one static site of all samples and reconstructions, opened from disk, no server.

    SITE/index.html          list, filters, player, blind test; style and script are in it
    SITE/index.js            a row per item: what is listed, searched and compared
    SITE/items/ID/item.js    the player of an item as markup, beside its sounds and pictures

An item is a song of a sample directory or of the reconstructions (`sounds.json`). The page loads
an item's files when it is selected. Sounds are hard links where the file system supports them, else
copies, so the site is self-contained. An item is made again only when its files have changed.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jukejax import files, locks
from jukejax.config import ConfigError
from jukejax.errors import JukejaxError
from jukejax.evaluation.pages import player, sample_page, templates

PREVIEW = 200  # characters of the lyrics that are listed and searched
NAMES = {0: "bottom", 1: "middle", 2: "top"}


@dataclasses.dataclass(frozen=True)
class Source:
    """An item before its sounds are read: its row of the list, and its files.

    Attributes:
      place: the run or node, and the item, as commands name them; "" for a reconstruction.
      prompt: identifies what it was conditioned on: items with the same prompt can be compared.
      files: all that the item is made from.
      wavs: its sounds by their names in the site.
      make: reads what the player shows.
    """

    id: str
    kind: str
    artist: str
    genres: list[str]
    model: str
    step: int | None
    lyrics: str
    prompt: str
    files: list[Path]
    wavs: dict[str, Path]
    make: Callable[[], tuple[player.PlayerSong, player.Alignment | None]]
    job: Path | None = None
    place: str = ""


def _digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "replace")).hexdigest()[:12]


# --- items ----------------------------------------------------------------------------------------


def find_sources(runs: Sequence[Path], problems: list[str]) -> Iterator[Source]:
    """The items in folders, at any depth; what cannot be read is added to `problems`.

    Other explorers' sites are skipped.
    """
    seen: set[Path] = set()
    for run in runs:
        if not run.is_dir():
            problems.append(f"{run} is not a folder.")
            continue
        for name, read in (("job.json", sample_sources), ("sounds.json", reconstruction_sources)):
            for file in sorted(run.resolve().rglob(name)):
                if file in seen or (file.parent / "item.js").exists():
                    continue
                seen.add(file)
                try:
                    yield from read(file)
                except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
                    reason = error if isinstance(error, JukejaxError) else repr(error)
                    problems.append(f"{file} cannot be used: {reason}")


def sample_sources(file: Path) -> list[Source]:
    """The songs of a sample directory, named by its job.json.

    Raises DataError, or what a wrong type raises, for a file that is not a job.json.
    """
    folder, job = file.parent, sample_page.read_job(file.parent)
    top = f"level_{int(job['levels'][0]['level'])}" if job["levels"] else ""
    steps = (re.search(r"step (\d+)", str(level.get("weights"))) for level in job["levels"])
    step = next((int(match[1]) for match in steps if match), None)
    sources = []
    for index, entry in enumerate(job["items"]):
        song = sample_page.describe(folder, job, index)
        wavs = {f"level_{t.key}.wav": folder / t.wav for t in song.tracks if t.wav}
        alignment = [folder / top / f"item_{index}{s}" for s in (".alignment.npz", ".words.json")]
        lyrics = str(entry.get("lyrics") or "")
        sources.append(
            Source(
                id=_digest(folder, index),
                kind="sample",
                artist=song.artist,
                genres=song.genres,
                model=str(job["model"] or ""),
                step=step,
                lyrics=lyrics,
                prompt=_digest("sample", song.artist, song.genres, lyrics, job["seconds"]),
                files=[file, *wavs.values(), *(path for path in alignment if path.exists())],
                wavs=wavs,
                make=functools.partial(_sample, folder, job, index),
                job=file,
                place=" ".join(f"{k} {v}" for k, v in sample_page.numbers(folder, index)),
            )
        )
    return sources


def _sample(
    folder: Path, job: dict[str, Any], index: int
) -> tuple[player.PlayerSong, player.Alignment | None]:
    song = sample_page.describe(folder, job, index)
    lyrics, alignment = sample_page.align(folder, job, index)
    own = dict(job) | {"items": [job["items"][index]]}
    if isinstance(job.get("request"), dict) and isinstance(job["request"].get("items"), list):
        own["request"] = job["request"] | {"items": job["request"]["items"][index : index + 1]}
    facts = [*sample_page.numbers(folder, index), ("seed", str(job["seed"]))]
    text = json.dumps(own, indent=2, ensure_ascii=False)
    return dataclasses.replace(song, lyrics=lyrics, facts=facts, job=text), alignment


def reconstruction_sources(file: Path) -> list[Source]:
    """The songs of `sounds.json`, which the reconstruction suite writes.

    Raises KeyError, TypeError or ValueError for another file.
    """
    saved = json.loads(file.read_text("utf-8"))
    sources = []
    for entry in saved["items"]:
        levels = sorted(((int(k), v) for k, v in entry["levels"].items()), reverse=True)
        names = {key: NAMES.get(key, f"level {key}") for key, _ in levels}
        wavs = {"original.wav": file.parent / entry["original"]}
        wavs |= {f"level_{key}.wav": file.parent / wav for key, wav in levels}
        lyrics, words = player.find_words(entry.get("lyrics") or "", entry.get("words") or [])
        tracks = [
            player.Track("original", "original", "original.wav", "original.webp"),
            *(player.Track(str(key), names[key], f"level_{key}.wav", "") for key, _ in levels),
        ]
        song = player.PlayerSong(
            artist=str(entry.get("artist") or entry["id"]),
            genres=[str(genre) for genre in entry.get("genres") or []],
            tracks=tracks,
            lyrics=player.cut_lyrics(lyrics, words),
            facts=[("song", str(entry["id"]))],
        )
        sources.append(
            Source(
                id=_digest(file, entry["id"]),
                kind="reconstruction",
                artist=song.artist,
                genres=song.genres,
                model=str(saved.get("model") or ""),
                step=saved.get("step"),
                lyrics=lyrics,
                prompt=_digest("song", entry["id"]),
                files=[file, *wavs.values()],
                wavs=wavs,
                make=functools.partial(lambda song: (song, None), song),
            )
        )
    return sources


# --- the site -------------------------------------------------------------------------------------


def _place(source: Path, target: Path) -> None:
    """Makes `target` a hard link to a file, or a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system
        with files.atomic_path(target) as temporary:
            shutil.copy2(source, temporary)


def _system(source: Source, track: player.Track) -> str:
    """Name of the system that made a sound: what the blind test compares."""
    if track.key == "original":
        return "original"
    step = "" if source.step is None else f", step {source.step}"
    return f"{source.kind}, {track.name}, {source.model or 'unknown model'}{step}"


def make_item(source: Source, folder: Path) -> dict[str, Any]:
    """Writes an item's folder and returns its row of the index.

    Raises:
      ConfigError: a sound or an alignment cannot be read.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name, wav in source.wavs.items():
        _place(wav, folder / name)
    if source.job:
        _place(source.job, folder / "job.json")
    song, alignment = source.make()
    tracks = []
    for track in song.tracks:
        name = track.key if track.key == "original" else f"level_{track.key}"
        sound = f"{name}.wav" if track.wav else None
        tracks.append(dataclasses.replace(track, wav=sound, picture=f"{name}.webp"))
    facts = [("", source.kind), ("model", source.model), *song.facts]
    if source.step is not None:
        facts.insert(2, ("step", str(source.step)))
    song = dataclasses.replace(
        song, tracks=tracks, attention="attention.webp", facts=[f for f in facts if f[1]]
    )
    song = player.draw(folder, song, alignment)
    song = dataclasses.replace(song, folder=f"items/{source.id}/")
    module = templates.templates().get_template("song.html.j2").make_module()
    playable = [track for track in song.tracks if track.wav]
    item = {
        "html": str(module.song(song, source.id, "the song")),  # type: ignore[attr-defined]
        "tracks": {
            track.key: {"wav": f"{song.folder}{track.wav}", "seconds": track.sound.seconds,
                        "rms": track.sound.rms}
            for track in playable
        },
    }  # fmt: skip
    _write_script(folder / "item.js", f"Explorer.loaded({json.dumps(source.id)}, ", item, ");\n")
    return {
        "id": source.id,
        "kind": source.kind,
        "place": templates.printable(source.place),
        "artist": templates.printable(source.artist),
        "genres": [templates.printable(genre) for genre in source.genres],
        "model": templates.printable(source.model),
        "step": source.step,
        "seconds": round(song.seconds, 2),
        "lyrics": " ".join(templates.printable(source.lyrics).split())[:PREVIEW],
        "prompt": source.prompt,
        "systems": {track.key: _system(source, track) for track in playable},
    }


def _write_script(path: Path, before: str, value: Any, after: str) -> None:
    """Writes JSON in a script, as ASCII: no character ends a line or a string of the script."""
    files.write_text(path, f"{before}{json.dumps(value)}{after}")


def _row(source: Source, folder: Path) -> dict[str, Any]:
    """An item's row; the item is made unless its folder is of the same files and code."""
    stats = [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in source.files]
    mark = _digest(_code(), *stats, source.model, source.step)
    kept = folder / "row.json"
    try:
        saved = json.loads(kept.read_text("utf-8"))
        if saved["made_from"] == mark and (folder / "item.js").exists():
            return saved["row"]
    except (OSError, ValueError, KeyError):
        pass
    row = make_item(source, folder)
    files.write_json(kept, {"made_from": mark, "row": row})
    return row


@functools.cache
def _code() -> str:
    """A digest of the code that makes items."""
    here = resources.files("jukejax.evaluation.pages")
    names = ("explorer.py", "player.py", "sample_page.py", "templates.py", "site/song.html.j2")
    return _digest(*(here.joinpath(name).read_text("utf-8") for name in names))


def write_site(site: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Writes the page and its index; returns the page's path."""
    _write_script(site / "index.js", "const INDEX = ", list(rows), ";\n")
    return templates.write_html(site / "index.html", "explorer.html.j2", title="Explorer")


def make_site(
    runs: Sequence[Path],
    site: Path,
    progress: Callable[[list[Source]], Iterable[Source]] = iter,
) -> tuple[Path, int, list[str]]:
    """Makes or updates a site; returns its page, the number of items, and why some are left out.

    Items that are no longer in `runs` are removed from it.

    Raises:
      ConfigError: `site` has other files, or there is nothing to show.
      FolderInUse: another process writes to `site`.
    """
    with locks.writing(site):
        others = any(path.name != locks.NAME for path in site.iterdir())
        if others and not (site / "items").is_dir():
            raise ConfigError(f"{site} has files but no explorer; choose another --out.")
        return _update(runs, site, progress)


def _update(
    runs: Sequence[Path], site: Path, progress: Callable[[list[Source]], Iterable[Source]]
) -> tuple[Path, int, list[str]]:
    """Does what `make_site` says, in a folder that is locked."""
    problems: list[str] = []
    rows = []
    for source in progress(list(find_sources(runs, problems))):
        if not source.wavs:
            problems.append(f"{source.files[0]}, {source.artist}: there is no sound yet.")
            continue
        try:
            rows.append(_row(source, site / "items" / source.id))
        except (JukejaxError, FileNotFoundError) as error:
            problems.append(f"{source.files[0]}, {source.artist}: {error}")
            shutil.rmtree(site / "items" / source.id, ignore_errors=True)
    if not rows:
        raise ConfigError(
            f"No samples or reconstructions in {', '.join(map(str, runs))}: there is no job.json "
            "with sounds and no sounds.json. " + " ".join(problems[:5])
        )
    path = write_site(site, rows)
    ids = {row["id"] for row in rows}
    for folder in (site / "items").iterdir():
        if folder.name not in ids and re.fullmatch("[0-9a-f]{12}", folder.name):
            shutil.rmtree(folder)
    return path, len(rows), problems
