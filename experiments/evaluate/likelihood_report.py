"""What the suite `likelihood` shows: tables, plots, and the numbers that models are compared by."""

from __future__ import annotations

from typing import Any

from jukejax.evaluation import plots
from jukejax.evaluation.report import Figure, Score, Table

ABOUT = (
    "How many bits each prior needs for a token of songs that training never saw: -log2 of the "
    "probability that it gave to what came. Fewer is better; a prior that had learned nothing "
    "would need log2 of the number of codes. Beside it stand models that only count the training "
    "codes (unigram, bigram, Kneser-Ney trigram and 5-gram): a prior that knows music beats them. "
    "Windows are scored one by one from their first token on, whole windows only."
)
MOST_ROWS = 20  # artists or genres of a table
SPLITS = {
    "test": "held-out songs",
    "train": "songs of the training (more here than there: it knows these songs' own)",
}
BAR_ENDS = {"train": " (training songs)"}
BASELINES = {"kn5": "5-gram", "kn3": "3-gram", "bigram": "bigram", "unigram": "unigram"}


def spread(interval: list[float] | None, digits: int = 3) -> str:
    """An interval in brackets, or a dash."""
    return "–" if interval is None else f"[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def tables(result: dict[str, Any]) -> list[Table]:
    levels = result["levels"]
    shown = [n for n in BASELINES if all(f"{n}_bits_per_token" in row for row in levels)]
    whole = Table(
        "Bits per held-out token (95 % interval: bootstrap over songs) and per second of sound; "
        "lower is better.",
        ("level", "prior", "95 %", *(BASELINES[n] for n in shown), "uniform", "bits/s", "tokens",
         "songs", "of test"),
        [
            (
                str(row["level"]),
                f"{row['bits_per_token']:.3f}",
                spread(row["interval"]),
                *(f"{row[f'{n}_bits_per_token']:.3f}" for n in shown),
                f"{row['uniform_bits_per_token']:.3f}",
                f"{row['bits_per_second']:.0f}",
                str(row["tokens"]),
                str(row["songs"]),
                f"{100 * row['covered']:.0f} %",
            )
            for row in levels
        ],
    )  # fmt: skip
    worth = [worth_table(levels, split, where) for split, where in SPLITS.items()]
    return [whole, *worth, *(_groups(levels, kind) for kind in ("artist", "genre"))]


def worth_table(levels: list[dict[str, Any]], split: str, where: str) -> Table:
    """Rows of `worth.differences` of levels; `where` says what the split is."""
    return Table(
        f"What each condition is worth, on {where}: bits per token more than the same "
        "windows need with the truth. Above 0: the prior uses the condition. 95 %: paired "
        "bootstrap over songs.",
        ("level, replaced by", "truth", "replaced", "more", "95 %", "windows", "songs"),
        [
            (
                f"{row['level']}: {one['name']}"
                + (" *" if one.get("lent_by_training_songs") else ""),
                f"{one['truth_bits_per_token']:.3f}",
                f"{one['bits_per_token']:.3f}",
                f"{one['difference']:+.4f}",
                spread(one["interval"], 4),
                str(one["windows"]),
                str(one["songs"]),
            )
            for row in levels
            for one in row["conditions"]
            if one["split"] == split
        ],
    )


def _groups(levels: list[dict[str, Any]], kind: str) -> Table:
    names = list(levels[0][f"by_{kind}"])[:MOST_ROWS]
    rows = []
    for name in names:
        found = [row[f"by_{kind}"].get(name) for row in levels]
        cells = [f"{one['bits_per_token']:.3f}" if one else "–" for one in found]
        rows.append((name, *cells, str(found[0]["songs"])))
    header = (kind, *(f"level {row['level']}" for row in levels), "songs")
    return Table(f"Bits per token by {kind}, those with most tokens first.", header, rows)


def figures(result: dict[str, Any]) -> list[Figure]:
    found = []
    for row in result["levels"]:
        curves = row["by_position"]
        names = {"prior": "prior"} | {k: v for k, v in BASELINES.items() if k in curves}
        seconds = row["window_seconds"] / curves["prior"]["until"][-1]
        lines = {
            label: ([end * seconds for end in curves[name]["until"]], curves[name]["bits"])
            for name, label in names.items()
        }
        figure = plots.curves(lines, "seconds since the window began", "bits per token")
        caption = (
            f"Level {row['level']}, {row['windows']} windows of {row['songs']} held-out songs. A "
            "prior that uses what came before needs fewer bits later in the window; a counting "
            "model soon has all the context it can use. Lower is better."
        )
        found.append(Figure(f"Level {row['level']}: bits along the window", caption, figure))
    return found + worth_figures(result["levels"])


def worth_figures(levels: list[dict[str, Any]]) -> list[Figure]:
    """Bars of the rows of `worth.differences`, a figure a level."""
    found = []
    for row in levels:
        bars = [
            (one["name"] + BAR_ENDS.get(one["split"], ""), one["difference"], one["interval"])
            for one in row["conditions"]
            if one["condition"] != "codes"
        ]
        if bars:
            caption = (
                f"Bits per token that level {row['level']} loses when a condition is replaced. "
                "Further right: it makes more of it; at 0 it ignores it. Lines: 95 % intervals "
                "over songs. The scale differs from level to level."
            )
            picture = plots.bars(bars, "bits per token more than with the truth")
            title = f"Level {row['level']}: what each condition is worth"
            found.append(Figure(title, caption, picture))
    return found


def scores(result: dict[str, Any]) -> list[Score]:
    return [
        Score(
            f"level {row['level']}: bits per token",
            row["bits_per_token"],
            "lower",
            {song: (float(b), float(n)) for song, (b, n) in row["by_song"].items()},
        )
        for row in result["levels"]
    ]
