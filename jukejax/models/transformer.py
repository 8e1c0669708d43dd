"""The transformer stack of the priors and of the lyrics encoder.

A stack is a list of (repeats, pattern) runs (`config.segments`); each run is one `nn.scan`, so a
72-layer stack compiles three layers. B batch, T tokens, W width, A attention width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jukejax.config import PriorConfig
from jukejax.models import attention
from jukejax.models.dense import (
    NARROW,
    NORM,
    WIDE,
    absorb,
    dense,
    dense_params,
    norm_params,
    normed_dense,
)
from jukejax.models.layers import Params, quick_gelu
from jukejax.parallel.gathering import gathered
from jukejax.patterns import CROSS, PRIME

# Names of a layer's intermediates.
QKV, ATTENDED, AFTER_ATTENTION, MLP_IN = "qkv", "attended", "after_attention", "mlp_in"

# What a stack hands back of every layer, beside its output (see `Stack`).
KEEP_KV, KEEP_LYRICS, KEEP_MEAN = "kv", "lyrics", "mean"


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """(B, T, A) -> (B, T, H, A/H)"""
    return x.reshape(*x.shape[:2], heads, -1)


def project(
    p: Params, x: jax.Array, pattern: str, encoded: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries, keys and values, each (B, T or E, A), from the residual stream x (B, T, W)."""
    # attention cuts rows of tokens
    found = normed_dense(p["norm_0"], p["qkv"], x, QKV, by_row=True)
    if pattern == CROSS:
        assert encoded is not None
        kv = checkpoint_name(dense(p["encoder_kv"], encoded.astype(x.dtype), WIDE), QKV)
        k, v = jnp.split(kv, 2, axis=-1)
        return found, k, v
    q, k, v = jnp.split(found, 3, axis=-1)
    return q, k, v


def layer(p: Params, x: jax.Array, residual: float, attend: Callable) -> tuple[jax.Array, Any]:
    """One pre-norm layer: a = attention(norm(x)), m = mlp(norm(x + a)), x + a + m.

    Args:
      p: the layer's parameters.
      x: (B, T, W).
      residual: factor of a + m.
      attend: maps x to (attention output (B, T, A), anything to hand back).
    """
    mixed, kept = attend(x)
    a = dense(p["attn_out"], checkpoint_name(mixed, ATTENDED), NARROW)
    h = checkpoint_name(x + a, AFTER_ATTENTION)
    m = dense(p["mlp_out"], quick_gelu(normed_dense(p["norm_1"], p["mlp_in"], h, MLP_IN)), NARROW)
    return (h + m if residual == 1 else x + (residual * (a + m)).astype(x.dtype)), kept


def ready(p: Params, dtype: str) -> Params:
    """A layer's parameters as it multiplies with them: norms absorbed, kernels gathered.

    Both are in that order, so that the first is computed where the parameters are stored; and
    kernels travel in `dtype`. Kernels of whole numbers, which cannot take in a norm, are left as
    they are.
    """
    if "scale" in p["qkv"]:
        return p
    qkv = absorb(p["norm_0"], p["qkv"], dtype)
    mlp_in = absorb(p["norm_1"], p["mlp_in"], dtype)
    p = {**p, "norm_0": {}, "norm_1": {}, "qkv": qkv, "mlp_in": mlp_in}

    def whole(name: str, kernel: jax.Array) -> jax.Array:
        axes = NARROW if name in ("attn_out", "mlp_out") else WIDE
        return gathered(kernel.astype(dtype), axes)

    return {
        name: {**one, "kernel": whole(name, one["kernel"])} if one else one
        for name, one in p.items()
    }


class Layer(nn.Module):
    """Owner of one layer's parameters."""

    config: PriorConfig
    pattern: str
    keep: str

    def _params(self) -> Params:
        c = self.config
        std = 0.02 * c.init_scale
        cross = self.pattern == CROSS
        inits = {
            "norm_0": norm_params(c.width),
            "qkv": dense_params(c.width, (1 if cross else 3) * c.attn_width, std, WIDE),
            # added lyric layers begin as the identity (paper section 5.2)
            "attn_out": dense_params(c.attn_width, c.width, std, NARROW, zero=cross),
            "norm_1": norm_params(c.width),
            "mlp_in": dense_params(c.width, c.mlp_width, std, WIDE),
            "mlp_out": dense_params(c.mlp_width, c.width, std, NARROW, zero=cross),
        }
        if cross:
            inits["encoder_kv"] = dense_params(c.width, 2 * c.attn_width, std, WIDE)
        return {name: self.param(name, init) for name, init in inits.items()}

    @nn.compact
    def __call__(self, x: jax.Array, encoded: jax.Array | None) -> tuple[jax.Array, Any]:
        c, p = self.config, ready(self._params(), self.config.dtype)
        x = nn.with_logical_constraint(x, ("batch", "length", "embed"))

        def attend(x: jax.Array) -> tuple[jax.Array, Any]:
            q, k, v = project(p, x, self.pattern, encoded)
            q_h, k_h, v_h = (split_heads(a, c.heads) for a in (q, k, v))  # (B, T, H, D)
            out = attention.attend(self.pattern, q_h, k_h, v_h, c.blocks, c.prime_visible)
            # or its layout is moved into the product that its gradient comes from
            out = lax.optimization_barrier(out.reshape(q.shape))
            if self.keep == KEEP_LYRICS and self.pattern in (CROSS, PRIME):
                seen = c.prime_visible if self.pattern == PRIME else k.shape[1]
                return out, (q[:, c.prefix_len :], k[:, :seen])
            return out, ((k, v) if self.keep == KEEP_KV else None)

        x, kept = layer(p, x, c.residual, attend)
        if self.keep == KEEP_MEAN:
            kept = x[:, c.prefix_len :].astype(jnp.float32).mean(1)
        return x, kept


# what each policy of `PriorConfig.remat` keeps of a layer for the backward pass, by name
_KEPT = {
    "layer": (),
    "attention": (NORM, QKV, ATTENDED),
    "dots": (NORM, QKV, ATTENDED, AFTER_ATTENTION, MLP_IN),
}


class Run(nn.Module):
    """One repeat of a run's pattern; the body of its scan."""

    config: PriorConfig
    patterns: tuple[str, ...]
    keep: str

    @nn.compact
    def __call__(self, x: jax.Array, encoded: jax.Array | None) -> tuple[jax.Array, Any]:
        cls: Any = Layer
        if self.config.remat != "none":
            policy = jax.checkpoint_policies.save_only_these_names(*_KEPT[self.config.remat])
            cls = nn.remat(Layer, policy=policy, prevent_cse=False)
        kept = []
        for i, pattern in enumerate(self.patterns):
            x, found = cls(self.config, pattern, self.keep, name=f"layer_{i}")(x, encoded)
            kept.append(found)
        return x, tuple(kept)


class Stack(nn.Module):
    """All layers. Returns x (B, T, W) and what `keep` asks for of every layer.

    That comes as a tuple over runs of tuples over the pattern, of arrays that begin with an axis of
    repeats. A axes are not split into heads yet.

      "kv"      (k, v), each (repeats, B, T or E, A): for decoding.
      "lyrics"  of layers that look at the lyrics, (q, k): queries of the music positions and the
                keys they see, the lyrics' first; None of others.
      "mean"    the layer's output, the mean over music positions (repeats, B, W) in float32.
    """

    config: PriorConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, encoded: jax.Array | None = None, keep: str = ""
    ) -> tuple[jax.Array, Any]:
        dtype = x.dtype
        x = x.astype(self.config.dtype)
        kept = []
        for i, (repeats, patterns) in enumerate(self.config.runs):
            scan = nn.scan(
                Run,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=nn.broadcast,
                length=repeats,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            x, found = scan(self.config, patterns, keep, name=f"run_{i}")(x, encoded)
            kept.append(found)
        return x.astype(dtype), tuple(kept)
