"""A song composed as a tree of numbered sample directories, each continuing a song of another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from jukejax.config import ConfigError
from jukejax.model_dir import LoadedModel
from jukejax.sampling.job import Drawing, Job, Options
from jukejax.sampling.request import Request, make_request
from jukejax.sampling.sample_dir import read_job


def nodes(song: Path) -> dict[int, Path]:
    """The sample directories of a song by number."""
    paths = {int(p.parent.name[5:]): p.parent for p in song.glob("node_[0-9]*/job.json")}
    return dict(sorted(paths.items()))


def node_path(song: Path, node: int) -> Path:
    """The sample directory of a node; ConfigError where there is none."""
    paths = nodes(song)
    if not paths:
        raise ConfigError(f"{song} holds no nodes; `jukejax compose begin` makes the first.")
    if node not in paths:
        raise ConfigError(f"{song} has no node {node}; it has {', '.join(map(str, paths))}.")
    return paths[node]


def place(song: Path, job: Job) -> Path:
    """Where a job is sampled: in the node that has this job already, or in a new one."""
    paths = nodes(song)
    same = (path for path in paths.values() if read_job(path / "job.json")[1] == job)
    return next(same, song / f"node_{max(paths, default=0) + 1}")


def length(path: Path, model: LoadedModel) -> float:
    """Seconds of a node's codes, to the end of its last top-level code."""
    config = model.vqvae.config
    job = read_job(path / "job.json")[1]
    return job.samples(config.sample_rate, config.block) / config.sample_rate


def request_from(model: LoadedModel, path: Path, **options: Any) -> Request:
    """A request whose codes are drawn as a node's, except for the seed and the given options."""
    job = read_job(path / "job.json")[1]
    same = {f.name: getattr(job, f.name) for f in fields(Drawing) if f.name != "seed"}
    return make_request(model, Options(**same, **options))


def tree_lines(song: Path) -> Iterator[str]:
    """One line per node, children indented below their parents.

    Raises:
      ConfigError: the folder holds no nodes.
    """
    paths = nodes(song)
    if not paths:
        raise ConfigError(f"{song} holds no nodes; `jukejax compose begin` makes the first.")
    numbers = {path.name: number for number, path in paths.items()}
    children: dict[int, list[int]] = {}
    texts = {}
    for number, path in paths.items():
        record, job = read_job(path / "job.json")
        origin = record.get("origin") or {}
        parent = numbers.get(Path(origin.get("continues") or origin.get("upsamples") or "").name, 0)
        children.setdefault(parent, []).append(number)
        count = len(job.items)
        text = f"node {number}: {count} candidate{'s' * (count != 1)}, {job.seconds:.4g} s"
        if parent:
            how = "upsamples" if "upsamples" in origin else "continues"
            text += f", {how} item {origin['items'][0]} from {origin['at']:.4g} s"
        texts[number] = f"{text}, seed {job.seed}"

    def below(parent: int, depth: int) -> Iterator[str]:
        for number in children.get(parent, []):
            yield "  " * depth + texts[number]
            yield from below(number, depth + 1)

    return below(0, 0)
