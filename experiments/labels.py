"""Label names of a model: list them, or add those of more songs.

jukejax labels show data/codes/labels.json
jukejax labels grow --labels runs/model/labels.json --data data/new_codes \\
    --out labels.json

A grown file starts with the old names, which keep their ids; new names of the songs follow.
`jukejax train --labels labels.json --start-from OLD_RUN` continues with it.
"""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro

from data_pipeline.songs import prepared_songs
from experiments import cli
from jukejax import locks
from jukejax.errors import DataError
from jukejax.label_kinds import KINDS
from jukejax.text.labels import TABLES, Vocabulary, song_labels


def grow(labels: Path, data: Path, out: Path, min_count: int = 1) -> None:
    """Add the names of a data set's songs to a model's.

    Example: jukejax labels grow --labels old.json --data data/codes --out new.json

    Args:
        labels: the labels.json that the model was trained with.
        data: songs or codes with new names.
        out: the file to write; may not exist.
        min_count: names of fewer songs stay unknown.
    """
    if min_count < 1:
        raise DataError(f"--min-count is {min_count}; give 1 or more")
    with locks.replacing(out):
        if out.exists():
            raise DataError(f"{out} exists already, and a model may use it; give another --out")
        before = Vocabulary.load(labels)
        after = before.grown(*song_labels(prepared_songs(data)), min_count=min_count)
        after.save(out)
    for name in TABLES:
        old, new = len(getattr(before, name)), len(getattr(after, name))
        print(f"{name:8}{old:8,} and {new - old:,} more")
    print(f"Continue training with --labels {out} and --start-from the run with the old names.")


def show(labels: tyro.conf.Positional[Path], data: Path | None = None, first: int = 20) -> None:
    """Print the number of names, and of the songs of a data set that have each.

    Example: jukejax labels show data/codes/labels.json --data data/codes

    Args:
        labels: a labels.json.
        data: songs or codes to count in.
        first: number of names to print of each table, those of most songs first.
    """
    vocabulary = Vocabulary.load(labels)
    songs = prepared_songs(data) if data else []
    counts: dict[str, Counter[int]] = {name: Counter() for name in TABLES}
    for song in songs:
        for kind in KINDS:
            ids = np.unique(vocabulary.ids(kind, getattr(song, kind.field), 99))
            counts[kind.table].update(ids[ids >= 0].tolist())
    for name in TABLES:
        table = getattr(vocabulary, name)
        print(f"{name}: {len(table):,} with unknown" if table else f"{name}: none")
        of_name = counts[name]
        ranked = sorted((-of_name[i], i) for i in range(len(table)))
        for _, i in ranked[:first]:
            print(f"  {i:6} {table[i]}" + (f": {of_name[i]:,} songs" if data else ""))


ACTIONS: dict[str, Callable[..., None]] = {"show": show, "grow": grow}


@cli.command
def main(arguments: list[str]) -> None:
    about = {name: (run.__doc__ or "").splitlines()[0] for name, run in ACTIONS.items()}
    action, rest = cli.choose(about, arguments, "jukejax labels show|grow ...")
    cli.parse(ACTIONS[action], rest, f"jukejax labels {action}")


if __name__ == "__main__":
    main(sys.argv[1:])
