"""Compose a song with the model: it offers candidates for the next seconds, you choose.

python -m experiments.compose begin --song my_song --model runs/model --artist "..." \\
    --genre "..." --lyrics words.txt --total-seconds 60 --seconds 8 --candidates 3
python -m experiments.compose extend --song my_song --node 1 --item 2 --seconds 4
python -m experiments.compose extend --song my_song --node 1 --item 2 --at 5.5 --seconds 4 --seed 1
python -m experiments.compose tree --song my_song
python -m experiments.compose upsample --song my_song --node 3 --item 0

Every node is a sample directory (`node_N`) of candidates at the top level that knows its parent; it
can be listened to, extended, cut back (--at) and upsampled. The same command makes the same node;
another --seed makes other candidates.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from experiments import cli
from experiments.sample import run
from jukejax.config import ConfigError
from jukejax.sampling.job import Job
from jukejax.sampling.request import Command, Request, make_request, vqvae_config
from jukejax.sampling.sample_dir import read_job


@dataclass(frozen=True)
class Begin:
    """The first seconds of a new song."""

    song: Path
    """Gets the nodes."""
    model: Path
    """A model directory."""
    artist: str = "unknown"
    """A name of the model's label vocabulary."""
    genre: tuple[str, ...] = ("unknown",)
    """One or more names of the vocabulary."""
    year: int = 0
    """The year that the song is to sound like, where the model knows years; 0: unknown."""
    tags: tuple[str, ...] = ()
    """Moods and keywords of the vocabulary, where the model knows tags."""
    lyrics: Path | None = None
    """A text file, of the whole song."""
    prompt: Path | None = None
    """A sound file that the song begins with."""
    prompt_seconds: float = 0.0
    """So much of it; 0: all."""
    total_seconds: float = 0.0
    """Length that the song shall have; 0: as long as it is."""
    seconds: float = 4.0
    """Length to make, with the prompt."""
    candidates: int = 3
    """Versions to choose from."""
    seed: int = 0
    """Another seed makes other candidates."""
    temperature: tuple[float, ...] = Job.temperature
    """A level each, bottom first."""
    top_k: tuple[int, ...] = ()
    """A level each, bottom first."""
    top_p: tuple[float, ...] = ()
    """A level each, bottom first."""
    hop_fraction: tuple[float, ...] = Job.hop_fraction
    """A level each, bottom first."""
    weights: str = "float32"
    """float32, bfloat16 or int8: what the priors' matrices are held in, for all nodes."""


@dataclass(frozen=True)
class Extend:
    """Candidates for the next seconds after a chosen one."""

    song: Path
    """A folder of nodes."""
    node: int
    """The node that is gone on from."""
    item: int = 0
    """The candidate of it that was chosen."""
    at: float = 0.0
    """Cut it back to this second first; 0: keep all of it."""
    seconds: float = 4.0
    """Length to add."""
    candidates: int = 3
    """Versions to choose from."""
    seed: int = 0
    """Another seed makes other candidates."""


@dataclass(frozen=True)
class Upsample:
    """The levels below of a chosen candidate."""

    song: Path
    """A folder of nodes."""
    node: int
    """The node."""
    item: int = 0
    """The candidate of it that was chosen."""
    span: tuple[float, float] = (0.0, 0.0)
    """From which to which second; 0 0: all."""
    seed: int = 0
    """Another seed makes other details."""
    parallel_segments: int = 1
    """Chains that are sampled as one batch: quicker, with a seam where one begins."""


@dataclass(frozen=True)
class Tree:
    """All nodes, each under the one that it goes on from."""

    song: Path
    """A folder of nodes."""


def nodes(song: Path) -> dict[int, Path]:
    """The sample directories of a song by number."""
    found = {int(p.parent.name[5:]): p.parent for p in song.glob("node_[0-9]*/job.json")}
    return dict(sorted(found.items()))


def node_path(song: Path, node: int) -> Path:
    """The sample directory of a node; ConfigError where there is none."""
    there = nodes(song)
    if node not in there:
        raise ConfigError(
            f"{song} has no node {node}; it has {', '.join(map(str, there)) or 'none'}."
        )
    return there[node]


def place(song: Path, job: Job) -> Path:
    """Where a job is made: in the node that is it already, or in a new one."""
    there = nodes(song)
    same = (path for path in there.values() if read_job(path / "job.json")[1] == job)
    return next(same, song / f"node_{max(there, default=0) + 1}")


def _length(path: Path) -> float:
    """Seconds of a node's codes, which go on to the end of the last one of the top level."""
    job = read_job(path / "job.json")[1]
    config = vqvae_config(job.model)
    return job.samples(config.sample_rate, config.hops[-1]) / config.sample_rate


def begin(command: Begin) -> Request:
    """The request for a song's first node."""
    options = {f.name: getattr(command, f.name) for f in dataclasses.fields(command)}
    for name in ("song", "candidates"):
        options.pop(name)
    top = vqvae_config(command.model).levels - 1
    return make_request(Command(command.song, **options, count=command.candidates, levels=(top,)))


def _from_node(path: Path, **options: Any) -> Request:
    """A request that is drawn as a node was."""
    job = read_job(path / "job.json")[1]
    return make_request(
        Command(
            path, temperature=job.temperature, top_k=job.top_k, top_p=job.top_p,
            hop_fraction=job.hop_fraction, weights=job.weights, **options,
        )
    )  # fmt: skip


def extend(command: Extend) -> Request:
    """The request for a node under another."""
    path = node_path(command.song, command.node)
    top = vqvae_config(read_job(path / "job.json")[1].model).levels - 1
    at = command.at or _length(path)
    return _from_node(
        path, continue_from=path, item=(command.item,), at=at, seed=command.seed,
        seconds=at + command.seconds, count=command.candidates, levels=(top,),
    )  # fmt: skip


def upsample(command: Upsample) -> Request:
    """The request for the levels below of a node."""
    path = node_path(command.song, command.node)
    return _from_node(
        path,
        upsample=path,
        item=(command.item,),
        span=command.span,
        seed=command.seed,
        parallel_segments=command.parallel_segments,
    )


def tree_lines(song: Path) -> Iterator[str]:
    """A line a node, children below their parents and indented."""
    there = nodes(song)
    numbers = {path.name: number for number, path in there.items()}
    children: dict[int, list[int]] = {}
    said = {}
    for number, path in there.items():
        record, job = read_job(path / "job.json")
        origin = record.get("origin") or {}
        parent = numbers.get(Path(origin.get("continues") or origin.get("upsamples") or "").name, 0)
        children.setdefault(parent, []).append(number)
        count = len(job.items)
        text = f"node {number}: {count} candidate{'s' * (count != 1)}, {job.seconds:.4g} s"
        if parent:
            how = "upsampled" if "upsamples" in origin else "goes on"
            text += f", {how} from item {origin['items'][0]} at {origin['at']:.4g} s"
        said[number] = f"{text}, seed {job.seed}"

    def below(parent: int, depth: int) -> Iterator[str]:
        for number in children.get(parent, []):
            yield "  " * depth + said[number]
            yield from below(number, depth + 1)

    return below(0, 0)


ACTIONS: dict[str, tuple[type, Any]] = {
    "begin": (Begin, begin),
    "extend": (Extend, extend),
    "upsample": (Upsample, upsample),
    "tree": (Tree, None),
}


@cli.command
def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] not in ACTIONS:
        print(f"usage: python -m experiments.compose {'|'.join(ACTIONS)} [--help] ...\n\n{__doc__}")
        sys.exit(0 if arguments[:1] in (["-h"], ["--help"]) else 2)
    kind, request_of = ACTIONS[arguments[0]]
    prog = f"python -m experiments.compose {arguments[0]}"
    command: Any = tyro.cli(kind, args=arguments[1:], prog=prog)
    if request_of is not None:
        request = request_of(command)
        out = place(command.song, request.job)
        print(f"Listen: {run(request, out)}")
    print("\n".join(tree_lines(command.song)))


if __name__ == "__main__":
    main(sys.argv[1:])
