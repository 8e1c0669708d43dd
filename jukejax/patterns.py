"""Which positions each layer of a stack attends to, and how a stack is cut into scans."""

from __future__ import annotations

from jukejax.errors import ConfigError

DENSE, ROW, COLUMN, PREVIOUS_ROW, CROSS, PRIME = (
    "dense",
    "row",
    "column",
    "previous_row",
    "cross",
    "prime",
)
_FACTORIZED = (ROW, COLUMN, PREVIOUS_ROW)


def layer_patterns(attn_order: int, depth: int) -> tuple[str, ...]:
    """What each layer attends to, for the published numbering of attention orders.

    Args:
      attn_order: 0, 1, 2, 6, 7, 8, 9, 10, 11 or 12 (3, 4 and 5 use summary attention, which no
        published model has).
      depth: number of layers.
    """
    third = _FACTORIZED
    cycles: dict[int, tuple[str, ...]] = {
        0: (DENSE,),
        1: (ROW, COLUMN),
        2: third,
        6: (*third, CROSS),
        7: (*third * 5, CROSS),
        8: (*third * 3, CROSS),
        9: (*third, DENSE),
        10: third * 3 + (third * 3 + (CROSS,)) * 7,
    }
    if attn_order in cycles:
        cycle = cycles[attn_order]
        return tuple(cycle[d % len(cycle)] for d in range(depth))
    if attn_order in (11, 12):
        lyric = CROSS if attn_order == 11 else PRIME
        special = (lyric, lyric, DENSE)
        return tuple(special[d % 3] if d % 16 == 15 else third[d % 3] for d in range(depth))
    raise ConfigError(
        f"attn_order {attn_order} is not supported: choose one of 0, 1, 2, 6 to 12 "
        "(published models use 2, 8, 10 and 12)."
    )


def prime_visible(prefix: int, rows: int) -> int:
    """Positions that "prime" layers attend to: the lyric prefix, rounded up past the next multiple.

    Published models round up to a multiple of the number of rows, not of the row length, and always
    add one (384 lyric tokens and 64 rows give 448), so music also sees the first music tokens.
    """
    return (prefix // rows + 1) * rows


def segments(patterns: tuple[str, ...]) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """A stack as (repeats, pattern) runs with the fewest distinct layers to compile.

    Each run becomes one scan. Dynamic programming over the number of layers to compile, then over
    the number of runs.
    """
    n = len(patterns)
    best: list[tuple[int, int, tuple]] = [(0, 0, ())] + [(n + 1, n + 1, ())] * n
    for end in range(1, n + 1):
        for period in range(1, end + 1):
            repeats = 1
            while (start := end - period * repeats) >= 0:
                unit = patterns[end - period : end]
                if patterns[start : start + period] != unit:
                    break
                layers, runs, prefix = best[start]
                found = (layers + period, runs + 1, (*prefix, (repeats, unit)))
                best[end] = min(best[end], found, key=lambda b: b[:2])
                repeats += 1
    return best[n][2]
