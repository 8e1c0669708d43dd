"""Float64 twins of the models in plain NumPy, written from the paper: the truth of many tests.

B batch, T tokens, E lyric states, H heads, D head width, W width.
"""

import flax.linen as nn
import jax
import numpy as np


def random_params(init, scale=0.3, seed=0):
    """Random float32 arrays in the shapes that `init(key)` makes; nothing is compiled.

    Biases and zero-initialised layers get numbers too, so that a test sees them.
    """
    shapes = nn.unbox(jax.eval_shape(init, jax.random.key(0)))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: (scale * rng.normal(size=s.shape)).astype(np.float32), shapes)


def mask(pattern, rows, columns, visible=0):
    """(T, T) booleans, [p, j]: position p sees position j."""
    n = rows * columns
    sees = np.zeros((n, n), bool)
    for p in range(n):
        for j in range(n):
            same_row, same_column = p // columns == j // columns, p % columns == j % columns
            sees[p, j] = {
                "dense": j <= p,
                "row": j <= p and same_row,
                "column": j <= p and same_column,
                "previous_row": j // columns == p // columns - 1,
                "prime": j <= p and j < visible,
            }[pattern]
    return sees


def attend(q, k, v, sees):
    """Attention of q (B, T, H, D) to k, v (B, E, H, D) where sees (T, E); else zeros."""
    scores = np.einsum("bthd,behd->bhte", q, k, dtype=np.float64) / np.sqrt(q.shape[-1])
    weights = np.where(sees, np.exp(scores - scores.max(-1, keepdims=True)), 0.0)
    total = weights.sum(-1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return np.einsum("bhte,behd->bthd", weights, v)


def layer_norm(p, x):
    x = np.asarray(x, np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * p["scale"] + p["bias"]


def dense(p, x):
    return x @ np.asarray(p["kernel"], np.float64) + p["bias"]


def stack(layers, x, heads, rows, visible=0, encoded=None, residual=1.0):
    """Output (B, T, W) of `layers`, a list of (pattern, parameters), and each layer's (k, v)."""
    x, kept = np.asarray(x, np.float64), []
    for pattern, p in layers:
        h = layer_norm(p["norm_0"], x)
        if pattern == "cross":
            q = dense(p["qkv"], h)
            k, v = np.split(dense(p["encoder_kv"], encoded), 2, axis=-1)
            sees = np.ones((x.shape[1], encoded.shape[1]), bool)
        else:
            q, k, v = np.split(dense(p["qkv"], h), 3, axis=-1)
            sees = mask(pattern, rows, x.shape[1] // rows, visible)
        kept.append((k, v))
        split = [a.reshape(*a.shape[:2], heads, -1) for a in (q, k, v)]
        a = dense(p["attn_out"], attend(*split, sees).reshape(q.shape))
        m = dense(p["mlp_in"], layer_norm(p["norm_1"], x + a))
        m = dense(p["mlp_out"], m / (1 + np.exp(-1.702 * m)))
        x = x + residual * (a + m)
    return x, kept


def unrolled(params, runs):
    """A scanned stack's parameters as a list of (pattern, parameters), layer by layer."""
    out = []
    for i, (repeats, patterns) in enumerate(runs):
        for r in range(repeats):
            for j, pattern in enumerate(patterns):
                layer = params[f"run_{i}"][f"layer_{j}"]
                out.append((pattern, jax.tree.map(lambda a, r=r: a[r], layer)))
    return out


def conv(p, x, stride=1, dilation=1, pad=0):
    """1-D convolution (B, T, n_in) -> (B, T', n_out), tap by tap."""
    kernel = np.asarray(p["kernel"], np.float64)
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (pad, pad), (0, 0)))
    length = (x.shape[1] - dilation * (len(kernel) - 1) - 1) // stride + 1
    out = np.zeros((x.shape[0], length, kernel.shape[2])) + p["bias"]
    for t in range(length):
        for tap, w in enumerate(kernel):
            out[:, t] += x[:, t * stride + tap * dilation] @ w
    return out


def conv_up(p, x):
    """Transposed convolution, stride 2: every input adds to four outputs, the last tap first."""
    kernel = np.asarray(p["kernel"], np.float64)
    b, t, _ = x.shape
    out = np.zeros((b, 2 * t + 2, kernel.shape[2]))
    for i in range(t):
        for tap in range(4):
            out[:, 2 * i + tap] += x[:, i] @ kernel[3 - tap]
    return out[:, 1:-1] + p["bias"]


def resnet(p, x, dilations, scale=1.0):
    """Residual blocks of the convolutional networks, in the order of `dilations`."""
    for i, dilation in enumerate(dilations):
        h = conv(p[f"block_{i}_conv3"], np.maximum(x, 0), dilation=dilation, pad=dilation)
        x = x + scale * conv(p[f"block_{i}_conv1"], np.maximum(h, 0))
    return x
