"""Batches of codes with their labels and lyrics, by step (see `loader`)."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline import records, windows
from data_pipeline.codes import codes_info, codes_length
from data_pipeline.records import Arrays
from data_pipeline.windows import Ints, Share, Windows
from jukejax.errors import DataError
from jukejax.text import lyrics
from jukejax.text.labels import Vocabulary
from jukejax.text.word_times import WordTimes, word_times

Batch = dict[str, npt.NDArray[Any]]
_LOG = logging.getLogger(__name__)
_LYRICS_KEPT = 4096  # songs whose lyric tokens are kept in memory


def code_batches(
    codes_dir: str | Path,
    *,
    split: str,
    level: int,
    n_ctx: int,
    upper_ratio: int,
    labels: Vocabulary | None,
    max_genres: int,
    lyric_tokens: int,
    batch_size: int,
    seed: int,
    alphabet: str = "v2",
    years: bool = False,
    max_tags: int = 0,
    start_step: int = 0,
    rows: Sequence[int] | None = None,
    shuffle: bool = True,
    label_dropout: float = 0.0,
    expect_fingerprint: str | None = None,
) -> Iterator[Batch]:
    """Endless batches of windows of codes; the batch of a step depends on (data, seed, step) alone.

    All int32, b = len(rows): "codes" (b, n_ctx); "upper" (b, n_ctx // upper_ratio)
    of the level above, where upper_ratio > 0; "artist" (b,); "genres" (b, max_genres), padded with
    -1; "lyrics" (b, lyric_tokens); "total_length" and "offset" (b,) in samples; where asked for,
    "year" (b,) and "tags" (b, max_tags), padded with -1.

    Args:
      codes_dir, split, level: which codes; level 0 is the bottom.
      n_ctx: codes of a window; it starts at a multiple of upper_ratio.
      upper_ratio: codes of this level for one of the level above; 0 gives no "upper".
      labels: ids of the names; None takes all as unknown.
      max_genres, lyric_tokens: places for them; `alphabet` is one that `lyrics` knows.
      years, max_tags: whether to give years, and places for tags; 0 gives none.
      batch_size, seed, start_step, rows, shuffle: as in `audio_batches`.
      label_dropout: how often all names of an example are made unknown, together.
      expect_fingerprint: the VQ-VAE the codes must be of.

    Raises:
      DataError: no song fills a window, another VQ-VAE's codes, an argument out of range.
    """
    tf = records.tensorflow()
    reader = _CodesReader(codes_dir, split, level, n_ctx, upper_ratio, expect_fingerprint)
    labeller = _Labeller(reader, labels, max_genres, lyric_tokens, alphabet, years, max_tags)
    share = Share.of_rows(batch_size, rows)
    plan = Windows(reader.lengths, n_ctx, max(1, upper_ratio))
    shapes = reader.shapes(share.size) | labeller.shapes(share.size)

    def read(items: Ints, uniforms: npt.NDArray[np.float32]) -> list[npt.NDArray[np.int32]]:
        shifts = uniforms[:, 0].astype(np.float64) - 0.5 if shuffle else np.zeros(len(items))
        song, start = plan.locate(items, shifts)
        batch = reader.read(song, start)
        batch |= labeller.read(song, start, drop=uniforms[:, 2] < label_dropout)
        return [batch[name] for name in shapes]

    def batch(items: Any, uniforms: Any) -> dict[str, Any]:
        values = tf.numpy_function(read, [items, uniforms], [tf.int32] * len(shapes))
        named = zip(shapes.items(), values, strict=True)
        return {name: tf.ensure_shape(value, shape) for (name, shape), value in named}

    steps = windows.schedule(tf, plan.total, share, seed, start_step, shuffle)
    return windows.read_ahead(tf, steps, batch)


def code_windows(
    codes_dir: str | Path,
    *,
    split: str,
    level: int,
    n_ctx: int,
    upper_ratio: int,
    labels: Vocabulary | None,
    max_genres: int,
    lyric_tokens: int,
    batch_size: int,
    alphabet: str = "v2",
    years: bool = False,
    max_tags: int = 0,
    shard_index: int = 0,
    shard_count: int = 1,
    expect_fingerprint: str | None = None,
    most: int | None = None,
) -> Iterator[Batch]:
    """One pass over a split in order, without randomness; windows do not overlap.

    Yields the arrays of `code_batches` and "valid" (b,) bool, "song" (b,) int32 index in
    `songs.jsonl`. Rows that fill up the last batch repeat the first window of all, and are not
    valid, song -1. The end of a song that does not fill a window is left out.

    Args:
      most: where the split has more windows, so many of them, evenly over it; others are not read.
    """
    reader = _CodesReader(codes_dir, split, level, n_ctx, upper_ratio, expect_fingerprint)
    labeller = _Labeller(reader, labels, max_genres, lyric_tokens, alphabet, years, max_tags)
    share = Share.of_host(batch_size, shard_index, shard_count)
    song, start = windows.whole_pass(reader.lengths, n_ctx, keep_short=False)
    if most is not None and most < len(song):
        kept = np.linspace(0, len(song) - 1, most).round().astype(int)
        song, start = song[kept], start[kept]
    for first in range(0, len(song), batch_size):
        rows = first + share.rows
        valid = rows < len(song)
        rows = np.where(valid, rows, 0)  # filled up with the first window
        batch = reader.read(song[rows], start[rows])
        batch |= labeller.read(song[rows], start[rows], np.zeros(share.size, bool))
        index = np.where(valid, reader.indices[song[rows]], -1).astype(np.int32)
        yield batch | {"valid": valid, "song": index}


def code_token_counts(
    codes_dir: str | Path, split: str, level: int, codes: int
) -> npt.NDArray[np.int64]:
    """How often each of `codes` codes occurs in a split at a level: (codes,) int64.

    Raises:
      DataError: a code is not below `codes`.
    """
    info = codes_info(codes_dir)
    _check_level(codes_dir, level, len(info.hops))
    source = records.open_split(codes_dir, split)
    counts = np.zeros(codes, np.int64)
    for row in range(len(source)):
        found = np.bincount(source.read([row])[0][f"codes_{level}"], minlength=codes)
        if len(found) > codes:
            raise DataError(
                f"{codes_dir} has code {len(found) - 1}, but only {codes} were expected; give the "
                "codebook size of the VQ-VAE it was encoded with"
            )
        counts += found
    return counts


def _check_level(codes_dir: str | Path, level: int, levels: int) -> None:
    if not 0 <= level < levels:
        raise DataError(f"{codes_dir} has levels 0..{levels - 1}, but level {level} was asked for")


class _CodesReader:
    """Windows of codes by (song, start) of one split; songs shorter than a window are left out."""

    def __init__(
        self,
        codes_dir: str | Path,
        split: str,
        level: int,
        n_ctx: int,
        upper_ratio: int,
        expect_fingerprint: str | None,
    ) -> None:
        info = codes_info(codes_dir, expect_fingerprint)
        _check_level(codes_dir, level, len(info.hops))
        if n_ctx < 1 or (upper_ratio and n_ctx % upper_ratio):
            raise DataError(f"n_ctx is {n_ctx}; give a multiple of upper_ratio, {upper_ratio}")
        self.hop, self.level = info.hops[level], level
        self.n_ctx, self.upper_ratio = n_ctx, upper_ratio
        self.per_record = info.segment // self.hop
        if upper_ratio:
            _check_level(codes_dir, level + 1, len(info.hops))
            if info.hops[level + 1] != self.hop * upper_ratio:
                raise DataError(f"upper_ratio is {upper_ratio}, but the hops are {info.hops}")
        songs = records.split_songs(codes_dir, split)
        lengths = codes_length(songs.column("n_samples"), self.hop, info.hops[-1])
        kept = np.flatnonzero(lengths >= n_ctx)
        self.left_out = len(songs) - len(kept)
        if not len(kept):
            raise DataError(
                f"none of the {len(songs)} songs of split {split!r} in {codes_dir} has {n_ctx} "
                f"codes at level {level} ({n_ctx * self.hop / songs[0].sample_rate:.1f} s); give "
                "longer songs or a smaller n_ctx"
            )
        if self.left_out:
            _LOG.warning(
                "%d of %d songs of split %r are shorter than a window of %d codes and are left out",
                self.left_out,
                len(songs),
                split,
                n_ctx,
            )
        self.songs, self.lengths = songs.take(kept), lengths[kept]
        self.firsts, self.indices = self.songs.column("first_record"), self.songs.column("index")
        self.source = records.open_split(codes_dir, split)

    def shapes(self, size: int) -> dict[str, tuple[int, ...]]:
        """Shapes of what `read` gives for `size` windows."""
        shapes: dict[str, tuple[int, ...]] = {"codes": (size, self.n_ctx)}
        if self.upper_ratio:
            shapes["upper"] = (size, self.n_ctx // self.upper_ratio)
        return shapes

    def read(self, song: Ints, start: Ints) -> Batch:
        """The codes, and those of the level above, of windows at songs and starts of (n,)."""
        found = windows.gather(
            self.source, self.firsts[song], start, start + self.n_ctx, self.per_record
        )
        batch = {"codes": self._stack(found, start, 1, self.level)}
        if self.upper_ratio:
            batch["upper"] = self._stack(found, start, self.upper_ratio, self.level + 1)
        return batch

    def _stack(
        self, found: list[list[Arrays]], start: Ints, ratio: int, level: int
    ) -> npt.NDArray[np.int32]:
        """(n, n_ctx // ratio) int32."""
        size, per_record, key = self.n_ctx // ratio, self.per_record // ratio, f"codes_{level}"
        pairs = zip(found, start // ratio, strict=True)
        cuts = [windows.cut(rows, key, begin, size, per_record) for rows, begin in pairs]
        return np.stack(cuts).astype(np.int32)


class _Labeller:
    """Labels, lyric windows and timing of windows."""

    def __init__(
        self,
        reader: _CodesReader,
        labels: Vocabulary | None,
        max_genres: int,
        lyric_tokens: int,
        alphabet: str,
        years: bool,
        max_tags: int,
    ) -> None:
        self.songs, self.hop, self.duration = reader.songs, reader.hop, reader.n_ctx * reader.hop
        self.lyric_tokens, self.alphabet = lyric_tokens, alphabet
        labels = labels or Vocabulary.build([], [])
        names = {"artist": np.zeros(len(self.songs), np.int32)}
        names["genres"] = np.zeros((len(self.songs), max_genres), np.int32)
        if years:
            names["year"] = np.zeros(len(self.songs), np.int32)
        if max_tags:
            names["tags"] = np.zeros((len(self.songs), max_tags), np.int32)
        for row, song in enumerate(self.songs):
            names["artist"][row] = labels.artist_id(song.artist)
            names["genres"][row] = labels.genre_ids(song.genres, max_genres)
            if years:
                names["year"][row] = labels.year_id(song.year)
            if max_tags:
                names["tags"][row] = labels.tag_ids(song.tags, max_tags)
        self.names = names
        self.unknown = {
            k: np.array([0] + [-1] * (v[0].size - 1), np.int32) for k, v in names.items()
        }
        self.totals = self.songs.column("n_samples").astype(np.int32)
        lyrics.encode("", alphabet)  # an unknown alphabet is said here, not in a worker thread
        self.tokens: dict[int, tuple[lyrics.Tokens, WordTimes | None, int]] = {}

    def shapes(self, size: int) -> dict[str, tuple[int, ...]]:
        """Shapes of what `read` gives for `size` windows."""
        shapes: dict[str, tuple[int, ...]]
        shapes = {"lyrics": (size, self.lyric_tokens), "total_length": (size,), "offset": (size,)}
        return shapes | {name: (size, *table.shape[1:]) for name, table in self.names.items()}

    def read(self, song: Ints, start: Ints, drop: npt.NDArray[np.bool_]) -> Batch:
        """Labels of windows at songs and starts of (n,); all names unknown where `drop`."""
        offset = (start * self.hop).astype(np.int32)
        pairs = zip(song, offset, strict=True)
        windows_ = [self._lyrics(int(index), int(begin)) for index, begin in pairs]
        names = {name: table[song] for name, table in self.names.items()}
        for name, rows in names.items():
            rows[drop] = self.unknown[name].reshape(rows.shape[1:])
        return {
            **names,
            "lyrics": np.stack(windows_).astype(np.int32),
            "total_length": self.totals[song],
            "offset": offset,
        }

    def _lyrics(self, song: int, offset: int) -> lyrics.Tokens:
        if not self.lyric_tokens:
            return np.zeros(0, np.int32)
        known = self.tokens.get(song)
        if known is None:
            listed = self.songs[song]
            times = word_times(listed.lyrics, listed.words, self.alphabet)
            known = lyrics.encode(listed.lyrics, self.alphabet), times, listed.sample_rate
            if len(self.tokens) < _LYRICS_KEPT:
                self.tokens[song] = known
        tokens, times, rate = known
        total, duration = int(self.totals[song]), self.duration
        if times is not None:  # the text itself is the time line
            middle = (offset + duration / 2) / rate
            total, offset, duration = len(tokens), times.token(middle), 0
        return lyrics.window(
            tokens, self.lyric_tokens, total, offset, duration, alphabet=self.alphabet
        )
