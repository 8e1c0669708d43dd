"""Conditioning of a prior (paper section 4): labels, timing, upper codes, lyrics; tracks.

B batch, T tokens of a window, G genres, E lyric characters, P places of a track, W width.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from jukejax.config import PriorConfig
from jukejax.models import dense_tuned
from jukejax.models.dense import NARROW, dense, dense_params, layer_norm, norm_params
from jukejax.models.layers import Resnet1D, UpBlock, conv, conv_params, table
from jukejax.models.transformer import Stack
from jukejax.parallel.gathering import look_up, with_whole
from jukejax.tracks import ABSENT, EMPTY


def shift_right(x: jax.Array, start: jax.Array) -> jax.Array:
    """Embeddings x (B, T, W) shifted by one position, with start (B or 1, 1, W) in front."""
    start = jnp.broadcast_to(start, (x.shape[0], 1, x.shape[-1]))
    return jnp.concatenate([start.astype(x.dtype), x[:, :-1]], axis=1)


def timing_bins(
    config: PriorConfig, total: jax.Array, offset: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Position of a window in its song, as bins (paper section 4).

    Float32 throughout, as published; values outside the range fall into the first or last bin.

    Args:
      total: length of the song in samples (B,).
      offset: first sample of the window (B,).

    Returns:
      Bins of the total length (B, 1), and of the absolute and relative positions (B, T).
    """
    labels = config.labels
    assert labels is not None
    n, t, rate = labels.timing_bins, config.n_ctx, config.sample_rate
    total = total.astype(jnp.float32)[:, None]
    start = offset.astype(jnp.float32)[:, None]
    end = start + config.window_samples
    steps = jnp.arange(t, dtype=jnp.float32)[None] / t
    low, high = labels.min_seconds * rate, labels.max_seconds * rate

    def bins(position: jax.Array, lo: float, hi: float) -> jax.Array:
        # barrier: by a constant XLA multiplies with the reciprocal, which differs in the last bit
        span = jax.lax.optimization_barrier(jnp.full_like(position, hi - lo))
        index = jnp.floor(n * ((position - lo) / span)).astype(jnp.int32)
        return jnp.clip(index, 0, n - 1)

    first, last = start / total, jnp.minimum(end / total, 1.0)
    return (
        bins(total, low, high),
        bins(start + (end - start) * steps, 0.0, high),
        bins(first + (last - first) * steps, 0.0, 1.0),
    )


def bag_sum(rows: jax.Array, ids: jax.Array) -> jax.Array:
    """Sums of the rows (n, W) at ids (..., G), where -1 is no row: (..., 1, W)."""
    chosen = jnp.where((ids >= 0)[..., None], rows[jnp.maximum(ids, 0)], 0.0)  # (..., G, W)
    return chosen.sum(-2, keepdims=True)


class Labels(nn.Module):
    """Tables of label names -> start token (B, 1, W); timing tables -> (B, T, W) or None.

    The start token is the sum of the embeddings of all labels. Ids are (B,) of kinds of which a
    song has one label, and (B, places) of a bag.
    """

    config: PriorConfig

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array | None]:
        c, labels = self.config, self.config.labels
        assert labels is not None
        std = 0.01 * c.init_scale
        embedded = []
        for kind in labels.kinds:
            rows = self.param(kind.name, table(getattr(labels, kind.table), c.width, std))
            ids = batch[kind.field]
            if kind.most:
                embedded.append(with_whole(bag_sum, rows, ids))
            else:
                embedded.append(with_whole(look_up, rows, ids)[:, None])
        start = functools.reduce(jnp.add, embedded)  # (B, 1, W)
        if not c.timing:
            return start, None
        bins_of = zip(
            ("total_length", "absolute_position", "relative_position"),
            timing_bins(c, batch["total_length"], batch["offset"]),
            strict=True,
        )
        tables = [
            with_whole(look_up, self.param(name, table(labels.timing_bins, c.width, std)), bins)
            for name, bins in bins_of
        ]
        return start, tables[0] + tables[1] + tables[2]  # (B, T, W)


class Upper(nn.Module):
    """WaveNet-style conditioner: codes of the level above (B, T/ratio) -> (B, T, W).

    Dilated convolutions and transposed convolutions, then a layer norm (paper section 4).
    """

    config: PriorConfig

    @nn.compact
    def __call__(self, codes: jax.Array) -> jax.Array:
        c, upper = self.config, self.config.upper
        assert upper is not None
        tokens = self.param("token", table(c.codes, c.width, 0.02 * c.init_scale))
        x = with_whole(look_up, tokens, codes)
        x = UpBlock(
            stages=upper.stages,
            width=upper.width,
            depth=upper.depth,
            growth=upper.dilation_growth,
            out=c.width,
            cycle=upper.dilation_cycle,
            scale_residual=upper.scale_residual,
            name="convolutions",
        )(x)
        return layer_norm(self.param("norm", norm_params(c.width)), x)


class Tracks(nn.Module):
    """Tracks, each (B, T, P) as of `jukejax.tracks.window` -> (B, T, W).

    The embeddings of what sounds at each code, and of how far it has come, are summed; dilated
    convolutions see what comes next. A track that is not given has an embedding of its own.
    """

    config: PriorConfig

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        c, tracks = self.config, self.config.tracks
        assert tracks is not None
        embedded = []
        for track in tracks.tracks:
            ids, none = batch[track.array], len(track.events)
            events = self.param(track.name, table(none + 1, tracks.width, 1.0))
            parts = self.param(f"{track.name}_parts", table(tracks.parts, tracks.width, 1.0))
            what = jnp.where(ids == ABSENT, none, ids // tracks.parts)
            part = jnp.where(ids < 0, EMPTY, ids % tracks.parts)
            embedded += [with_whole(bag_sum, events, what), with_whole(bag_sum, parts, part)]
        x = functools.reduce(jnp.add, embedded)[..., 0, :]  # (B, T, tracks.width)
        x = Resnet1D(
            tracks.width, tracks.depth, tracks.dilation_growth, tracks.dilation_cycle,
            name="convolutions",
        )(x)  # fmt: skip
        x = conv(self.param("out", conv_params(1, tracks.width, c.width)), x)
        return layer_norm(self.param("norm", norm_params(c.width)), x)


class LyricEncoder(nn.Module):
    """Lyrics (B, E) -> states for cross-attention (B, E, W) and next-character logits (B, E, V).

    Causal: state i depends only on the characters before i.
    """

    config: PriorConfig

    @nn.compact
    def __call__(self, lyrics: jax.Array) -> tuple[jax.Array, jax.Array]:
        c, lc = self.config, self.config.lyrics
        assert lc is not None
        s = lc.init_scale
        tokens = self.param("token", table(lc.vocabulary, lc.width, 0.02 * s))
        position = self.param("position", table(lc.tokens, lc.width, 0.01 * s, "position"))
        start = self.param("start", table(1, lc.width, 0.01 * s, "position"))
        x = shift_right(with_whole(look_up, tokens, lyrics), start[None])
        x = with_whole(jnp.add, position, x)
        x, _ = Stack(c.encoder, name="stack")(x)
        p = self.param("project", dense_params(lc.width, c.width, 0.02 * s, NARROW))
        tuned = c.layers == "tuned"
        x = dense_tuned.dense(dense_tuned.Kernel(**p, axes=NARROW), x) if tuned else dense(p, x)
        encoded = layer_norm(self.param("norm", norm_params(c.width)), x)
        output = self.param("output", table(lc.vocabulary, c.width, 0.02 * c.init_scale))
        return encoded, encoded @ output.T
