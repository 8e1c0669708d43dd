"""What is sampled, and the options it is made from. Standard library and configs only."""

from __future__ import annotations

import difflib
import hashlib
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from jukejax.config import ConfigError
from jukejax.track_config import SongTrack

Weights = Literal["float32", "bfloat16", "int8"]
WEIGHTS: tuple[str, ...] = get_args(Weights)
LONGEST = 48_000.0  # seconds: positions in samples are 32-bit
SMALLEST = 1e-30  # temperature and top-p: logits divided by less, or less itself, leave float32


@dataclass(frozen=True)
class Item:
    """One song: labels, lyrics and tracks, and how it is drawn where that differs from the job.

    A year of 0 is unknown. Year, tags and tracks are for models trained with them.
    """

    artist: str = ""
    genres: tuple[str, ...] = ()
    lyrics: str = ""
    temperature: tuple[float, ...] = ()  # per level, bottom first; none: the job's
    top_k: tuple[int, ...] = ()
    top_p: tuple[float, ...] = ()
    year: int = 0
    tags: tuple[str, ...] = ()
    tracks: tuple[SongTrack, ...] = ()


@dataclass(frozen=True)
class Job:
    """All that determines the samples; `job.json` has it under "request".

    Songs may begin with given codes (of a prompt, or of another sample). These are the first ones
    in the sample directory; the job has their number and digest.
    """

    model: str = ""
    items: tuple[Item, ...] = ()
    seconds: float = 20.0
    begin_seconds: float = 0.0  # position of the sample in the song
    total_seconds: float = 0.0  # length of the song; 0: it ends with the sample
    seed: int = 0
    redraws: int = 0  # how often the song was cut back and continued with the same seed
    temperature: tuple[float, ...] = (0.98, 0.98, 0.98)  # per level, bottom first
    top_k: tuple[int, ...] = ()  # per level; 0 keeps all; none: 0 for all
    top_p: tuple[float, ...] = ()  # per level; 1 keeps all; none: 1 for all
    hop_fraction: tuple[float, ...] = (0.5, 0.5, 0.125)  # per level, bottom first
    max_batch: int = 0  # songs (times chains) per batch; 0: all
    parallel_segments: int = 1  # chains that a song's upsampling is cut into; 1: none
    levels: tuple[int, ...] = ()  # none: all
    given: tuple[int, ...] = ()  # codes per level, bottom first; none: 0 for all
    given_digest: str = ""
    weights: str = "float32"  # storage of matrices, one of WEIGHTS
    guidance: float = 0.0  # of levels that read tracks; 0: none
    render: bool = False  # the model's renderer makes the sound of its level

    def __post_init__(self) -> None:
        for name, value in (("seconds", self.seconds), ("total_seconds", self.total_seconds)):
            if value > LONGEST:
                raise ConfigError(f"{name} is {value}; it must be at most {LONGEST:.0f}.")
        if not 0 < self.seconds < math.inf:
            raise ConfigError(f"seconds is {self.seconds}; it must be a number over 0.")
        if not 0 <= self.begin_seconds < LONGEST:
            raise ConfigError(f"begin_seconds is {self.begin_seconds}; it must be 0 or more.")
        if self.weights not in WEIGHTS:
            raise ConfigError(
                f"weights is {self.weights!r}; it must be one of {', '.join(WEIGHTS)}."
            )
        if not 0 <= self.guidance < math.inf:
            raise ConfigError(f"guidance is {self.guidance}; it must be a number of 0 or more.")
        _check(self.temperature, self.top_k, self.top_p)
        for item in self.items:
            _check(item.temperature, item.top_k, item.top_p)
        for fraction in self.hop_fraction:
            if not 0 < fraction <= 1:
                raise ConfigError(f"hop_fraction is {fraction}; it must be over 0 and at most 1.")
        end = self.begin_seconds + self.seconds
        if end > LONGEST:
            raise ConfigError(
                f"begin_seconds is {self.begin_seconds} and the sample ends at {end:g}; it must "
                f"end by {LONGEST:.0f}."
            )
        if not (self.total_seconds == 0 or end <= self.total_seconds * (1 + 1e-9)):
            raise ConfigError(
                f"total_seconds is {self.total_seconds} and the sample ends at {end:g}: a song "
                "cannot be shorter than its sample. Give 0 to take the sample for the song."
            )
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"seed is {self.seed}; it must be from 0 to {2**31 - 1}.")
        if self.redraws < 0:
            raise ConfigError(f"redraws is {self.redraws}; it must be 0 or more.")
        if self.max_batch < 0:
            raise ConfigError(f"max_batch is {self.max_batch}; it must be 0 (all) or more.")
        if self.parallel_segments < 1:
            raise ConfigError(
                f"parallel_segments is {self.parallel_segments}; it must be 1 (off) or more."
            )
        if 0 < self.max_batch < self.parallel_segments:
            raise ConfigError(
                f"max_batch is {self.max_batch}, but the {self.parallel_segments} chains of a song "
                "are sampled at once; give at least as many, or fewer --parallel-segments."
            )

    @property
    def drawing_seed(self) -> int:
        """Seed of the uniform numbers: `seed`, and after each redraw another one.

        Numbers depend on seed, song, level and position, so that a song that is cut back would
        draw with the numbers of the piece that was cut off, and sample the same piece again.
        """
        if not self.redraws:
            return self.seed
        hashed = hashlib.sha256(f"{self.seed} {self.redraws}".encode()).digest()
        return int.from_bytes(hashed[:4], "big") // 2

    def samples(self, sample_rate: int, top_hop: int) -> int:
        """Length in samples, rounded up to whole top-level codes."""
        return max(1, -(-round(self.seconds * sample_rate) // top_hop)) * top_hop

    def batches(self, chains: int = 1) -> list[slice]:
        """Which items are sampled together, with `chains` rows each."""
        count = self.max_batch // chains or max(1, len(self.items))
        total = len(self.items)
        return [slice(i, min(i + count, total)) for i in range(0, total, count)]


def _check(
    temperature: tuple[float, ...], top_k: tuple[int, ...], top_p: tuple[float, ...]
) -> None:
    for t in temperature:
        if not SMALLEST <= t < math.inf:
            raise ConfigError(
                f"temperature is {t}; it must be a number of {SMALLEST} or more. For the likeliest "
                "code give --top-k 1."
            )
    for k in top_k:
        if not 0 <= k < 2**31:
            raise ConfigError(f"top_k is {k}; it must be from 0 (all) to {2**31 - 1}.")
    for p in top_p:
        if not SMALLEST <= p <= 1:
            raise ConfigError(f"top_p is {p}; it must be from {SMALLEST} to 1 (all).")


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What kind of song, by names."""

    artist: str = "unknown"
    """A name of the model's label vocabulary."""
    genre: tuple[str, ...] = ("unknown",)
    """One or more names of the vocabulary."""
    year: int = 0
    """The song's year, for models trained with years; 0: unknown."""
    tags: tuple[str, ...] = ()
    """Moods and keywords of the vocabulary, for models trained with tags."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How codes are drawn."""

    seed: int = 0
    """Seed of all random numbers; the same seed samples the same song."""
    temperature: tuple[float, ...] = Job.temperature
    """Temperature per level, bottom first."""
    top_k: tuple[int, ...] = ()
    """Top-k per level, bottom first; 0 = off."""
    top_p: tuple[float, ...] = ()
    """Top-p (nucleus) per level, bottom first, applied after top-k; 1 = off."""
    hop_fraction: tuple[float, ...] = Job.hop_fraction
    """How far windows move, as a fraction of their length; per level, bottom first."""
    guidance: float = 0.0
    """How far to follow the tracks beyond what the prior would: it samples from logits +
    GUIDANCE x (logits - logits without tracks), with two rows per song. 0: off."""
    weights: str = "float32"
    """Storage of the priors' matrices: float32, bfloat16 or int8; smaller ones are read faster."""


@dataclass(frozen=True, kw_only=True)
class Options(Drawing, Labels):
    """Which songs are sampled, and how: of the command and of `jukejax.Model.sample` alike."""

    seconds: float = 20.0
    """Length of the sample, including the codes it is given."""
    total_seconds: float = 0.0
    """Length of the song that the sample begins; 0: the sample is the whole song."""
    count: int = 1
    """Songs to sample with these labels, or from each item."""
    levels: tuple[int, ...] = ()
    """Levels to sample, 0 is the bottom; none given: all."""
    render: bool = False
    """Make the sound by the model's renderer: the levels below its own are not sampled."""
    max_batch: int = 0
    """Songs (times chains) per batch; 0: all in one batch."""
    parallel_segments: int = 1
    """Chains that each song's upsampling is cut into and sampled as one batch: faster, with a seam
    where each chain begins. 1 = off."""
    continue_from: Path | None = None
    """A sample directory whose songs are continued."""
    at: float = 0.0
    """Continue from this second; 0: from the end."""
    upsample: Path | None = None
    """A sample directory whose upper levels are given; its lower levels are sampled."""
    span: tuple[float, float] = (0.0, 0.0)
    """First and last second to upsample; 0 0: all."""
    item: tuple[int, ...] = ()
    """Songs of that directory, by number; none given: all."""


def options_from(levels: int, values: dict[str, Any]) -> Options:
    """Options from keywords, for a model with `levels` levels.

    A single name stands for a tuple of one, a number for every level, a string for a path.

    Raises:
      ConfigError: a keyword is not an option.
    """
    plain = {field.name: field.default for field in fields(Options)}
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in plain:
            near = difflib.get_close_matches(name, plain, 1) or plain
            raise ConfigError(
                f"{name} is not an option of sampling; did you mean {', '.join(near)}?"
            )
        if name in ("genre", "tags", "levels", "item") and isinstance(value, str | int):
            value = (value,)
        elif name in ("continue_from", "upsample") and value is not None:
            value = Path(value)
        elif isinstance(plain[name], tuple):
            value = (value,) * levels if isinstance(value, int | float) else tuple(value)
        checked[name] = value
    return Options(**checked)


def only(given: Any, plain: Any, *names: str, why: str) -> None:
    """Raises ConfigError where a field is not as in `plain`: it has no place there."""
    for name in names:
        if getattr(given, name) != getattr(plain, name):
            raise ConfigError(f"--{name.replace('_', '-')} {why}.")
