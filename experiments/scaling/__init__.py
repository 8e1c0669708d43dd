"""Priors of growing size on the same codes: a scaling law, and a forecast of the largest.

jukejax scaling run --data runs/songs/codes

Each action continues where it was interrupted. What is measured is kept in `--record`: sweep.jsonl,
results.jsonl, forecast.json. The sizes are in `experiments.scaling.ladder`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from experiments import cli
from experiments.scaling.ladder import RUNGS, Ladder
from jukejax.errors import ConfigError
from jukejax.formatting import format_seconds, table

ACTIONS = {
    "plan": "parameters, tokens, FLOPs and hours of each rung; trains nothing",
    "sweep": "the learning rate, found at the smallest rung",
    "run": "train rungs: the sweep, then all but the largest, then the forecast; or those named",
    "ngram": "score a 5-gram of the same codes, the baseline",
    "fit": "fit the law to all rungs but the largest, and forecast it",
    "plot": "the figure and the table of docs/scaling.md",
}


@dataclass(frozen=True)
class Plan(Ladder):
    """Print what each rung costs.

    Example: jukejax scaling plan --data runs/songs/codes
    """

    gflops: float = 40.0
    """Billion FLOPs a second of this machine, for the hours."""


@dataclass(frozen=True)
class Sweep(Ladder):
    """Find the learning rate at the smallest rung. The same command continues.

    Example: jukejax scaling sweep --data runs/songs/codes
    """

    minutes: float | None = None
    """Stop after this many minutes, with everything saved."""


@dataclass(frozen=True)
class Run(Sweep):
    """Train rungs of the ladder, after the sweep. The same command continues.

    Example: jukejax scaling run --data runs/songs/codes --minutes 30
    """

    rungs: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Names of rungs, such as 0.4M; none: all but the largest, then the forecast."""


@cli.command
def main(arguments: list[str]) -> None:
    usage = (
        "jukejax scaling ACTION --data CODES [--help] ...\n\n"
        "Example: jukejax scaling run --data runs/songs/codes"
    )
    action, rest = cli.choose(ACTIONS, arguments, usage, "Actions:")
    kinds = {"plan": Plan, "sweep": Sweep, "run": Run}
    example = f"Example: jukejax scaling {action} --data runs/songs/codes"
    about = None if action in kinds else f"{ACTIONS[action].capitalize()}.\n\n{example}"
    kind = kinds.get(action, Ladder)
    asked = cli.parse(kind, rest, f"jukejax scaling {action}", description=about)
    if action == "plan":
        _plan(asked)
    elif action == "plot":
        from experiments.scaling import figure

        figure.write(asked)
    elif action == "fit":
        from experiments.scaling import law

        law.forecast(asked)
    else:
        _train(action, asked)


def _plan(asked: Plan) -> None:
    from jukejax import costs

    there = asked.training_tokens()
    rows = []
    for rung in RUNGS:
        experiment = asked.experiment(rung)
        tokens = experiment.train.steps * asked.batch * experiment.model.n_ctx
        flops = asked.flops(experiment)
        hours = format_seconds(flops / (1e9 * asked.gflops))
        cells = (costs.parameters(experiment), tokens, experiment.train.steps)
        rows.append(
            (rung.name, *(f"{x:,}" for x in cells), f"{tokens / there:.1f}", f"{flops:.2g}", hours)
        )
    head = ("rung", "parameters", "tokens", "steps", "passes", "FLOPs", f"at {asked.gflops:g} G/s")
    print(table(head, rows))


def _train(action: str, asked: Any) -> None:
    from experiments.scaling import law, training

    names = [rung.name for rung in RUNGS]
    for name in asked.rungs if action == "run" else ():
        if name not in names:
            raise ConfigError(f"There is no rung {name!r}; choose some of {', '.join(names)}.")
    if action == "ngram":
        training.ngram(asked)
        return
    deadline = training.Deadline(asked.minutes)
    training.sweep(asked, deadline)
    if action == "sweep":
        return
    for rung in RUNGS:
        if rung.name in (asked.rungs or names[:-1]):
            training.run(asked, rung, deadline)
    if not asked.rungs:
        law.forecast(asked)
        print(f"Commit {asked.record}, then run the largest: jukejax scaling run {names[-1]} ...")
