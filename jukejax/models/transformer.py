"""The transformer stack of the priors and of the lyrics encoder.

A stack is a list of (repeats, pattern) runs (`PriorConfig.runs`); each run is one `nn.scan`, so a
72-layer stack compiles three layers. B batch, T tokens, E lyric states, W width of the residual
stream, A of attention, M of the MLP, H heads, D = A / H.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from jukejax.config import PriorConfig
from jukejax.models import attention, dense, dense_tuned, lora
from jukejax.models.dense import (
    AFTER_ATTENTION,
    ATTENDED,
    MLP_IN,
    NARROW,
    QKV,
    WIDE,
    dense_params,
    norm_params,
)
from jukejax.models.layers import Init, Params, quick_gelu
from jukejax.patterns import CROSS, PRIME

# What a stack returns of every layer beside its output (see `Stack`).
COLLECT_KV, COLLECT_LYRICS, COLLECT_MEAN = "kv", "lyrics", "mean"


def layer(
    p: Params, x: jax.Array, residual: float, attend: Callable, ops: Any = dense
) -> tuple[jax.Array, Any]:
    """One pre-norm transformer layer: a = attention(norm(x)), m = mlp(norm(x + a)), x + a + m.

    Args:
      p: the layer's parameters.
      x: (B, T, W), or (B, W) of one position.
      residual: factor of a + m.
      attend: maps projections (B, T, 3A), or queries (B, T, A) of a layer with cross-attention, to
        (attention's output (B, T, A), anything to return beside it).
      ops: `dense`, or `dense_tuned` with parameters that it has prepared.
    """
    qkv = ops.normed_dense(p["norm_0"], p["qkv"], x, QKV)  # (B, T, 3A)
    mixed, collected = attend(qkv)  # (B, T, A)
    a = ops.dense(p["attn_out"], ops.keep(mixed, ATTENDED))  # (B, T, W)
    h = ops.keep(x + a, AFTER_ATTENTION)  # (B, T, W)
    inner = quick_gelu(ops.normed_dense(p["norm_1"], p["mlp_in"], h, MLP_IN))  # (B, T, M)
    m = ops.dense(p["mlp_out"], inner)  # (B, T, W)
    return (h + m if residual == 1 else x + (residual * (a + m)).astype(x.dtype)), collected


def layer_params(c: PriorConfig, pattern: str) -> dict[str, Init]:
    """Initialisers of one layer's parameters, by name."""
    std, a, m = 0.02 * c.init_scale, c.attn_width, c.mlp_width
    cross = pattern == CROSS
    params = {
        "norm_0": norm_params(c.width),
        "qkv": dense_params(c.width, a if cross else 3 * a, std, WIDE),
        # added lyric layers begin as the identity (paper section 4)
        "attn_out": dense_params(a, c.width, std, NARROW, zero=cross),
        "norm_1": norm_params(c.width),
        "mlp_in": dense_params(c.width, m, std, WIDE),
        "mlp_out": dense_params(m, c.width, std, NARROW, zero=cross),
    }
    return params | ({"encoder_kv": dense_params(c.width, 2 * a, std, WIDE)} if cross else {})


class Layer(nn.Module):
    """One layer over a whole window: x (B, T, W) -> (B, T, W), and what `collect` asks for."""

    config: PriorConfig
    pattern: str
    collect: str

    @nn.compact
    def __call__(self, x: jax.Array, encoded: jax.Array | None) -> tuple[jax.Array, Any]:
        c, ops = self.config, cast(Any, dense)
        inits = layer_params(c, self.pattern)
        p = {name: lora.merged(self.param(name, init)) for name, init in inits.items()}
        if c.layers == "tuned" and "scale" not in p["qkv"]:  # int8 kernels cannot absorb a norm
            ops, p = dense_tuned, dense_tuned.prepare(p, c.dtype)
        x = nn.with_logical_constraint(x, ("batch", "length", "embed"))

        def attend(qkv: jax.Array) -> tuple[jax.Array, Any]:
            if self.pattern == CROSS:
                assert encoded is not None
                kv = ops.keep(ops.dense(p["encoder_kv"], encoded.astype(x.dtype)), QKV)
                q, k, v = qkv, *jnp.split(kv, 2, axis=-1)  # (B, T, A), (B, E, A), (B, E, A)
            else:
                q, k, v = jnp.split(qkv, 3, axis=-1)  # (B, T, A)
            q_h, k_h, v_h = (a.reshape(*a.shape[:2], c.heads, -1) for a in (q, k, v))  # (B,T,H,D)
            out = attention.attend(self.pattern, q_h, k_h, v_h, c.blocks, c.prime_visible)
            out = out.reshape(q.shape)  # (B, T, A)
            if self.collect == COLLECT_LYRICS and self.pattern in (CROSS, PRIME):
                seen = c.prime_visible if self.pattern == PRIME else k.shape[1]
                return out, (q[:, c.prefix_len :], k[:, :seen])
            return out, ((k, v) if self.collect == COLLECT_KV else None)

        x, collected = layer(p, x, c.residual, attend, ops)
        if self.collect == COLLECT_MEAN:
            collected = x[:, c.prefix_len :].astype(jnp.float32).mean(1)
        return x, collected


# PriorConfig.remat -> names of a layer's intermediates that are stored for the backward pass
_STORED = {
    "layer": (),
    "attention": (dense_tuned.NORM, QKV, ATTENDED),
    "dots": (dense_tuned.NORM, QKV, ATTENDED, AFTER_ATTENTION, MLP_IN),
}


class Run(nn.Module):
    """One repeat of a run's pattern: the body of its scan."""

    config: PriorConfig
    patterns: tuple[str, ...]
    collect: str

    @nn.compact
    def __call__(self, x: jax.Array, encoded: jax.Array | None) -> tuple[jax.Array, Any]:
        cls: Any = Layer
        if self.config.remat != "none":
            policy = jax.checkpoint_policies.save_only_these_names(*_STORED[self.config.remat])
            cls = nn.remat(Layer, policy=policy, prevent_cse=False)
        collected = []
        for i, pattern in enumerate(self.patterns):
            x, found = cls(self.config, pattern, self.collect, name=f"layer_{i}")(x, encoded)
            collected.append(found)
        return x, tuple(collected)


class Stack(nn.Module):
    """All layers. Returns x (B, T, W), and of every layer what `collect` names.

    That is a tuple over runs of tuples over the run's pattern; arrays begin with an axis of the
    run's repeats. The attention width A is not split into heads.

      "kv"      (k, v), each (repeats, B, T or E, A): the caches of decoding.
      "lyrics"  of layers that attend to lyrics, (q, k): queries of the music positions and the keys
                they attend to, the lyrics' first; None of other layers.
      "mean"    mean of the layer's output over music positions (repeats, B, W), float32.
    """

    config: PriorConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, encoded: jax.Array | None = None, collect: str = ""
    ) -> tuple[jax.Array, Any]:
        dtype = x.dtype
        x = x.astype(self.config.dtype)
        collected = []
        for i, (repeats, patterns) in enumerate(self.config.runs):
            scan = nn.scan(
                Run,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=nn.broadcast,
                length=repeats,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            x, found = scan(self.config, patterns, collect, name=f"run_{i}")(x, encoded)
            collected.append(found)
        return x.astype(dtype), tuple(collected)
