"""A page to listen to samples: `index.html` beside the sounds, opened from disk, no server.

`write_page` reads a sample directory: `job.json` and, per level l and item i,
`level_{l}/item_{i}.wav`. It adds the pictures `level_{l}/item_{i}.png` and the page, so it can be
called after every level; levels without a sound yet say so. Sounds and pictures are referred to by
relative paths, style and script are in the page, and all text is escaped.
"""

import datetime
import json
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jukejax import atomic
from jukejax.spectrogram import HIGH_HZ, LOW_HZ, log_spectrogram, loudest, to_image
from jukejax.training.metrics import format_seconds

FRAMES = 1200  # columns of a picture
BINS = 224  # rows of a picture
JOB_DEFAULTS: dict[str, Any] = {
    "model": "", "seed": None, "seconds": None, "sample_rate": 44_100, "created": "",
}  # fmt: skip
LEVEL_DEFAULTS: dict[str, Any] = {
    "hop": None,
    "tokens": None,
    "temperature": None,
    "seconds_to_sample": None,
}
TICKS_HZ = ((100, "100"), (1000, "1k"), (10_000, "10k"))


@dataclass(frozen=True)
class Track:
    """One level of one item as the page shows it; `wav` is None before it is sampled."""

    level: int
    name: str
    wav: str | None
    png: str
    seconds: float
    details: str


@dataclass(frozen=True)
class Song:
    """One item: labels, lyrics and its tracks, top level first."""

    artist: str
    genres: list[str]
    lyrics: str
    tracks: list[Track]

    @property
    def seconds(self) -> float:
        """Length of the longest track, which the time axis spans."""
        return max((track.seconds for track in self.tracks), default=0.0)


def read_job(sample_dir: Path) -> dict[str, Any]:
    """The parsed `job.json` of a sample directory, levels top first, absent details as None.

    Raises FileNotFoundError or ValueError with what is missing.
    """
    path = sample_dir / "job.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{sample_dir} is no sample directory: it has no job.json. "
            "Give the folder that `python -m experiments.sample --out` wrote."
        )
    try:
        job = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); sample again.") from error
    missing = [key for key in ("title", "items", "levels") if key not in job]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; see jukejax/evaluation/page.py.")
    levels = [LEVEL_DEFAULTS | {"name": f"level {lv['level']}"} | lv for lv in job["levels"]]
    levels.sort(key=lambda level: -int(level["level"]))
    return JOB_DEFAULTS | job | {"levels": levels}


def _files(level: dict[str, Any], item: int) -> tuple[str, str]:
    """Relative paths of the sound and the picture of an item at a level."""
    stem = f"level_{int(level['level'])}/item_{item}"
    return f"{stem}.wav", f"{stem}.png"


def draw_pictures(sample_dir: Path, levels: list[dict[str, Any]], item: int) -> None:
    """Makes the pictures of an item's sounds, unless all are newer than their sounds.

    One range of colours serves all levels of an item, so what a level adds can be seen.
    """
    import matplotlib.image
    import soundfile

    pairs = [tuple(sample_dir / name for name in _files(level, item)) for level in levels]
    pairs = [pair for pair in pairs if pair[0].exists()]
    if all(p.exists() and p.stat().st_mtime >= w.stat().st_mtime for w, p in pairs):
        return
    spectra = []
    for wav, _ in pairs:
        try:
            audio, rate = soundfile.read(wav, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{wav} cannot be read ({error}); sample it again.") from error
        spectra.append(log_spectrogram(audio.mean(axis=1), rate, frames=FRAMES, bins=BINS))
    top = max(loudest(spec) for spec in spectra)
    for (_, png), spec in zip(pairs, spectra, strict=True):
        with atomic.atomic_path(png) as temporary:
            matplotlib.image.imsave(temporary, to_image(spec, top=top))


def _track(sample_dir: Path, job: dict[str, Any], level: dict[str, Any], item: int) -> Track:
    """Gathers what the page says about one level of one item."""
    import soundfile

    wav, png = _files(level, item)
    exists = (sample_dir / wav).exists()
    facts = []
    if level["hop"]:
        milliseconds = 1000 * level["hop"] / job["sample_rate"]
        facts.append(f"{milliseconds:.2g} ms a token")
    if exists and level["tokens"]:
        facts.append(f"{level['tokens']:,} tokens")
    if exists and level["seconds_to_sample"] is not None:
        facts.append(f"sampled in {format_seconds(level['seconds_to_sample'])}")
    return Track(
        level=int(level["level"]),
        name=str(level["name"]),
        wav=wav if exists else None,
        png=png,
        seconds=soundfile.info(sample_dir / wav).duration if exists else 0.0,
        details=" · ".join(facts),
    )


def clock(seconds: float) -> str:
    """A position as minutes and seconds: 0:09, 3:25."""
    whole = int(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


def time_ticks(seconds: float, most: int = 6) -> list[tuple[float, str]]:
    """Marks of a time axis, (part of the length in 0..1, label), at most `most` + 1."""
    if not seconds > 0:
        return []
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600)
    step = next((s for s in steps if seconds / s <= most), seconds / most)
    count = math.floor(seconds / step + 1e-9)
    marks = [index * step for index in range(count + 1)]
    return [(at / seconds, f"{at:.1f} s" if step < 1 else clock(at)) for at in marks]


def _date(created: str) -> str:
    """An ISO time in words; what is no ISO time stays as it is."""
    try:
        moment = datetime.datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{moment.day} {moment:%B %Y, %H:%M}"


def write_page(sample_dir: str | Path) -> Path:
    """Writes `index.html` and the pictures of a sample directory; returns the page's path.

    Safe to call again after each level. Raises FileNotFoundError without a `job.json`, ValueError
    for a `job.json` or a sound that cannot be used.
    """
    import jinja2

    folder = Path(sample_dir)
    job = read_job(folder)
    songs = []
    for index, item in enumerate(job["items"]):
        draw_pictures(folder, job["levels"], index)
        songs.append(
            Song(
                artist=str(item.get("artist") or f"Song {index + 1}"),
                genres=[str(genre) for genre in item.get("genres") or []],
                lyrics=str(item.get("lyrics") or "").strip("\r\n"),
                tracks=[_track(folder, job, level, index) for level in job["levels"]],
            )
        )
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(clock=clock, duration=format_seconds)
    source = resources.files("jukejax.evaluation").joinpath("page.html.j2").read_text("utf-8")
    span = math.log(HIGH_HZ / LOW_HZ)
    html = environment.from_string(source).render(
        job=job,
        songs=songs,
        date=_date(str(job["created"])),
        frequency_ticks=[(math.log(hz / LOW_HZ) / span, label) for hz, label in TICKS_HZ],
        time_ticks=time_ticks,
    )
    path = folder / "index.html"
    # Half a surrogate pair in a name cannot be UTF-8; as a reference it harms nothing.
    atomic.write_bytes(path, html.encode("utf-8", "xmlcharrefreplace"))
    return path
