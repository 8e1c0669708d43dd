"""Alignment of lyrics and music: of prepared songs, and of samples beside their sounds.

`level_L/item_I.alignment.npz` holds `weights` (frames, characters of the item's lyrics) float16,
`seconds` (frames,) float32 where frames begin, `layer` and `head`; `item_I.words.json` the words
that follow from it, `[text, start_s, end_s, first_char, end_char]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from jukejax import files
from jukejax.config import PriorConfig
from jukejax.model_dir import LoadedPrior, ModelDir
from jukejax.models.transformer import KEEP_LYRICS
from jukejax.parallel.mesh import batch_ways
from jukejax.sampling import alignment
from jukejax.sampling.alignment import Found, Head, Song
from jukejax.sampling.inside import make_reader
from jukejax.sampling.job import Job
from jukejax.sampling.labels import describe_songs, label_ids, span
from jukejax.sampling.plan import Window, plan_windows
from jukejax.sampling.sample_dir import SampleDir
from jukejax.text import lyrics as text
from jukejax.text.labels import Vocabulary


def sung(
    config: PriorConfig,
    labels: dict[str, np.ndarray],
    lyrics: str,
    codes: NDArray[np.integer],
    windows: Sequence[Window],
    begin: int,
    total: int,
) -> Song:
    """A song to align: its top-level codes, label ids (1, ...) and lyrics.

    Args:
      begin, total: sample of the song that the codes begin at, and the song's length in samples.
    """
    wanted = config.lyrics
    assert wanted is not None
    tokens = text.encode(lyrics, wanted.alphabet)

    def lyric(offset: int) -> int:
        place = (total, begin + offset, config.window_samples, np.float32)
        # told by its end: bytes of a character cut in two are padding in front
        return text.window_span(tokens, wanted.tokens, *place, wanted.alphabet)[1] - wanted.tokens

    describe = describe_songs(config, labels, [lyrics], begin, total)
    return Song(codes, windows, describe, lyric, len(tokens))


def of_text(weights: alignment.Weights, lyrics: str, alphabet: str) -> alignment.Weights:
    """Weights by characters of lyrics as they stand, from those by lyric tokens (F, tokens).

    A character that becomes several tokens has their sum; one that becomes none has 0.
    """
    sizes = text.token_counts(lyrics, alphabet)
    out = np.zeros((len(weights), len(lyrics)), np.float32)
    np.add.at(out.T, np.repeat(np.arange(len(lyrics)), sizes), weights.T)
    return out


def most_monotone(songs: Iterable[dict[Head, Found]]) -> dict[Head, float]:
    """Monotonicity by head, the mean over all windows of all songs; the most monotone first."""
    total: dict[Head, float] = {}
    windows: dict[Head, int] = {}
    for song in songs:
        for head, found in song.items():
            total[head] = total.get(head, 0.0) + found.monotonicity * found.windows
            windows[head] = windows.get(head, 0) + found.windows
    means = {head: total[head] / max(windows[head], 1) for head in total}
    return dict(sorted(means.items(), key=lambda pair: -pair[1]))


def alignment_files(sample: SampleDir, level: int, item: int) -> tuple[Path, Path]:
    """Where the alignment of an item and its words lie."""
    folder = sample.path / f"level_{level}"
    return folder / f"item_{item}.alignment.npz", folder / f"item_{item}.words.json"


def is_aligned(sample: SampleDir, level: int, items: Iterable[int]) -> bool:
    """Whether the alignments of items are there and younger than their codes."""
    codes = (sample.path / f"level_{level}" / "codes.npz").stat().st_mtime_ns
    paths = [path for item in items for path in alignment_files(sample, level, item)]
    return all(path.exists() and path.stat().st_mtime_ns >= codes for path in paths)


def align_sample(
    sample: SampleDir, job: Job, samples: int, folder: ModelDir, prior: LoadedPrior, mesh: Mesh
) -> Head | None:
    """Writes the alignments of a finished level's items that have lyrics.

    All have the head that is the most monotone over all of them, which is returned.
    """
    config, level, count = prior.config, prior.config.level, samples // prior.config.hop
    windows = plan_windows(count, config.n_ctx, job.hop_fraction[level], 1)
    codes, _ = sample.load(level, (len(job.items), count))
    begin, total = span(config, job, samples)
    vocabulary = (
        Vocabulary.load(folder.labels(level)) if config.labels else Vocabulary.build([], [])
    )
    songs = {}
    for item in with_words(config, job):
        one = job.items[item]
        ids = label_ids(config, vocabulary, [one]) if config.labels else {}
        songs[item] = sung(config, ids, one.lyrics, codes[item], windows, begin, total)
    read = make_reader(config, prior.params, mesh, KEEP_LYRICS)
    batch, heads = batch_ways(mesh), alignment.lyric_heads(config)
    scores = most_monotone(alignment.align(config, read, x, heads, batch) for x in songs.values())
    head = next(iter(scores), None)
    if head is None:
        return None
    for item, song in songs.items():
        found = alignment.align(config, read, song, [head], batch)[head]
        _write(sample, config, item, job.items[item].lyrics, head, found.weights, job.seconds)
    return head


def with_words(config: PriorConfig, job: Job) -> list[int]:
    """Items that a prior can be asked to align: it has layers for lyrics, and they have some."""
    if config.lyrics is None or not alignment.lyric_layers(config):
        return []
    alphabet = config.lyrics.alphabet
    return [i for i, item in enumerate(job.items) if len(text.encode(item.lyrics, alphabet))]


def _write(
    sample: SampleDir,
    config: PriorConfig,
    item: int,
    lyrics: str,
    head: Head,
    tokens: alignment.Weights,
    end: float,
) -> None:
    """Writes the alignment of one item, and its words; times count from the sample's beginning."""
    assert config.lyrics is not None
    arrays, words = alignment_files(sample, config.level, item)
    weights = of_text(tokens, lyrics, config.lyrics.alphabet)
    seconds = alignment.frame_seconds(config, len(weights))
    timed = alignment.timed_words(lyrics, alignment.path(weights), seconds, end)
    with files.atomic_path(arrays) as path:
        np.savez_compressed(
            path, weights=weights.astype(np.float16), seconds=seconds,
            layer=head.layer, head=head.head,
        )  # fmt: skip
    files.write_json(words, timed, indent=None)
