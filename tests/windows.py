"""Windows filled through the compiled loop, and where a sample may differ from another one."""

import functools

import jax
import numpy as np

from jukejax.config import MeshConfig
from jukejax.models.prior import Prior
from jukejax.parallel.mesh import make_mesh, replicated
from jukejax.sampling.cascade import uniforms
from jukejax.sampling.loop import make_loop


def on_one_device(params):
    """A mesh of one device, and parameters on it."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return mesh, jax.device_put(params, replicated(mesh))


def filled(config, params, batch, u, first, stop, control, **options):
    """The stream after music tokens first .. stop - 1 of a window were drawn."""
    mesh, params = on_one_device(params)
    loop = make_loop(config, mesh, params, len(u), control, **options)
    params = loop.place(params)
    stream = loop.start(params, batch, first)
    return loop.fill(params, stream, u, first, stop, control, first)


@functools.partial(jax.jit, static_argnums=0)
def full(config, params, batch):
    """Music's logits (B, T, K) in one pass."""
    return Prior(config).apply({"params": params}, batch)[0][:, config.prefix_len :]


def edges(logits, temperature):
    """Cumulative probabilities (..., K) of logits, in float64."""
    scaled = np.asarray(logits, np.float64) / temperature
    p = np.exp(scaled - scaled.max(-1, keepdims=True))
    return np.cumsum(p / p.sum(-1, keepdims=True), -1)


def assert_differs_by_rounding_alone(
    config, params, batch_of, windows, seed, item, temperature, one, other
):
    """Two samples of a song may differ first where its number lies on an edge, and only there.

    The distribution is that of the full pass, given all that both samples have before. Every edge
    between the two tokens must lie within 1e-4 of the number.

    Args:
      batch_of: (window, codes (1, n)) -> the batch of that window (`cascade.window_batch`).
      item: the number of the song.
      one, other: codes (n,) of a prior without a prefix.

    Returns:
      the first position at which they differ, or None.
    """
    places = np.flatnonzero(one != other)
    if not places.size:
        return None
    first = int(places[0])
    window = next(w for w in windows if w.given <= first < w.stop)
    known = np.where(np.arange(len(one)) < first, one, 0)[None].astype(np.int32)
    batch = batch_of(window, known)
    batch["codes"][:, : first - window.start] = known[:, window.start : first]
    found = edges(full(config, params, batch)[0, first - window.start], temperature)
    u = float(uniforms(seed, np.array([item]), config.level, first, 1)[0, 0])
    low, high = sorted((one[first], other[first]))
    between = found[low:high]
    assert np.abs(between - u).max() < 1e-4, (
        f"position {first}: tokens {one[first]} and {other[first]} at {u}, edges {between}"
    )
    return first
