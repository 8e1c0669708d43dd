"""Batches of codes with their labels, timing and lyrics, by step (as `loader` of audio)."""

import functools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline import records, windows
from data_pipeline.codes import codes_info, codes_length
from data_pipeline.records import Arrays
from data_pipeline.songs import PreparedSongs
from data_pipeline.windows import Ints, Windows
from jukejax import stored, tracks
from jukejax.config import LyricsConfig, PriorConfig, PriorExperiment
from jukejax.errors import DataError
from jukejax.text import lyrics
from jukejax.text.labels import Vocabulary, unknown_ids
from jukejax.text.word_times import WordTimes, word_times
from jukejax.tracks import Tracks

Batch = dict[str, npt.NDArray[Any]]
_LOG = logging.getLogger(__name__)
_LYRICS_KEPT = 4096  # songs whose lyric tokens are kept in memory
_STRETCH = 8  # encoder outputs that noise replaces together, in the mean


def code_batches(
    codes_dir: str | Path,
    experiment: PriorExperiment,
    vocabulary: Vocabulary | None,
    *,
    split: str,
    start_step: int = 0,
    rows: Sequence[int] | None = None,
) -> Iterator[Batch]:
    """Endless batches of windows of codes; the batch of a step depends on (data, seed, step) alone.

    All int32, b = len(rows): "codes" (b, n_ctx), "total_length" and "offset" (b,) in samples, and
    what the prior is conditioned on: "upper" (b, n_ctx // ratio), codes of the level above; ids of
    its kinds of labels, (b,) or (b, places) padded with -1; "lyrics" (b, tokens); tracks, each
    (b, n_ctx, places). With noise: "context" (b, n_ctx), what is read in place of "codes".

    Args:
      codes_dir, split: a codes data set, "train" or "test".
      experiment: its prior's level, window and conditioning, global batch, seed, and the
        probabilities that all labels of a training example become unknown, together, and that it
        goes without a track, each by itself; the noise of its context.
      vocabulary: ids of the label names; None: all labels are unknown.
      start_step, rows: as in `audio_batches`.

    Raises:
      DataError: no song fills a window, or an argument is out of range.
    """
    config, train = experiment.model, experiment.train
    trained = split == "train"
    label_dropout = experiment.label_dropout if trained else 0.0
    track_dropout = experiment.track_dropout if trained else 0.0
    noise = experiment.context_noise if trained else 0.0
    tf = records.tensorflow()
    reader = _CodesReader(codes_dir, split, config)
    labeller = _Labeller(reader.songs, reader.hop, config, vocabulary)
    own = windows.host_rows(train.batch, rows)
    plan = Windows(reader.lengths, config.n_ctx, config.step)
    shapes = reader.shapes | labeller.shapes
    if noise:
        shapes |= {"context": (config.n_ctx,)}

    def read(items: Ints, uniforms: npt.NDArray[np.float32]) -> list[npt.NDArray[np.int32]]:
        song, start = plan.locate(items, uniforms[:, windows.SHIFT])
        dropped = uniforms[:, windows.DROPOUT] < label_dropout
        batch = reader.read(song, start) | labeller.read(song, start, dropped)
        without = uniforms[:, len(windows.UNIFORMS) :] < track_dropout
        batch |= labeller.tracks(song, start, without)
        if noise:
            batch["context"] = noisy(batch["codes"], uniforms, noise, config.groups)
        return [batch[name] for name in shapes]

    def batch(values: Any, uniforms: Any) -> dict[str, Any]:
        named = zip(shapes.items(), values, strict=True)
        return {name: tf.ensure_shape(value, (len(own), *x)) for (name, x), value in named}

    along = len(config.tracks.tracks) if config.tracks else 0
    steps = windows.schedule(tf, plan.total, train.batch, own, train.seed, start_step, along)
    return windows.read_ahead(tf, steps, read, [tf.int32] * len(shapes), batch)


def noisy(
    codes: npt.NDArray[np.int32], uniforms: npt.NDArray[np.float32], share: float, groups: int
) -> npt.NDArray[np.int32]:
    """Windows (b, n_ctx) in which stretches are replaced by stretches from elsewhere in the window.

    Of an example, 0 to 2 x `share` of the encoder outputs, by stretches of `_STRETCH` in the mean
    (geometric). What is replaced follows from the example's random numbers `uniforms` (b, U).
    Like word dropout (Bowman et al. 2016, arXiv 1511.06349, section 3.1): a model that cannot rely
    on what it reads learns to follow its conditions.
    """
    outputs = codes.reshape(len(codes), -1, groups)
    out, n = outputs.copy(), outputs.shape[1]
    for new, old, numbers in zip(out, outputs, uniforms, strict=True):
        rng = np.random.default_rng(numbers.view(np.uint32))
        for _ in range(rng.poisson(rng.uniform(0, 2 * share) * n / _STRETCH)):
            length = min(n, int(rng.geometric(1 / _STRETCH)))
            to, start = rng.integers(0, n - length + 1, 2)
            new[to : to + length] = old[start : start + length]
    return out.reshape(codes.shape)


def code_windows(
    codes_dir: str | Path,
    config: PriorConfig,
    vocabulary: Vocabulary | None,
    *,
    split: str,
    batch_size: int,
    expect_fingerprint: str | None = None,
    most: int | None = None,
) -> Iterator[Batch]:
    """One pass over a split in order, without randomness; windows do not overlap.

    Yields the arrays of `code_batches`, "valid" (b,) bool and "song" (b,) int32, the index in
    `songs.jsonl`. Rows that fill up the last batch repeat the first window; they are not valid and
    their song is -1. The end of a song that does not fill a window is left out.

    Args:
      expect_fingerprint: of the VQ-VAE that the codes must be of.
      most: at most this many windows are read, evenly spaced over the split; None: all.

    Raises:
      DataError: as `code_batches`, or the codes are of another VQ-VAE.
    """
    reader = _CodesReader(codes_dir, split, config, expect_fingerprint)
    labeller = _Labeller(reader.songs, reader.hop, config, vocabulary)
    song, start = windows.whole_pass(reader.lengths, config.n_ctx)
    if most is not None and most < len(song):
        kept = np.linspace(0, len(song) - 1, most).round().astype(int)
        song, start = song[kept], start[kept]
    for rows, valid in windows.in_batches(len(song), batch_size):
        batch = reader.read(song[rows], start[rows])
        batch |= labeller.read(song[rows], start[rows], np.zeros(batch_size, bool))
        batch |= labeller.tracks(song[rows], start[rows])
        index = np.where(valid, reader.indices[song[rows]], -1).astype(np.int32)
        yield batch | {"valid": valid, "song": index}


def code_token_counts(
    codes_dir: str | Path, split: str, level: int, codes: int
) -> npt.NDArray[np.int64]:
    """Counts of each of `codes` codes in a split at a level: (codes,) int64.

    Raises:
      DataError: a code is not below `codes`.
    """
    info = codes_info(codes_dir)
    _check_level(codes_dir, level, len(info.hops))
    source = records.open_split(codes_dir, split)
    counts = np.zeros(codes, np.int64)
    for row in range(len(source)):
        row_counts = np.bincount(source.read([row])[0][f"codes_{level}"], minlength=codes)
        if len(row_counts) > codes:
            raise DataError(
                f"{codes_dir} has code {len(row_counts) - 1}, but only {codes} were expected; give "
                "the codebook size of the VQ-VAE it was encoded with"
            )
        counts += row_counts
    return counts


def _check_level(codes_dir: str | Path, level: int, levels: int) -> None:
    if not 0 <= level < levels:
        raise DataError(f"{codes_dir} has levels 0..{levels - 1}, but level {level} was asked for")


class _CodesReader:
    """Windows of codes of a split by (song, start); songs shorter than a window are left out."""

    def __init__(
        self,
        codes_dir: str | Path,
        split: str,
        config: PriorConfig,
        expect_fingerprint: str | None = None,
    ) -> None:
        info = codes_info(codes_dir, expect_fingerprint)
        level, n_ctx = config.level, config.n_ctx
        _check_level(codes_dir, level, len(info.hops))
        self.codes, self.folder = info.codes, codes_dir
        self.hop, self.level, self.n_ctx = info.hops[level], level, n_ctx
        self.per_record = info.segment // self.hop
        self.ratio = config.upper.ratio if config.upper else 1
        self.shapes: dict[str, tuple[int, ...]] = {"codes": (n_ctx,)}
        if config.upper:
            if n_ctx % self.ratio:
                raise DataError(f"n_ctx is {n_ctx}; give a multiple of upper.ratio, {self.ratio}")
            _check_level(codes_dir, level + 1, len(info.hops))
            if info.hops[level + 1] != self.hop * self.ratio:
                raise DataError(f"upper.ratio is {self.ratio}, but the hops are {info.hops}")
            self.shapes["upper"] = (n_ctx // self.ratio,)
        songs = records.split_songs(codes_dir, split)
        lengths = codes_length(songs.column("n_samples"), self.hop, info.block)
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

    def read(self, song: Ints, start: Ints) -> Batch:
        """The codes, and those of the level above, of windows at songs and starts of (n,)."""
        gathered = windows.gather(
            self.source, self.firsts[song], start, start + self.n_ctx, self.per_record
        )
        batch = {"codes": self._stack(gathered, start, 1, self.level)}
        if "upper" in self.shapes:
            batch["upper"] = self._stack(gathered, start, self.ratio, self.level + 1)
        return batch

    def _stack(
        self, gathered: list[list[Arrays]], start: Ints, ratio: int, level: int
    ) -> npt.NDArray[np.int32]:
        """Codes of a level cut out of the gathered records: (n, n_ctx // ratio) int32."""
        size, per_record, key = self.n_ctx // ratio, self.per_record // ratio, f"codes_{level}"
        pairs = zip(gathered, start // ratio, strict=True)
        cuts = [windows.cut(rows, key, begin, size, per_record) for rows, begin in pairs]
        codes = np.stack(cuts).astype(np.int32)
        where = f"{self.folder}, level {level},"
        stored.check_codes(codes, self.codes, where, "encode the songs again")
        return codes


def song_lengths(songs: PreparedSongs) -> npt.NDArray[np.int32]:
    """Lengths (n,) in samples; DataError where positions in a song do not fit into 32 bits."""
    lengths = songs.column("n_samples")
    if lengths.max(initial=0) >= 2**31:
        raise DataError(
            f"Song {songs[int(lengths.argmax())].id} has {lengths.max():,} samples; positions are "
            "32-bit, so cut it into songs of less than 2,147,483,648 samples each."
        )
    return lengths.astype(np.int32)


class _Labeller:
    """Label ids, lyric tokens, timing and tracks of windows."""

    def __init__(
        self,
        songs: PreparedSongs,
        hop: int,
        config: PriorConfig,
        vocabulary: Vocabulary | None,
    ) -> None:
        self.songs, self.hop, self.duration = songs, hop, config.n_ctx * hop
        self.words, labels, self.along = config.lyrics, config.labels, config.tracks
        self.unknown = unknown_ids(labels) if labels else {}
        self.ids = {
            name: np.zeros((len(songs), *ids.shape), np.int32) for name, ids in self.unknown.items()
        }
        if labels:
            names = vocabulary or Vocabulary.build()
            for row, song in enumerate(songs):
                for name, ids in names.song_ids(labels, song).items():
                    self.ids[name][row] = ids
        self.totals = song_lengths(songs)
        self.tokens: dict[int, tuple[lyrics.Tokens, WordTimes | None, int]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {"total_length": (), "offset": ()}
        self.shapes |= {name: ids.shape for name, ids in self.unknown.items()}
        if self.words:
            self.shapes["lyrics"] = (self.words.tokens,)
        self.n_ctx, self.by_song = config.n_ctx, functools.lru_cache(_LYRICS_KEPT)(self._tracks)
        for track in self.along.tracks if self.along else ():
            self.shapes[track.array] = (self.n_ctx, track.places)

    def read(self, song: Ints, start: Ints, drop: npt.NDArray[np.bool_]) -> Batch:
        """Arrays of windows at songs and starts (n,); all labels are unknown where `drop`."""
        offset = (start * self.hop).astype(np.int32)
        batch = {"total_length": self.totals[song], "offset": offset}
        for name, ids in self.ids.items():
            batch[name] = ids[song]
            batch[name][drop] = self.unknown[name]
        if self.words:
            pairs = zip(song, offset, strict=True)
            rows = [self._lyrics(self.words, int(index), int(begin)) for index, begin in pairs]
            batch["lyrics"] = np.stack(rows).astype(np.int32)
        return batch

    def tracks(self, song: Ints, start: Ints, drop: npt.NDArray[np.bool_] | None = None) -> Batch:
        """Tracks of windows at songs and starts (n,), absent where `drop` (n, tracks)."""
        if self.along is None:
            return {}
        rows = [
            tracks.window(
                self.along, *self.by_song(int(i)), int(at) * self.hop, self.hop, self.n_ctx
            )
            for i, at in zip(song, start, strict=True)
        ]
        batch = {name: np.stack([row[name] for row in rows]) for name in self.along.arrays}
        if drop is not None:
            for name, dropped in zip(self.along.arrays, drop.T, strict=True):
                batch[name][dropped] = tracks.ABSENT
        return batch

    def _tracks(self, song: int) -> tuple[Tracks, int]:
        """The tracks of a song that the prior reads, and its sample rate."""
        listed = self.songs[song]
        assert self.along is not None
        tracks.require_known(self.along, listed.tracks, f"song {listed.id!r}")
        return listed.tracks, listed.sample_rate

    def _lyrics(self, words: LyricsConfig, song: int, offset: int) -> lyrics.Tokens:
        known = self.tokens.get(song)
        if known is None:
            listed = self.songs[song]
            times = word_times(listed.lyrics, listed.words, words.alphabet)
            known = lyrics.encode(listed.lyrics, words.alphabet), times, listed.sample_rate
            if len(self.tokens) < _LYRICS_KEPT:
                self.tokens[song] = known
        tokens, times, rate = known
        total, duration = int(self.totals[song]), self.duration
        if times is not None:  # centre on the token sung at the middle of the window
            middle = (offset + duration / 2) / rate
            total, offset, duration = len(tokens), times.token(middle), 0
        return lyrics.window(tokens, words.tokens, total, offset, duration, alphabet=words.alphabet)
