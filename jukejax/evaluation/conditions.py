"""What is each condition worth? Held-out windows with one condition replaced.

N windows; arrays as a prior reads them, with "song" (N,) and "place" (N,): where in its song a
window begins, in 0..1. Another song's condition comes from the next song (in cyclic order) that has
one and differs, from its window of nearest place. All else stays the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jukejax.config import PriorConfig

Windows = dict[str, NDArray[Any]]


class Replaced(NamedTuple):
    """Windows whose bits are compared with those of the same rows as they are."""

    name: str
    condition: str  # "codes", "upper codes", "labels" or "lyrics"
    rows: NDArray[np.int64]
    windows: Windows  # of those rows


def donors(
    windows: Windows, rows: NDArray[np.int64], differs: Callable[[int, int], bool]
) -> NDArray[np.int64]:
    """For each of `rows` the row of another song that lends it a condition; -1 where none can."""
    song, place = windows["song"], windows["place"]
    count = int(song.max()) + 1
    found = []
    for row in rows:
        others = [j for j in range(len(song)) if song[j] != song[row] and differs(row, j)]
        ahead = {j: ((song[j] - song[row]) % count, abs(place[j] - place[row])) for j in others}
        found.append(min(others, key=ahead.__getitem__, default=-1))
    return np.array(found, np.int64)


def replacements(
    config: PriorConfig,
    windows: Windows,
    count: int,
    upper_unigram: NDArray[np.float64] | None,
    unknown: dict[str, Any],
) -> Iterator[Replaced]:
    """Every replacement that the prior and the windows allow.

    Args:
      windows: the first `count` are scored; the others may lend their conditions only.
      upper_unigram: how likely each code of the level above is on its own, for priors that read it.
      unknown: every array of label ids, one row of it, as a prior is told of songs without labels.
    """
    rng, every = np.random.default_rng(0), np.arange(count)

    def taken(rows: NDArray[np.int64], changed: Windows) -> Windows:
        return {name: array[rows] for name, array in windows.items()} | changed

    def shuffled(array: NDArray[Any]) -> NDArray[Any]:
        return rng.permuted(array, axis=1)

    def lent(
        name: str, keys: tuple[str, ...], rows: NDArray[np.int64], needs: NDArray[np.bool_]
    ) -> Iterator[Replaced]:
        def differs(i: int, j: int) -> bool:
            same = all(np.array_equal(windows[k][i], windows[k][j]) for k in keys)
            return bool(needs[j]) and not same

        lenders = donors(windows, rows, differs)
        rows, lenders = rows[lenders >= 0], lenders[lenders >= 0]
        if len(rows):
            changed = taken(rows, {key: windows[key][lenders] for key in keys})
            yield Replaced(f"another song's {name}", name, rows, changed)

    shuffle = {"codes": shuffled(windows["codes"][:count])}
    yield Replaced("shuffled codes", "codes", every, taken(every, shuffle))
    anything = np.ones(len(windows["song"]), bool)
    if config.upper:
        assert upper_unigram is not None
        yield from lent("upper codes", ("upper",), every, anything)
        shape = windows["upper"][:count].shape
        drawn = rng.choice(len(upper_unigram), shape, p=upper_unigram).astype(np.int32)
        for name, upper in (
            ("shuffled upper codes", shuffled(windows["upper"][:count])),
            ("random upper codes", drawn),
        ):
            yield Replaced(name, "upper codes", every, taken(every, {"upper": upper}))
    if config.labels:
        yield from lent("labels", tuple(unknown), every, anything)
        size = (count, 1)
        none = {k: np.tile(unknown[k], size).reshape(windows[k][:count].shape) for k in unknown}
        named = np.any([np.any(none[k] != windows[k][:count], -1) if none[k].ndim > 1
                        else none[k] != windows[k][:count] for k in unknown], axis=0)  # fmt: skip
        rows = np.flatnonzero(named)
        if len(rows):
            changed = taken(rows, {k: none[k][rows] for k in unknown})
            yield Replaced("unknown labels", "labels", rows, changed)
    if config.lyrics:
        sung = (windows["lyrics"] != 0).any(1)
        rows = np.flatnonzero(sung[:count])
        yield from lent("lyrics", ("lyrics",), rows, sung)
        if len(rows):
            empty = np.zeros_like(windows["lyrics"][rows])
            yield Replaced("no lyrics", "lyrics", rows, taken(rows, {"lyrics": empty}))
