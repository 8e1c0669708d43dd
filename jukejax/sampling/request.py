"""From options to a request: new songs, or songs that begin with given codes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jukejax.config import ConfigError
from jukejax.label_kinds import KINDS
from jukejax.model_dir import LoadedModel
from jukejax.sampling import sound
from jukejax.sampling.job import Item, Job, Options, only
from jukejax.sampling.sample_dir import SampleDir, digest, read_job
from jukejax.tracks import Tracks, song_tracks

_KEPT = tuple(kind.option for kind in KINDS)  # labels of a song that is continued or upsampled


class Request(NamedTuple):
    """A job, the codes that it begins with ((N, n) per level, bottom first), and their origin."""

    job: Job
    given: list[np.ndarray]
    notes: dict[str, Any] = {}


@dataclass(frozen=True)
class Source:
    """The finished codes of chosen songs of a sample directory."""

    path: Path
    job: Job
    hops: tuple[int, ...]
    block: int
    items: tuple[int, ...]
    codes: list[np.ndarray]  # (N, n) per level, bottom first

    def cut(self, start: int, stop: int) -> list[np.ndarray]:
        """Codes of samples start .. stop - 1, as many as are finished."""
        pairs = zip(self.codes, self.hops, strict=True)
        return [z[:, start // hop : stop // hop] for z, hop in pairs]


def open_source(path: Path, items: tuple[int, ...], model: LoadedModel) -> Source:
    """A sample directory to take codes from.

    Raises:
      ConfigError: there is none, or it lacks an item.
    """
    _, job = read_job(path / "job.json")
    config = model.vqvae.config
    items = items or tuple(range(len(job.items)))
    for i in items:
        if not 0 <= i < len(job.items):
            raise ConfigError(f"{path} has no item {i}; it has {len(job.items)}, numbered from 0.")
    samples = job.samples(config.sample_rate, config.block)
    folder, codes = SampleDir.open(path), []
    for level, hop in enumerate(config.hops):
        z, done = folder.load(level, (len(job.items), samples // hop))
        codes.append(z[list(items), : done[list(items)].min()])
    return Source(path, job, config.hops, config.block, items, codes)


def make_request(
    model: LoadedModel,
    options: Options,
    lyrics: str = "",
    prompt: np.ndarray | None = None,
    tracks: Tracks | None = None,
) -> Request:
    """What is to be sampled with a model.

    Args:
      lyrics: of the whole song.
      prompt: sound (S,) float32 in [-1, 1] at the model's sample rate that the songs begin with.
      tracks: of the whole song, by name: phones, notes ...

    Raises:
      ConfigError: options contradict each other, or ask for what a sample directory lacks.
    """
    ways = {"prompt": prompt, "continue-from": options.continue_from, "upsample": options.upsample}
    chosen = [f"--{name}" for name, value in ways.items() if value is not None]
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} cannot be combined; give one.")
    if options.count < 1:
        raise ConfigError(f"count is {options.count}; ask for at least one song.")
    if not all(map(math.isfinite, (options.at, *options.span))):
        raise ConfigError(f"at is {options.at} and span {options.span}; they must be numbers.")
    if options.render:
        options = dataclasses.replace(options, levels=rendered(model, options.levels))
    if options.continue_from is not None:
        _kept(options, lyrics, tracks, "continue-from")
        return _continued(model, options, options.continue_from)
    if options.upsample is not None:
        _kept(options, lyrics, tracks, "upsample")
        why = "samples no lower levels; give --continue-from, or leave out one of the two"
        only(options, Options(), "render", why=why)
        return _upsampled(model, options, options.upsample)
    only(options, Options(), "item", "at", "span", why="needs --continue-from or --upsample")
    labels: dict[str, Any] = {kind.field: getattr(options, kind.option) for kind in KINDS}
    song = Item(lyrics=lyrics, tracks=song_tracks(tracks or {}), **labels)
    job = new_job(options, (song,) * options.count, model.directory.name)
    if prompt is None:
        return Request(job, [])
    given = [np.repeat(z[None], options.count, 0) for z in sound.encode(model.vqvae, prompt)]
    return _begin(model, job, given, {"prompt": "sound"})


def rendered(model: LoadedModel, levels: tuple[int, ...]) -> tuple[int, ...]:
    """The levels to sample for a renderer: those given, or its own and all above.

    Raises:
      ConfigError: the renderer's level is not the lowest one.
      CheckpointError: the model has no renderer.
    """
    level = model.directory.checked_renderer(model.vqvae)[0].level
    if levels and min(levels) != level:
        raise ConfigError(
            f"levels has {min(levels)} as the lowest, but the renderer makes sound of level "
            f"{level}; leave out --levels, or --render."
        )
    return levels or tuple(range(level, model.vqvae.config.levels))


def new_job(options: Options, items: tuple[Item, ...], model: str) -> Job:
    """A job of these songs; all that is not of a song is as the options say."""
    shared = {f.name for f in dataclasses.fields(Job)} & {
        f.name for f in dataclasses.fields(Options)
    }
    return Job(model=model, items=items, **{name: getattr(options, name) for name in shared})


def _begin(
    model: LoadedModel, job: Job, given: list[np.ndarray], origin: dict[str, Any]
) -> Request:
    """A job that begins with given codes, none of which may be past its end."""
    config = model.vqvae.config
    samples = job.samples(config.sample_rate, config.block)
    longest = max(z.shape[1] * hop for z, hop in zip(given, config.hops, strict=True))
    if longest > samples:
        raise ConfigError(
            f"{longest / config.sample_rate:g} seconds are given, but seconds is {job.seconds:g}: "
            "the length counts from the beginning of the song. Give more --seconds."
        )
    counts = tuple(z.shape[1] for z in given)
    job = dataclasses.replace(job, given=counts, given_digest=digest(given))
    return Request(job, given, {"origin": origin})


def request_again(model: LoadedModel, file: Path, levels: tuple[int, ...] = ()) -> Request:
    """The request of a job.json, with the codes that its songs began with from beside it.

    Raises:
      ConfigError: it is not a job.json, or its codes are not the ones it began with.
    """
    record, job = read_job(file)
    levels = levels or job.levels
    levels = rendered(model, levels) if job.render else levels
    job = dataclasses.replace(job, model=model.directory.name, levels=levels)
    if not any(job.given):
        return Request(job, [])
    folder = SampleDir.open(file.parent)
    given = [folder.codes(level)[:, :count] for level, count in enumerate(job.given)]
    if digest(given) != job.given_digest:
        raise ConfigError(
            f"{file.parent} does not have the codes that its songs began with; "
            "the level_* folders belong beside job.json."
        )
    return Request(job, given, {"origin": record.get("origin")})


def _continued(model: LoadedModel, options: Options, path: Path) -> Request:
    """Songs of a directory, kept up to a time and continued."""
    only(options, Options(), "span", why="needs --upsample")
    source = open_source(path, options.item, model)
    rate, block = model.vqvae.config.sample_rate, source.block
    finished = source.codes[-1].shape[1] * source.hops[-1] // block * block
    keep = round(options.at * rate) // block * block if options.at else finished
    if not 0 <= keep <= finished:
        raise ConfigError(
            f"at is {options.at:g}, but {path} has {finished / rate:g} seconds of its top level."
        )
    was, end = source.job, source.job.begin_seconds + options.seconds
    longer = max(was.total_seconds, end) if was.total_seconds else 0.0
    redraws = was.redraws + (keep < finished) if was.seed == options.seed else 0
    job = dataclasses.replace(
        new_job(options, _items(source, options.count), model.directory.name),
        begin_seconds=was.begin_seconds,
        total_seconds=options.total_seconds or longer,
        redraws=redraws,
    )
    given = [np.repeat(z, options.count, 0) for z in source.cut(0, keep)]
    origin = {"continues": str(path.resolve()), "items": source.items, "at": keep / rate}
    return _begin(model, job, given, origin)


def _upsampled(model: LoadedModel, options: Options, path: Path) -> Request:
    """The levels below those that a directory has, for a span of its songs.

    Where it has all levels, those below the top are sampled again.
    """
    only(options, Options(), "total_seconds", why="cannot change in --upsample")
    only(options, Options(), "at", why="needs --continue-from")
    if options.seconds != Options().seconds:
        raise ConfigError("--upsample takes no --seconds; give --span FROM TO.")
    source = open_source(path, options.item, model)
    rate, block = model.vqvae.config.sample_rate, source.block
    finished = source.codes[-1].shape[1] * source.hops[-1] // block * block
    first, last = (round(s * rate) // block * block for s in options.span)
    last = last if any(options.span) else finished
    if not 0 <= first < last <= finished:
        raise ConfigError(
            f"span is {options.span[0]:g} {options.span[1]:g}, but {path} has "
            f"{finished / rate:g} seconds of its top level."
        )
    codes = source.cut(first, last)
    full = [z.shape[1] * hop == last - first for z, hop in zip(codes, source.hops, strict=True)]
    again = options.levels or (range(len(codes) - 1) if all(full) else ())
    kept = [z if full[level] and level not in again else z[:, :0] for level, z in enumerate(codes)]
    if all(z.shape[1] for z in kept):
        raise ConfigError(f"{path} has all levels of the model: nothing is left to upsample.")
    given = [np.repeat(z, options.count, 0) for z in kept]
    begin = source.job.begin_seconds
    end = begin + last / rate  # of whole codes: a song that was cut to length ends before
    job = dataclasses.replace(
        new_job(options, _items(source, options.count), model.directory.name),
        seconds=(last - first) / rate,
        begin_seconds=begin + first / rate,
        total_seconds=max(source.job.total_seconds or begin + source.job.seconds, end),
    )
    origin = {"upsamples": str(path.resolve()), "items": source.items, "at": first / rate}
    return _begin(model, job, given, origin)


def _items(source: Source, count: int) -> tuple[Item, ...]:
    return tuple(source.job.items[i] for i in source.items for _ in range(count))


def _kept(options: Options, lyrics: str, tracks: Tracks | None, way: str) -> None:
    """Raises ConfigError where labels, lyrics or tracks are given to songs that have them."""
    only(options, Options(), *_KEPT, why=f"cannot change in --{way}")
    for name, value in (("lyrics", lyrics), ("tracks", tracks)):
        if value:
            raise ConfigError(f"--{name} cannot change in --{way}.")
