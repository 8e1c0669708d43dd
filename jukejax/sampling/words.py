"""Alignments of prepared songs, and of samples: files beside their sounds.

`level_L/item_I.alignment.npz` has `weights` (frames, characters of the item's lyrics) float16,
`seconds` (frames,) float32 at which frames begin, `layer` and `head`; `item_I.words.json` the words
derived from it, `[text, start_s, end_s, first_char, end_char]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from jukejax import files
from jukejax.config import PriorConfig
from jukejax.model_dir import LoadedPrior
from jukejax.models.transformer import COLLECT_LYRICS
from jukejax.parallel.mesh import batch_ways
from jukejax.sampling import alignment
from jukejax.sampling.alignment import Found, Head, SongCodes
from jukejax.sampling.conditions import Conditions
from jukejax.sampling.inside import make_reader
from jukejax.sampling.job import Job
from jukejax.sampling.plan import Window, plan_windows
from jukejax.sampling.resolve import Level
from jukejax.sampling.sample_dir import SampleDir
from jukejax.text import lyrics as text


def sung(
    conditions: Conditions, codes: NDArray[np.integer], windows: Sequence[Window]
) -> SongCodes:
    """A song to align: its conditions (of this song alone), and its codes (T,) of their level."""
    characters = len(conditions.tokens[0])
    return SongCodes(codes, windows, conditions, conditions.first_token, characters)


def of_text(weights: alignment.Weights, lyrics: str, alphabet: str) -> alignment.Weights:
    """Weights by character of the lyrics, from weights by lyric token (F, tokens).

    A character of several tokens has their sum; one of no token has 0.
    """
    sizes = text.token_counts(lyrics, alphabet)
    out = np.zeros((len(weights), len(lyrics)), np.float32)
    np.add.at(out.T, np.repeat(np.arange(len(lyrics)), sizes), weights.T)
    return out


def most_monotone(songs: Iterable[dict[Head, Found]]) -> dict[Head, float]:
    """Mean monotonicity over all windows of all songs, by head; the most monotonic head first."""
    total: dict[Head, float] = {}
    windows: dict[Head, int] = {}
    for song in songs:
        for head, found in song.items():
            total[head] = total.get(head, 0.0) + found.monotonicity * found.windows
            windows[head] = windows.get(head, 0) + found.windows
    means = {head: total[head] / max(windows[head], 1) for head in total}
    return dict(sorted(means.items(), key=lambda pair: -pair[1]))


def alignment_files(sample: SampleDir, level: int, item: int) -> tuple[Path, Path]:
    """Paths of the alignment of an item and of its words."""
    folder = sample.path / f"level_{level}"
    return folder / f"item_{item}.alignment.npz", folder / f"item_{item}.words.json"


def is_aligned(sample: SampleDir, level: int, items: Iterable[int]) -> bool:
    """Whether the alignments of items exist and are newer than their codes."""
    codes = (sample.path / f"level_{level}" / "codes.npz").stat().st_mtime_ns
    paths = [path for item in items for path in alignment_files(sample, level, item)]
    return all(path.exists() and path.stat().st_mtime_ns >= codes for path in paths)


def align_sample(
    sample: SampleDir, job: Job, level: Level, prior: LoadedPrior, mesh: Mesh
) -> Head | None:
    """Writes the alignments of a finished level's songs that have lyrics.

    All from one head, the most monotonic over all of them, which is returned.
    """
    config, conditions, plan = prior.config, level.conditions, level.plan
    assert conditions is not None
    windows = plan_windows(plan.total, config.n_ctx, job.hop_fraction[config.level], 1)
    codes, _ = sample.load(config.level, (len(job.items), plan.total))
    songs = {
        item: sung(conditions.songs(slice(item, item + 1)), codes[item], windows)
        for item in with_words(level)
    }
    read = make_reader(config, prior.params, mesh, COLLECT_LYRICS)
    batch, heads = batch_ways(mesh), alignment.lyric_heads(config)
    scores = most_monotone(alignment.align(config, read, x, heads, batch) for x in songs.values())
    head = next(iter(scores), None)
    if head is None:
        return None
    for item, song in songs.items():
        found = alignment.align(config, read, song, [head], batch)[head]
        _write(sample, config, item, job, head, found.weights)
    return head


def with_words(level: Level) -> list[int]:
    """Songs that can be aligned: they have lyrics, and the prior has lyrics attention."""
    if level.config.lyrics is None or not alignment.lyric_layers(level.config):
        return []
    assert level.conditions is not None
    return [i for i, tokens in enumerate(level.conditions.tokens) if len(tokens)]


def _write(
    sample: SampleDir, config: PriorConfig, item: int, job: Job, head: Head,
    tokens: alignment.Weights,
) -> None:  # fmt: skip
    """Writes the alignment of one item, and its words; times count from the sample's beginning."""
    assert config.lyrics is not None
    arrays, words = alignment_files(sample, config.level, item)
    lyrics = job.items[item].lyrics
    weights = of_text(tokens, lyrics, config.lyrics.alphabet)
    seconds = alignment.frame_seconds(config, len(weights))
    timed = alignment.timed_words(lyrics, alignment.path(weights), seconds, job.seconds)
    with files.atomic_path(arrays) as path:
        np.savez_compressed(
            path, weights=weights.astype(np.float16), seconds=seconds,
            layer=head.layer, head=head.head,
        )  # fmt: skip
    files.write_json(words, timed, indent=None)
