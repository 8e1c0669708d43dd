"""The loop that fills windows, compiled for one shape of batch and one mesh.

An array's layout is the order of its elements in memory. With default layouts, each call would copy
all caches and weights into the layouts that its loop prefers, and the caches back. So the compiler
chooses the layouts of parameters and stream together with the program; parameters are put into them
when a level begins, and prefilling writes the stream in them. On a CPU they are the default ones;
there the layers of large models are passed one by one instead (see `apart`).

B batch, L positions of the stack, W width, A attention width.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jukejax.config import PriorConfig
from jukejax.models.prior import Batch, example_batch
from jukejax.parallel.mesh import BATCH, COMPUTE, abstract, batch_ways, replicated
from jukejax.sampling import decode
from jukejax.sampling.decode import Stream
from jukejax.sampling.draw import Control

LARGE = 2**24  # bytes of a scan's repeat that no longer fit into a CPU's caches


def on_device(config: PriorConfig) -> PriorConfig:
    """The prior's config for sampling on this backend: float32 activations and caches on a CPU.

    CPUs do not multiply bfloat16: XLA converts it, a full cache at each write to it.
    """
    if jax.default_backend() == "cpu":
        return dataclasses.replace(config, dtype="float32")
    return config


def apart(mesh: Mesh, params: Any, large: int = LARGE) -> Any:
    """Parameters as `decode.fill` reads them: on one CPU, an array of its own per large layer.

    On a CPU, a scan copies each layer out of the stack before it multiplies, which costs more than
    the product where the copy exceeds the caches. The arrays are views: nothing is copied.

    Args:
      params: arrays, or shapes with shardings.
      large: bytes from which on a layer is large.
    """
    if mesh.size > 1 or mesh.devices.flat[0].platform != "cpu":
        return params
    everywhere = replicated(mesh)

    def rows(x: Any) -> list[Any]:
        if isinstance(x, jax.Array):
            return [jax.device_put(row, everywhere) for row in np.asarray(x)]
        return [jax.ShapeDtypeStruct(x.shape[1:], x.dtype, sharding=everywhere)] * x.shape[0]

    def repeats(run: Any) -> Any:
        leaves, tree = jax.tree.flatten(run)
        if sum(x.size * x.dtype.itemsize for x in leaves) <= leaves[0].shape[0] * large:
            return run
        every = zip(*map(rows, leaves), strict=True)
        return tuple(jax.tree.unflatten(tree, one) for one in every)

    return {**params, "stack": {name: repeats(run) for name, run in params["stack"].items()}}


def _rows(mesh: Mesh, windows: int) -> NamedSharding:
    """Windows are split over the mesh where their number divides by it."""
    return NamedSharding(mesh, P(BATCH if windows % batch_ways(mesh) == 0 else None))


def abstract_stream(config: PriorConfig, mesh: Mesh, params: Any, windows: int) -> Stream:
    """Shapes and shardings of a stream: caches are sharded as attention is, A over `tensor`."""
    batch = jax.eval_shape(lambda: example_batch(config, windows))
    given = jax.ShapeDtypeStruct((), jnp.int32)
    prefill = functools.partial(decode.prefill, config)
    stream = jax.eval_shape(prefill, params, batch, given)
    rows = _rows(mesh, windows)

    def cache(x: Any) -> Any:
        last = "tensor" if x.shape[-1] % mesh.shape["tensor"] == 0 else None
        spec = P(None, *rows.spec, *(None,) * (x.ndim - 3), last)
        return abstract(x, NamedSharding(mesh, spec))

    def conditions(x: Any) -> Any:  # (L, W) is shared by all windows
        return abstract(x, rows if x.ndim == 3 else replicated(mesh))

    placed: Stream = jax.tree.map(conditions, stream._replace(tokens=None, caches=None))
    return placed._replace(
        tokens=abstract(stream.tokens, rows), caches=jax.tree.map(cache, stream.caches)
    )


def abstract_arguments(
    config: PriorConfig, mesh: Mesh, params: Any, windows: int, control: Any, chains: int = 1
) -> tuple[Any, ...]:
    """Shapes and shardings of the arguments of `decode.fill` after the config.

    Args:
      params: arrays, or shapes, with shardings.
      windows: of all chains.
      control: a `Control` of arrays, or of shapes.
      chains: with several, the number of given tokens differs by window.
    """
    everywhere = replicated(mesh)
    number = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    uniforms = jax.ShapeDtypeStruct((windows, config.n_ctx), jnp.float32)
    return (
        jax.tree.map(lambda x: abstract(x, x.sharding), params),
        abstract_stream(config, mesh, params, windows),
        abstract(uniforms, _rows(mesh, windows)),
        number,
        number,
        jax.tree.map(lambda x: abstract(x, everywhere), control),
        jax.ShapeDtypeStruct((windows,) if chains > 1 else (), jnp.int32, sharding=everywhere),
    )


def lower(config: PriorConfig, mesh: Mesh, arguments: tuple[Any, ...]) -> jax.stages.Lowered:
    """Lowers `decode.fill` for `abstract_arguments`, layouts chosen by XLA, the stream donated."""

    def chosen(tree: Any) -> Any:
        return jax.tree.map(lambda x: Format(Layout.AUTO, x.sharding), tree)

    params, stream, *others = arguments
    jitted = jax.jit(
        decode.fill,
        static_argnums=0,
        donate_argnums=2,
        in_shardings=(chosen(params), chosen(stream), *jax.tree.map(lambda x: x.sharding, others)),
        out_shardings=chosen(stream),
    )
    with jax.set_mesh(mesh):
        return jitted.lower(config, *arguments)


@dataclass(frozen=True)
class Loop:
    """`decode.prefill` and `decode.fill` for batches of `windows`; see `make_loop`."""

    mesh: Mesh
    formats: tuple[Any, ...]  # of the arguments of `filling`
    starting: Callable[..., Stream]
    starting_chain: Callable[..., Stream]
    filling: Callable[..., Stream]
    large: int

    def place(self, params: Any) -> Any:
        """Parameters in the loop's layouts; arrays that have them already are not copied.

        They stay stacked, as prefilling reads them.
        """

        def put(x: Any, wanted: Format) -> Any:
            # the loop leaves the layout of what it does not read open
            return x if wanted.layout in (None, x.format.layout) else jax.device_put(x, wanted)

        def placed(tree: Any, wanted: Any) -> Any:
            return tree if isinstance(wanted, tuple) else jax.tree.map(put, tree, wanted)

        formats = self.formats[0]
        stack = {name: placed(run, formats["stack"][name]) for name, run in params["stack"].items()}
        rest = {name: placed(x, formats[name]) for name, x in params.items() if name != "stack"}
        return {**rest, "stack": stack}

    def start(self, params: Any, batch: Batch, given: int) -> Stream:
        """`decode.prefill` of a batch of numpy arrays; the stream has the loop's layouts."""
        batch = jax.device_put(batch, self.formats[2].sharding)
        # one program at a time: temporaries of several would add up
        with jax.set_mesh(self.mesh):
            return jax.block_until_ready(self.starting(params, batch, np.int32(given)))

    def start_chains(self, params: Any, batches: Iterable[Batch], given: int) -> Stream:
        """`start` of the batches of all chains, joined; one parallel pass per chain.

        One pass for all would take more memory. Leaves are joined one by one, so that at most one
        of them exists twice.
        """
        several = list(batches)
        if len(several) == 1:
            return self.start(params, several[0], given)
        chains: list[list[jax.Array]] = []
        for batch in several:
            placed = jax.device_put(batch, _rows(self.mesh, len(batch["codes"])))
            with jax.set_mesh(self.mesh):
                stream = jax.block_until_ready(self.starting_chain(params, placed, np.int32(given)))
            chains.append(jax.tree.leaves(stream))
        axes: Any = jax.tree.map(lambda _: 0, stream)
        shared = -1 if stream.add.ndim == 2 else 0  # (L, W) is shared by all windows
        axes = axes._replace(caches=jax.tree.map(lambda _: 1, stream.caches), add=shared)
        form, wanted = jax.tree.structure(stream), jax.tree.leaves(self.formats[1])
        del stream
        joined = []
        for axis, format in zip(jax.tree.leaves(axes), wanted, strict=True):
            parts = [leaves.pop(0) for leaves in chains]
            one = parts[0] if axis < 0 else jnp.concatenate(parts, axis)
            joined.append(jax.device_put(one, format))
        stream = jax.tree.unflatten(form, jax.block_until_ready(joined))
        return stream

    def fill(
        self, params: Any, stream: Stream, uniforms: jax.Array, first: int, stop: int,
        control: Control, known: Any,
    ) -> Stream:  # fmt: skip
        """`decode.fill`, with `params` from `place`. The stream is donated: do not use it again.

        Args:
          known: a music position; with several chains, one per window.
        """
        numbers = (np.int32(first), np.int32(stop), np.asarray(known, np.int32))
        uniforms, control = jax.device_put((uniforms, control), (self.formats[2], self.formats[5]))
        params = apart(self.mesh, params, self.large)
        return self.filling(params, stream, uniforms, *numbers[:2], control, numbers[2])


def make_loop(
    config: PriorConfig, mesh: Mesh, params: Any, windows: int, control: Control, chains: int = 1,
    large: int = LARGE,
) -> Loop:  # fmt: skip
    """Compiles a loop, or returns the one that was compiled for the same shapes and shardings.

    Args:
      params: arrays on the devices of `mesh`, as `weights.convert` gives them.
      windows, chains: see `abstract_arguments`.
      large: see `apart`.
    """
    shapes = jax.tree.map(lambda x: abstract(x, x.sharding), params)
    leaves, tree = jax.tree.flatten((shapes, jax.eval_shape(lambda: control)))
    return _make_loop(config, mesh, windows, chains, large, tree, tuple(leaves))


@functools.lru_cache(maxsize=64)
def _make_loop(
    config: PriorConfig, mesh: Mesh, windows: int, chains: int, large: int, tree: Any,
    leaves: tuple[Any, ...],
) -> Loop:  # fmt: skip
    params, control = jax.tree.unflatten(tree, leaves)
    _, *others = abstract_arguments(config, mesh, params, windows, control, chains)
    arguments = (apart(mesh, params, large), *others)
    compiled = lower(config, mesh, arguments).compile()

    def known(format: Format, x: Any) -> Format:  # an unused argument has no layout
        return Format(None, x.sharding) if format.layout is None else format

    formats = jax.tree.map(known, compiled.input_formats[0], arguments)

    def prefill(params: Any, batch: Batch, given: jax.Array) -> Stream:
        with nn.logical_axis_rules(list(COMPUTE)):
            return decode.prefill(config, params, batch, given)

    whole = jax.jit(prefill, out_shardings=formats[1])
    return Loop(mesh, formats, whole, jax.jit(prefill), compiled, large)
