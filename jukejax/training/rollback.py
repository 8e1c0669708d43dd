"""A run that diverges goes back to a checkpoint from before, and leaves out the data since.

As the authors of PaLM did by hand (Chowdhery et al. 2022, arXiv 2204.02311, section 5.1). Which
batch is that of a step follows from `rollbacks.json`, so that a later start reads the
same data.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from jukejax import files, stored
from jukejax.errors import Diverged
from jukejax.parallel.distributed import together
from jukejax.training.checkpoint import directory

NAME = "rollbacks.json"  # in the workdir
ASIDE = "diverged"  # in the workdir: the checkpoints after those that were gone back to


class Rollback(NamedTuple):
    """From which step a run went back to which; the batches between were left out."""

    step: int
    back_to: int


def rollbacks(workdir: str | Path) -> list[Rollback]:
    """All of a run, in order.

    Raises:
      DataError: the file is damaged.
    """
    path, remedy = Path(workdir) / NAME, "restore it, or start another run"
    try:
        rows = stored.read_object(path, {"rollbacks": list}, remedy)["rollbacks"]
    except FileNotFoundError:
        return []
    for row in rows:
        stored.check_fields(row, {"step": int, "back_to": int}, str(path), remedy)
    return [Rollback(row["step"], row["back_to"]) for row in rows]


def data_step(workdir: str | Path, done: int) -> int:
    """Which batch, counted from 0, follows `done` steps: later by all that were left out."""
    return done + sum(r.step - r.back_to for r in rollbacks(workdir) if r.back_to <= done)


def go_back(workdir: str | Path, most: int, error: Diverged, log: Callable[[str], None]) -> bool:
    """Goes back to the newest checkpoint; to the one before where a run diverges again from there.

    All processes of the run must call this, with no checkpoint being written.

    Args:
      workdir: the run's.
      most: how often it may go back in all.
      error: says at which step it has diverged.
      log: takes a line.

    Returns:
      whether it went back: not where it has done so `most` times, or there is no checkpoint.
    """
    before, folder = rollbacks(workdir), directory(workdir)
    steps = sorted((int(p.name) for p in folder.iterdir() if p.name.isdecimal()), reverse=True)
    if len(before) >= most or not steps:
        return False
    again = bool(before) and before[-1].back_to == steps[0] and len(steps) > 1
    target = steps[1] if again else steps[0]
    together("divergence seen")
    if jax.process_index() == 0:
        aside = Path(workdir) / ASIDE
        for step in steps[: steps.index(target)]:
            aside.mkdir(exist_ok=True)
            (folder / str(step)).rename(aside / f"{step}-{len(before) + 1}")
        rows = [row._asdict() for row in (*before, Rollback(error.step, target))]
        files.write_json(Path(workdir) / NAME, {"rollbacks": rows})
    together("gone back")
    log(
        f"WARNING: {str(error).partition('. ')[0]}. Going back to step {target} (rollback "
        f"{len(before) + 1} of at most {most}); the batches of steps {target + 1} to "
        f"{error.step} are left out."
    )
    return True
