"""What conditions are worth to a prior: bits of windows with one replaced, beside the truth's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.data import prior_inputs
from experiments.evaluate.subject import Subject
from jukejax.config import PriorConfig
from jukejax.evaluation import bootstrap, conditions, likelihood
from jukejax.text.labels import unknown_ids

Score = Callable[[conditions.Windows], NDArray[np.float64]]


def differences(
    subject: Subject,
    split: str,
    config: PriorConfig,
    score: Score,
    windows: conditions.Windows,
    count: int,
    upper_unigram: NDArray[np.float64] | None,
) -> list[dict[str, Any]]:
    """A row for every condition that can be replaced.

    Args:
      split: what the windows are of.
      score: from N windows of what the prior reads to the bits (N, T) of their tokens.
      windows, count, upper_unigram: as `conditions.replacements` takes them. Tokens count where
        windows["counted"] (N, T) says so; all, where it is not there.
    """
    counted = windows.get("counted", np.ones(windows["codes"].shape, bool))

    def sums(rows: NDArray[np.int64], some: conditions.Windows) -> list[list[float]]:
        """[bits, tokens] of each window."""
        bits, kept = score(prior_inputs(config, some)), counted[rows]
        return np.stack([np.where(kept, bits, 0).sum(1), kept.sum(1)], 1).tolist()

    def by_song(rows: NDArray[np.int64], pairs: Any) -> dict[str, list[float]]:
        song, pairs = windows["song"][rows], np.array(pairs)
        return {str(i): pairs[song == i].sum(0).tolist() for i in np.unique(song).tolist()}

    every = np.arange(count)
    first = {name: array[:count] for name, array in windows.items()}
    key = f"level {config.level}, {split}: "
    truth = np.array(subject.once(key + "truth", lambda: sums(every, first)))
    rows, unknown = [], unknown_ids(config.labels) if config.labels else {}
    for one in conditions.replacements(config, windows, count, upper_unigram, unknown):

        def replaced(one: conditions.Replaced = one) -> Any:
            return sums(one.rows, one.windows)

        true = by_song(one.rows, truth[one.rows])
        found = by_song(one.rows, subject.once(key + one.name, replaced))
        means = [{song: (b / n, n) for song, (b, n) in x.items()} for x in (true, found)]
        more, interval = bootstrap.difference(*means)
        rows.append(
            {
                "name": one.name,
                "condition": one.condition,
                "split": split,
                "truth_bits_per_token": likelihood.mean(true),
                "bits_per_token": likelihood.mean(found),
                "difference": more,
                "interval": interval,
                "songs": len(found),
                "windows": len(one.rows),
            }
        )
    return rows
