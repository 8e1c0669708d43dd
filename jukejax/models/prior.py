"""A prior (paper section 4): codes of one level and their conditioning -> logits; loss in bits.

B batch, T music tokens, L = prefix + T positions of the stack, W width, K output vocabulary.

A batch is a dict of int32 arrays: `codes` (B, T); with `labels`: `artist` (B,), `genres` (B, G)
padded with -1, `total_length` and `offset` (B,) in samples, and where the tables have rows `year`
(B,) and `tags` (B, G) padded with -1; with `upper`: `upper` (B, T/ratio);
with `lyrics`: `lyrics` (B, E) padded with 0; with `tracks`: an array (B, T, places) of each, as
`jukejax.tracks.window` gives it. Where training adds noise: `context` (B, T), what the model reads
in place of `codes`, which it has to predict.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jukejax.config import PriorConfig
from jukejax.models.conditioners import Labels, LyricEncoder, Tracks, Upper, shift_right
from jukejax.models.layers import linear_kernel, spread, table
from jukejax.models.transformer import Stack
from jukejax.parallel.gathering import look_up, whole, with_whole

Batch = dict[str, jax.Array]


class Conditions(NamedTuple):
    """Conditioning tensors, computed once per window."""

    start: jax.Array  # (B, 1, W) embedding before the first token
    add: jax.Array  # (L, W) or (B, L, W): position table, timing, codes above, tracks
    output_add: jax.Array | None  # (B, L, W): added again after the stack (tied output only)
    encoded: jax.Array | None  # (B, E, W) lyric states
    lyric_logits: jax.Array | None  # (B, E, V) of the lyrics encoder


class Prior(nn.Module):
    """One autoregressive transformer over codes (paper section 4)."""

    config: PriorConfig

    def setup(self) -> None:
        c = self.config
        s = c.init_scale
        # of codes in groups, one table for each place in the group
        self.token = self.param("token", table(c.groups * c.vocabulary, c.width, 0.02 * s))
        self.position = self.param("position", table(c.seq_len, c.width, 0.01 * s, "position"))
        if c.groups > 1:
            # reads the token one encoder output before, which says most about a code of groups
            kernel = linear_kernel(c.width, c.width, ("embed", "mlp"))
            self.earlier = self.param("earlier", kernel)
        if c.labels:
            self.labels = Labels(c)
        else:
            self.start = self.param("start", table(1, c.width, 0.01 * s, "position"))
        if c.upper:
            self.upper = Upper(c)
        if c.tracks:
            self.tracks = Tracks(c)
        if c.lyric_encoder:
            self.lyric_encoder = LyricEncoder(c)
        self.stack = Stack(c)
        if not c.tied_output:
            kernel = linear_kernel(c.width, c.groups * c.codes, ("embed", "vocabulary"))
            self.output = self.param("output", kernel)

    def conditions(self, batch: Batch) -> Conditions:
        """Everything but the music tokens themselves."""
        c = self.config
        add = None  # (B, T, W)
        if c.labels:
            start, add = self.labels(batch)
        else:
            start = jnp.broadcast_to(self.start[None], (batch["codes"].shape[0], 1, c.width))
        if c.upper:
            add = self.upper(batch["upper"])
        if c.tracks:
            along = self.tracks(batch)
            add = along if add is None else add + along
        if add is not None and c.prefix_len:
            add = jnp.pad(add, ((0, 0), (c.prefix_len, 0), (0, 0)))
        encoded = lyric_logits = None
        if c.lyric_encoder:
            encoded, lyric_logits = self.lyric_encoder(batch["lyrics"])
        return Conditions(
            start=start,
            add=whole(self.position) if add is None else with_whole(jnp.add, self.position, add),
            output_add=add if c.tied_output else None,
            encoded=encoded,
            lyric_logits=lyric_logits,
        )

    def sequence(self, batch: Batch) -> jax.Array:
        """Token ids (B, L) of the stack; with a lyric prefix, lyrics first, then codes."""
        c = self.config
        codes = batch.get("context", batch["codes"])
        if not c.prefix_len:
            return codes
        offset = c.vocabulary - c.codes
        return jnp.concatenate([batch["lyrics"], codes + offset], axis=1)

    def head(self, h: jax.Array, position: jax.Array | None = None) -> jax.Array:
        """Hidden states of all positions (B, L, W), or of one (B, W) -> float32 logits (..., K)."""
        kernel = self.token.T if self.config.tied_output else self.output  # (W, G K)
        h, groups = h.astype(jnp.float32), self.config.groups
        if groups == 1:
            return h @ kernel
        kernel = kernel.reshape(len(kernel), groups, -1)
        if position is not None:
            return h @ lax.dynamic_index_in_dim(kernel, position % groups, 1, keepdims=False)
        outputs = h.reshape(len(h), -1, groups, h.shape[-1])
        return jnp.einsum("blgw,wgk->blgk", outputs, kernel).reshape(*h.shape[:2], -1)

    def hidden(
        self, batch: Batch, conditions: Conditions, collect: str = ""
    ) -> tuple[jax.Array, Any]:
        """Hidden states (B, L, W), and what the stack returns beside them (`transformer.Stack`)."""
        c, tokens = self.config, self.sequence(batch)
        embedded = with_whole(look_up, self.token, rows(c, tokens, jnp.arange(c.seq_len)))
        x = shift_right(embedded, conditions.start) + conditions.add
        if c.groups > 1:
            earlier = embedded[:, : -c.groups] @ self.earlier
            x = x + jnp.pad(earlier, ((0, 0), (c.groups, 0), (0, 0)))
        x, collected = self.stack(x, conditions.encoded, collect)
        return x if conditions.output_add is None else x + conditions.output_add, collected

    def __call__(self, batch: Batch) -> tuple[jax.Array, Conditions]:
        """Logits (B, L, K) of every position given those before it, and the conditioning."""
        conditions = self.conditions(batch)
        h, _ = self.hidden(batch, conditions)
        h = nn.with_logical_constraint(h, ("batch", "length", "embed"))
        return self.head(h), conditions


def rows(
    config: PriorConfig, tokens: jax.Array, positions: jax.Array, behind: int = 0
) -> jax.Array:
    """The rows of the token table for tokens `behind` places before these positions."""
    if config.groups == 1:
        return tokens
    return tokens + (positions - behind) % config.groups * config.vocabulary


def collected(config: PriorConfig, params: Any, batch: Batch, collect: str) -> list[Any]:
    """What `transformer.Stack` returns of every layer for a `collect`, in order of layers."""
    model: Any = Prior(config)
    variables = {"params": params}
    conditions = model.apply(variables, batch, method="conditions")
    _, runs = model.apply(variables, batch, conditions, collect, method="hidden")
    return [
        jax.tree.map(lambda x, i=i: x[i], of_layer)
        for (repeats, _), run in zip(config.runs, runs, strict=True)
        for i in range(repeats)
        for of_layer in run
    ]


def init_params(config: PriorConfig, key: jax.Array) -> Any:
    """Parameters with their logical axes (Linen boxes), initialised as published."""
    params = dict(Prior(config).init(key, example_batch(config))["params"])
    if config.upper:
        upper = dict(params["upper"])
        upper["convolutions"] = spread(jax.random.fold_in(key, 1), upper["convolutions"])
        params["upper"] = upper
    if config.tracks:
        tracks = dict(params["tracks"])
        convolutions = {name: tracks[name] for name in ("convolutions", "out")}
        params["tracks"] = tracks | spread(jax.random.fold_in(key, 2), convolutions)
    return params


def example_batch(config: PriorConfig, batch: int = 1) -> Batch:
    """A batch of zeros with the shapes of a prior's inputs."""
    out = {"codes": jnp.zeros((batch, config.n_ctx), jnp.int32)}
    if config.labels:
        shapes: dict[str, tuple[int, ...]] = {"total_length": (), "offset": ()}
        shapes |= {kind.field: kind.shape(config.labels) for kind in config.labels.kinds}
        out |= {name: jnp.zeros((batch, *shape), jnp.int32) for name, shape in shapes.items()}
    if config.upper:
        out["upper"] = jnp.zeros((batch, config.n_ctx // config.upper.ratio), jnp.int32)
    if config.lyrics:
        out["lyrics"] = jnp.zeros((batch, config.lyrics.tokens), jnp.int32)
    for track in config.tracks.tracks if config.tracks else ():
        out[track.array] = jnp.zeros((batch, config.n_ctx, track.places), jnp.int32)
    return out


def _bits(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy of each position in bits: logits (..., K) and targets (...) -> (...)."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.take_along_axis(log_p, targets[..., None], -1)[..., 0] / jnp.log(2.0)


def token_bits(config: PriorConfig, params: Any, batch: Batch) -> dict[str, jax.Array]:
    """Bits of each token: `music` (B, T) and, where there are lyrics, `lyrics` (B, E)."""
    out: Any = Prior(config).apply({"params": params}, batch)
    logits, conditions = out
    if config.prefix_len:
        n = config.prefix_len
        targets = batch["codes"] + (config.vocabulary - config.codes)
        return {
            "music": _bits(logits[:, n:], targets),
            "lyrics": _bits(logits[:, :n], batch["lyrics"]),
        }
    bits = {"music": _bits(logits, batch["codes"])}
    if conditions.lyric_logits is not None:
        bits["lyrics"] = _bits(conditions.lyric_logits, batch["lyrics"])
    return bits


def prior_loss(config: PriorConfig, params: Any, batch: Batch) -> tuple[jax.Array, Batch]:
    """The training loss and its parts, in bits per token (means over the global batch).

    With lyrics, music and lyrics are weighted by their share of the sequence, the lyrics also by
    `loss_fraction`.
    """
    means = {name: bits.mean() for name, bits in token_bits(config, params, batch).items()}
    loss = means["music"]
    if config.lyrics:
        n, t = config.lyrics.tokens, config.n_ctx
        lyric = config.lyrics.loss_fraction * means["lyrics"]
        loss = (n * lyric + t * means["music"]) / (n + t)
    return loss, {"loss": loss, **{f"bits_{k}": v for k, v in means.items()}}
