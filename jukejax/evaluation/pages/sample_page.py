"""A page to listen to samples: `index.html` beside the sounds, opened from disk, no server.

`write_page` reads a sample directory: `job.json` and, per level l and item i,
`level_{l}/item_{i}.wav`; the highest level may also have the alignment of lyrics and music,
`item_{i}.alignment.npz` and `item_{i}.words.json`. It writes pictures and the page, and can be
called after every level; the page says which levels have no sound yet.
"""

import datetime
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from jukejax import stored
from jukejax.evaluation.pages import player, templates
from jukejax.formatting import format_seconds

JOB_DEFAULTS: dict[str, Any] = {
    "model": "", "seed": None, "seconds": None, "sample_rate": 44_100, "created": "",
}  # fmt: skip
LEVEL_DEFAULTS: dict[str, Any] = {
    "hop": None,
    "tokens": None,
    "temperature": None,
    "seconds_to_sample": None,
}


def read_job(sample_dir: Path) -> dict[str, Any]:
    """The parsed `job.json` of a sample directory, levels top first, missing details as None.

    Raises FileNotFoundError or DataError that names what is missing.
    """
    path = sample_dir / "job.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{sample_dir} is not a sample directory: it has no job.json. "
            "Give the folder that `jukejax sample --out` wrote."
        )
    fields: dict[str, stored.Types] = {"title": str, "items": list, "levels": list}
    remedy = "sample again."
    job = stored.read_object(path, fields, remedy)
    stored.check_job_record(job, path, remedy)
    levels = [LEVEL_DEFAULTS | {"name": f"level {lv['level']}"} | lv for lv in job["levels"]]
    levels.sort(key=lambda level: -int(level["level"]))
    return JOB_DEFAULTS | job | {"levels": levels}


def _details(job: dict[str, Any], level: dict[str, Any], exists: bool) -> str:
    """What the page says about a level, after its name."""
    facts = []
    if level["hop"]:
        milliseconds = 1000 * level["hop"] / job["sample_rate"]
        facts.append(f"{milliseconds:.2g} ms a token")
    if exists and level["tokens"]:
        facts.append(f"{level['tokens']:,} tokens")
    if exists and level["seconds_to_sample"] is not None:
        facts.append(f"sampled in {format_seconds(level['seconds_to_sample'])}")
    return " · ".join(facts)


def describe(sample_dir: Path, job: dict[str, Any], item: int) -> player.PlayerSong:
    """An item of a sample directory before its sounds are read; levels top first."""
    tracks = []
    for level in job["levels"]:
        stem = f"level_{int(level['level'])}/item_{item}"
        exists = (sample_dir / f"{stem}.wav").exists()
        tracks.append(
            player.Track(
                key=str(int(level["level"])),
                name=str(level["name"]),
                wav=f"{stem}.wav" if exists else None,
                picture=f"{stem}.png",
                details=_details(job, level, exists),
            )
        )
    entry = job["items"][item]
    return player.PlayerSong(
        artist=str(entry.get("artist") or f"Song {item + 1}"),
        genres=[str(genre) for genre in entry.get("genres") or []],
        tracks=tracks,
    )


def align(
    sample_dir: Path, job: dict[str, Any], item: int
) -> tuple[list[player.Piece], player.Alignment | None]:
    """The lyrics of an item, with times of words where it has an alignment, and that alignment.

    Raises ConfigError for an alignment that cannot be used.
    """
    lyrics = str(job["items"][item].get("lyrics") or "")
    levels = job["levels"]
    alignment = None
    if levels:
        alignment = player.read_alignment(sample_dir / f"level_{int(levels[0]['level'])}", item)
    if alignment is None:
        return player.cut_lyrics(lyrics), None
    return player.cut_lyrics(lyrics, alignment.words, alignment.weights.shape[1]), alignment


def numbers(sample_dir: Path, item: int) -> list[tuple[str, str]]:
    """How commands name a song: the node of a composed song, or else the folder; and the item."""
    node = _node(sample_dir)
    return [("node", node) if node else ("run", sample_dir.resolve().name), ("item", str(item))]


def _node(sample_dir: Path) -> str:
    match = re.fullmatch(r"node_(\d+)", sample_dir.name)
    return match[1] if match else ""


def compose_commands(sample_dir: Path, job: dict[str, Any], item: int) -> str:
    """The commands that extend and upsample a candidate of a composed song; "" for other songs."""
    node = _node(sample_dir)
    if not node:
        return ""
    chosen = f"--song {shlex.quote(str(sample_dir.parent))} --node {node} --item {item}"
    lines = [f"jukejax compose extend {chosen} --seconds 4"]
    if all(int(level["level"]) for level in job["levels"]):  # without the bottom level
        lines.append(f"jukejax compose upsample {chosen}")
    return "\n".join(lines)


def _date(created: str) -> str:
    """An ISO time in words; other text is unchanged."""
    try:
        moment = datetime.datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{moment.day} {moment:%B %Y, %H:%M}"


def write_page(sample_dir: str | Path) -> Path:
    """Writes `index.html` and the pictures of a sample directory; returns the page's path.

    Safe to call again after each level. Raises FileNotFoundError without a `job.json`, ConfigError
    for a `job.json`, a sound or an alignment that cannot be used.
    """
    folder = Path(sample_dir)
    job = read_job(folder)
    songs = []
    for item in range(len(job["items"])):
        song = describe(folder, job, item)
        lyrics, alignment = align(folder, job, item)
        attention = song.tracks[0].picture.replace(".png", ".attention.png") if alignment else ""
        song = replace(
            song, lyrics=lyrics, attention=attention, facts=numbers(folder, item),
            commands=compose_commands(folder, job, item),
        )  # fmt: skip
        songs.append(player.draw(folder, song, alignment))
    return templates.write_html(
        folder / "index.html", "page.html.j2", job=job, songs=songs, date=_date(str(job["created"]))
    )
