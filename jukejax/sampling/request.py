"""From a command line to a job: new songs, or ones that begin with given codes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jukejax import presets
from jukejax.config import ConfigError, MeshConfig, PriorConfig, VQVAEConfig
from jukejax.label_kinds import KINDS
from jukejax.model_dir import load_vqvae, read_model_dir
from jukejax.parallel.mesh import make_mesh
from jukejax.sampling import sound
from jukejax.sampling.job import Item, Job
from jukejax.sampling.planning import plan_text
from jukejax.sampling.resolve import unlabelled
from jukejax.sampling.sample_dir import SampleDir, digest, read_job
from jukejax.text.lyrics import read_lyrics
from jukejax.training.checkpoint import load_experiment


@dataclass(frozen=True)
class Command:
    """Sample songs from a model directory."""

    out: Path
    """Gets codes, sounds, pictures, job.json and index.html."""
    model: Path | None = None
    """A model directory (model.json)."""
    job: Path | None = None
    """A job.json to make again, with --model where the model has moved, and --levels; takes no
    other options."""
    artist: str = "unknown"
    """A name of the model's label vocabulary."""
    genre: tuple[str, ...] = ("unknown",)
    """One or more names of the vocabulary."""
    year: int = 0
    """The year that the song is to sound like, where the model knows years; 0: unknown."""
    tags: tuple[str, ...] = ()
    """Moods and keywords of the vocabulary, where the model knows tags."""
    lyrics: Path | None = None
    """A text file."""
    seconds: float = 20.0
    """Length to make, with what is given."""
    total_seconds: float = 0.0
    """Length of the song that the sample begins; 0: as long as the sample."""
    count: int = 1
    """Songs to make with these labels, or from each item."""
    seed: int = 0
    """Of all random numbers; the same seed makes the same song."""
    temperature: tuple[float, ...] = Job.temperature
    """A level each, bottom first."""
    top_k: tuple[int, ...] = ()
    """Draw among so many likeliest codes, a level each, bottom first; 0: all."""
    top_p: tuple[float, ...] = ()
    """Draw among the likeliest codes (of top-k's) that sum up to this; 1: all."""
    hop_fraction: tuple[float, ...] = Job.hop_fraction
    """How far windows move, a level each, bottom first."""
    levels: tuple[int, ...] = ()
    """Levels to make, 0 is the bottom; none: all."""
    max_batch: int = 0
    """Songs (times chains) sampled at once; 0: all."""
    parallel_segments: int = 1
    """Chains that a song's upsampling is cut into, sampled as one batch: quicker, with a seam where
    a chain begins. 1: none."""
    weights: str = "float32"
    """float32, bfloat16 or int8: what the priors' matrices are held in; smaller is read faster."""
    prompt: Path | None = None
    """A sound file that the songs go on from."""
    prompt_seconds: float = 0.0
    """So much of it; 0: all."""
    continue_from: Path | None = None
    """A sample directory whose songs are gone on from."""
    at: float = 0.0
    """From this second of them; 0: their end."""
    upsample: Path | None = None
    """A sample directory whose upper levels are taken, to make the levels below."""
    span: tuple[float, float] = (0.0, 0.0)
    """From which to which second of its songs; 0 0: all."""
    item: tuple[int, ...] = ()
    """Which songs of that directory; none: all."""
    stream: bool = False
    """Begin lower levels as soon as codes above them are there; keeps all priors in memory."""
    plan: bool = False
    """Print windows, memory and a time estimate, and make nothing."""
    presets: tuple[str, ...] = ()
    """With --plan, in place of a model: names of a VQ-VAE's preset and its priors'."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """tensor splits weights and caches, for one song; data splits a batch of many. Not of the job:
    the same batch on the same mesh makes the same song, another mesh may turn a token by rounding.
    """


_SAME = (*(kind.option for kind in KINDS), "lyrics")  # of a song that goes on


class Request(NamedTuple):
    """A job, the codes that it begins with ((N, n) a level, bottom first), and where from."""

    job: Job
    given: list[np.ndarray]
    notes: dict[str, Any] = {}


@dataclass(frozen=True)
class Source:
    """The finished codes of a sample directory, of chosen songs."""

    path: Path
    job: Job
    config: VQVAEConfig
    items: tuple[int, ...]
    codes: list[np.ndarray] = field(default_factory=list)  # (N, n) a level, bottom first

    def cut(self, start: int, stop: int) -> list[np.ndarray]:
        """Codes of samples start .. stop - 1, as many as there are."""
        return [
            z[:, start // hop : stop // hop]
            for z, hop in zip(self.codes, self.config.hops, strict=True)
        ]


def vqvae_config(model: Path | str) -> VQVAEConfig:
    """The config of a model directory's VQ-VAE; no weights are read."""
    experiment, _ = load_experiment(read_model_dir(model).vqvae)
    if not isinstance(experiment.model, VQVAEConfig):
        raise ConfigError(f"{model} names no VQ-VAE as its VQ-VAE; mend its model.json.")
    return experiment.model


def open_source(path: Path, items: tuple[int, ...], model: Path | None = None) -> Source:
    """A sample directory to take codes from.

    Raises:
      ConfigError: there is none, or it lacks an item.
    """
    _, job = read_job(path / "job.json")
    if model:
        job = dataclasses.replace(job, model=str(model.resolve()))
    config = vqvae_config(job.model)
    items = items or tuple(range(len(job.items)))
    for i in items:
        if not 0 <= i < len(job.items):
            raise ConfigError(f"{path} has no item {i}; it holds {len(job.items)}, from 0 on.")
    samples = job.samples(config.sample_rate, config.hops[-1])
    folder, codes = SampleDir.open(path), []
    for level, hop in enumerate(config.hops):
        z, done = folder.load(level, (len(job.items), samples // hop))
        codes.append(z[list(items), : done[list(items)].min()])
    return Source(path, job, config, items, codes)


def make_request(command: Command) -> Request:
    """What a command line asks for.

    Raises:
      ConfigError, DataError: it asks for what there is not.
    """
    ways = {"job": command.job, "prompt": command.prompt, "continue-from": command.continue_from,
            "upsample": command.upsample}  # fmt: skip
    chosen = [f"--{name}" for name, value in ways.items() if value is not None]
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} cannot be combined; give one.")
    if command.count < 1:
        raise ConfigError(f"count is {command.count}; ask for at least one song.")
    if command.job is not None:
        return _again(command)
    if command.continue_from is not None:
        return _continued(command, command.continue_from)
    if command.upsample is not None:
        return _upsampled(command, command.upsample)
    return _new(command)


def _job(command: Command, model: str, items: tuple[Item, ...]) -> Job:
    return Job(
        model=model,
        items=items,
        seconds=command.seconds,
        total_seconds=command.total_seconds,
        seed=command.seed,
        temperature=command.temperature,
        top_k=command.top_k,
        top_p=command.top_p,
        hop_fraction=command.hop_fraction,
        max_batch=command.max_batch,
        parallel_segments=command.parallel_segments,
        levels=command.levels,
        weights=command.weights,
    )


def plan_presets(command: Command) -> str:
    """The plan of new songs by models that are there by their presets alone.

    Raises:
      ConfigError: more than a plan is asked for, or the presets are no model.
    """
    plain = Command(command.out)
    _only(command, "model", "job", "prompt", "continue_from", "upsample",
          why="cannot be combined with --presets")  # fmt: skip
    if command.plan == plain.plan:
        raise ConfigError("Presets have no weights, so nothing can be made of them; give --plan.")
    models = [presets.get(name).model for name in command.presets]
    priors = {c.level: c for c in models if isinstance(c, PriorConfig)}
    vqvae = next((c for c in models if isinstance(c, VQVAEConfig)), None)
    if vqvae is None or sorted(priors) != list(range(vqvae.levels)):
        raise ConfigError(
            f"presets is {' '.join(command.presets)}; name a VQ-VAE and a prior for each level."
        )
    job = _job(command, "", (Item(),) * command.count)
    setups, mesh = unlabelled(job, vqvae, priors), make_mesh(command.mesh)
    return plan_text(job, vqvae, setups, mesh, command.out, command.stream)


def _with_given(job: Job, given: list[np.ndarray], notes: dict[str, Any]) -> Request:
    counts = tuple(z.shape[1] for z in given)
    return Request(dataclasses.replace(job, given=counts, given_digest=digest(given)), given, notes)


def _new(command: Command) -> Request:
    """Songs from nothing, or from a prompt."""
    if command.model is None:
        raise ConfigError("Give --model MODEL_DIR, or --job job.json to make a sample again.")
    _only(command, "item", "at", "span", why="needs --continue-from or --upsample")
    words = read_lyrics(command.lyrics) if command.lyrics else ""
    labels: dict[str, Any] = {kind.field: getattr(command, kind.option) for kind in KINDS}
    item = Item(lyrics=words, **labels)
    job = _job(command, str(command.model.resolve()), (item,) * command.count)
    if command.prompt is None:
        _only(command, "prompt_seconds", why="needs --prompt")
        return Request(job, [])
    model = load_vqvae(read_model_dir(job.model).vqvae, make_mesh(command.mesh))
    codes = sound.prompt_codes(model, command.prompt, command.prompt_seconds)
    given = [np.repeat(z[None], command.count, 0) for z in codes]
    return _begin(job, given, model.config, {"prompt": str(command.prompt.resolve())})


def _begin(
    job: Job, given: list[np.ndarray], config: VQVAEConfig, origin: dict[str, Any]
) -> Request:
    """A job that begins with given codes, of which none may lie past its end."""
    samples = job.samples(config.sample_rate, config.hops[-1])
    longest = max(z.shape[1] * hop for z, hop in zip(given, config.hops, strict=True))
    if longest > samples:
        raise ConfigError(
            f"{longest / config.sample_rate:g} seconds are given, but seconds is {job.seconds:g}: "
            "the length to make counts from the beginning of the song. Give more --seconds."
        )
    return _with_given(job, given, {"origin": origin})


def _again(command: Command) -> Request:
    """The job of a job.json, with the codes that it began with from beside it."""
    plain = Command(
        command.out, command.model, command.job, levels=command.levels, stream=command.stream,
        plan=command.plan, mesh=command.mesh,
    )  # fmt: skip
    if command != plain:
        raise ConfigError(
            "--job takes no options but --out, --model, --levels and --mesh: the job has its own."
        )
    assert command.job is not None
    record, job = read_job(command.job)
    model = str(command.model.resolve()) if command.model else job.model
    job = dataclasses.replace(job, model=model, levels=command.levels or job.levels)
    if not any(job.given):
        return Request(job, [])
    folder = SampleDir.open(command.job.parent)
    given = [folder.begun_with(level, count) for level, count in enumerate(job.given)]
    if digest(given) != job.given_digest:
        raise ConfigError(
            f"{command.job.parent} does not hold the codes that its songs began with; "
            "the level_* folders belong beside job.json."
        )
    return Request(job, given, {"origin": record.get("origin")})


def _continued(command: Command, path: Path) -> Request:
    """Songs of a directory, kept up to a time and gone on from."""
    _only(command, *_SAME, why="cannot change in --continue-from")
    _only(command, "span", why="needs --upsample")
    source = open_source(path, command.item, command.model)
    hops, rate = source.config.hops, source.config.sample_rate
    there = source.codes[-1].shape[1] * hops[-1]
    keep = round(command.at * rate) // hops[-1] * hops[-1] if command.at else there
    if not 0 <= keep <= there:
        raise ConfigError(
            f"at is {command.at:g}, but {path} has {there / rate:g} seconds of its top level."
        )
    job = dataclasses.replace(
        _job(command, source.job.model, _items(source, command.count)),
        begin_seconds=source.job.begin_seconds,
        total_seconds=command.total_seconds or _longer(source.job, command.seconds),
    )
    given = [np.repeat(z, command.count, 0) for z in source.cut(0, keep)]
    origin = {"continues": str(path.resolve()), "items": source.items, "at": keep / rate}
    return _begin(job, given, source.config, origin)


def _upsampled(command: Command, path: Path) -> Request:
    """The levels below those that a directory has, for a stretch of its songs."""
    plain = Command(command.out)
    _only(command, *_SAME, "total_seconds", why="cannot change in --upsample")
    _only(command, "at", why="needs --continue-from")
    if command.seconds != plain.seconds:
        raise ConfigError("--upsample takes no --seconds; give --span FROM TO.")
    source = open_source(path, command.item, command.model)
    hops, rate = source.config.hops, source.config.sample_rate
    there = source.codes[-1].shape[1] * hops[-1]
    first, last = (round(s * rate) // hops[-1] * hops[-1] for s in command.span)
    last = last if any(command.span) else there
    if not 0 <= first < last <= there:
        raise ConfigError(
            f"span is {command.span[0]:g} {command.span[1]:g}, but {path} has {there / rate:g} "
            "seconds of its top level."
        )
    cut = source.cut(first, last)
    given = [
        np.repeat(z if z.shape[1] == (last - first) // hop and level not in command.levels
                  else z[:, :0], command.count, 0)
        for level, (z, hop) in enumerate(zip(cut, hops, strict=True))
    ]  # fmt: skip
    begin = source.job.begin_seconds
    end = begin + last / rate  # of whole codes: a song that was cut to length ends before
    job = dataclasses.replace(
        _job(command, source.job.model, _items(source, command.count)),
        seconds=(last - first) / rate,
        begin_seconds=begin + first / rate,
        total_seconds=max(source.job.total_seconds or begin + source.job.seconds, end),
    )
    origin = {"upsamples": str(path.resolve()), "items": source.items, "at": first / rate}
    return _begin(job, given, source.config, origin)


def _longer(job: Job, seconds: float) -> float:
    """The total length of a song that is gone on with: as it was told, or to the new end."""
    return max(job.total_seconds, job.begin_seconds + seconds) if job.total_seconds else 0.0


def _items(source: Source, count: int) -> tuple[Item, ...]:
    return tuple(source.job.items[i] for i in source.items for _ in range(count))


def _only(command: Command, *names: str, why: str) -> None:
    """Raises ConfigError where an option is given that has no place here."""
    plain = Command(command.out)
    for name in names:
        if getattr(command, name) != getattr(plain, name):
            raise ConfigError(f"--{name.replace('_', '-')} {why}.")
