"""Compose a song with the model: it offers candidates for the next seconds, you choose.

Each node is a sample directory (`node_N`) of candidates at the top level that records its parent;
it can be listened to, extended, cut back (--at) and upsampled. The same command makes the same
node; another --seed makes other candidates.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from experiments import cli
from experiments.song_files import SongFiles, check_files, song_request
from jukejax import locks
from jukejax.sampling.job import Drawing, Labels, Options


@dataclass(frozen=True, kw_only=True)
class Begin(SongFiles, Drawing, Labels):
    """The first seconds of a new song.

    Example: jukejax compose begin --song my_song --model runs/model --artist "..." --genre "..."
    --lyrics words.txt --total-seconds 60 --seconds 8
    """

    song: Path
    """Gets the nodes."""
    model: Path
    """A model directory."""
    total_seconds: float = 0.0
    """Length of the finished song; 0: the length of this sample."""
    seconds: float = 4.0
    """Length to sample, including the prompt."""
    candidates: int = 3
    """Versions to choose from."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    """All nodes, each under the one that it continues.

    Example: jukejax compose tree --song my_song
    """

    song: Path
    """A folder of nodes."""


@dataclass(frozen=True, kw_only=True)
class Chosen(Tree):
    """A candidate of a node."""

    node: int
    """The node."""
    item: int = 0
    """The chosen candidate."""
    seed: int = 0
    """Another seed makes other candidates."""


@dataclass(frozen=True, kw_only=True)
class Extend(Chosen):
    """Candidates for the next seconds after a chosen one.

    Example: jukejax compose extend --song my_song --node 1 --item 2 --at 5.5 --seconds 4 --seed 1
    """

    at: float = 0.0
    """Cut it back to this second first; 0: keep all of it."""
    seconds: float = 4.0
    """Length to add."""
    candidates: int = 3
    """Versions to choose from."""


@dataclass(frozen=True, kw_only=True)
class Upsample(Chosen):
    """The levels below of a chosen candidate.

    Example: jukejax compose upsample --song my_song --node 3 --item 0
    """

    span: tuple[float, float] = (0.0, 0.0)
    """First and last second to upsample; 0 0: all."""
    parallel_segments: int = 1
    """Chains that are sampled as one batch: faster, with a seam where each begins."""


ACTIONS: dict[str, type] = {"begin": Begin, "extend": Extend, "upsample": Upsample, "tree": Tree}
COMMON = {"begin": ("song", "model", "artist", "genre", "lyrics", "seconds", "candidates", "seed")}


def make(command: Begin | Extend | Upsample) -> Path:
    """Samples the node that a command asks for; returns its page."""
    import jukejax
    from jukejax.sampling import tree
    from jukejax.sampling.sample_dir import read_job

    if isinstance(command, Begin):
        check_files(command)
        model = jukejax.load(command.model)
        names = [f.name for kind in (Labels, Drawing) for f in fields(kind)]
        options = Options(
            **{name: getattr(command, name) for name in names},
            seconds=command.seconds, total_seconds=command.total_seconds,
            count=command.candidates, levels=(model.levels - 1,),
        )  # fmt: skip
        request = song_request(model.loaded, options, command)
    else:
        path = tree.node_path(command.song, command.node)
        model = jukejax.load(read_job(path / "job.json")[1].model)
        chosen: dict[str, Any] = {"item": (command.item,), "seed": command.seed}
        if isinstance(command, Extend):
            at = command.at or tree.length(path, model.loaded)
            chosen |= {
                "continue_from": path, "at": at, "seconds": at + command.seconds,
                "count": command.candidates, "levels": (model.levels - 1,),
            }  # fmt: skip
        else:
            chosen |= {"upsample": path, "span": command.span}
            chosen |= {"parallel_segments": command.parallel_segments}
        request = tree.request_from(model.loaded, path, **chosen)
    return model.make(request, tree.place(command.song, request.job), progress=True)


@cli.command
def main(arguments: list[str]) -> None:
    summaries = {name: (kind.__doc__ or "").splitlines()[0] for name, kind in ACTIONS.items()}
    usage = f"jukejax compose {'|'.join(ACTIONS)} ..."
    action, rest = cli.choose(summaries, arguments, usage, __doc__ or "")
    command: Any = cli.parse(
        ACTIONS[action], rest, f"jukejax compose {action}", COMMON.get(action, ())
    )
    from jukejax.sampling.tree import tree_lines

    if action != "tree":
        with locks.writing(command.song):  # two at once would take the same number for a node
            print(f"Listen: {make(command)}")
    print("\n".join(tree_lines(command.song)))


if __name__ == "__main__":
    main(sys.argv[1:])
