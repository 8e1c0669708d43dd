"""The groups of devices of a collective in a compiled program (XLA's HLO). Standard library."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable

Groups = list[tuple[int, ...]]


def _numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def _iota(dims: list[int], order: Iterable[int]) -> list[int]:
    """0, 1, ... in the shape `dims`, transposed by `order`, flat."""
    steps = [math.prod(dims[i + 1 :]) for i in range(len(dims))]
    order = list(order)
    places = itertools.product(*(range(dims[axis]) for axis in order))
    return [sum(p * steps[a] for p, a in zip(place, order, strict=True)) for place in places]


def _listed(shape: str, transposed: str | None) -> list[int]:
    dims = _numbers(shape)
    return _iota(dims, _numbers(transposed) if transposed else range(len(dims)))


def groups(text: str, devices: int) -> Groups:
    """The groups of devices that exchange data, from an instruction's text.

    Of a collective-permute, pairs of (from, to).
    """
    if match := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}", text):
        return [tuple(_numbers(part)) for part in match[1].split("},{")]
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        ids, size = _listed(match[3], match[4]), int(match[2])
        return [tuple(ids[i : i + size]) for i in range(0, len(ids), size)]
    if match := re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?"
        r" \{([^}]*)\}",
        text,
    ):
        names, sizes = zip(*re.findall(r"'(\w+)'=(\d+)", match[1]), strict=True)
        dims = [int(size) for size in sizes]
        ids = _listed(match[2], match[3]) if match[2] else list(range(math.prod(dims)))
        inside = [names.index(name) for name in re.findall(r"'(\w+)'", match[4])]
        outside = [axis for axis in range(len(dims)) if axis not in inside]
        size = math.prod(dims[axis] for axis in inside)
        places = _iota(dims, outside + inside)
        return [tuple(ids[p] for p in places[i : i + size]) for i in range(0, len(places), size)]
    return [tuple(range(devices))]
