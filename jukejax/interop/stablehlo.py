"""Models as functions that run without this package: `jax.export` artefacts, weights apart.

An artefact holds StableHLO for CPU, CUDA and TPU, traced from the functions that this package runs
itself. The batch size b is free, and so is the length of what a VQ-VAE encodes or decodes. All that
goes in and out are dicts, lists and tuples of arrays. Weights are the first argument, the dict of a
.safetensors file, so an artefact has kilobytes whatever the size of its model.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from jukejax.config import PriorConfig, VQVAEConfig
from jukejax.interop import exporting, openai, safetensors_files
from jukejax.interop.tensors import Source
from jukejax.model_dir import LoadedVQVAE
from jukejax.models import vqvae
from jukejax.models.bottleneck import Codebook, restored_book
from jukejax.models.prior import Batch, example_batch
from jukejax.sampling import decode
from jukejax.sampling.decode import Stream

PLATFORMS = ("cpu", "cuda", "tpu")

Weights = dict[str, jax.Array]  # leaves of a tree by their paths, joined with dots
Read = Callable[[openai.Path], Any]


@dataclass(frozen=True)
class Artefact:
    """An exported function, and the names of what it takes after the weights and of what it gives.

    One result is given bare, several as a tuple.
    """

    exported: export.Exported
    arguments: tuple[str, ...]
    results: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """Platforms, and dtype and shape of arguments and results, as JSON; free sizes by name."""
        e = self.exported
        (_, *takes), _ = _unflatten(e.in_tree, e.in_avals, _in_words)
        gives = _unflatten(e.out_tree, e.out_avals, _in_words)
        gives = gives if len(self.results) > 1 else (gives,)
        return {
            "platforms": e.platforms,
            "calling_convention": e.calling_convention_version,
            "arguments": dict(zip(self.arguments, takes, strict=True)),
            "results": dict(zip(self.results, gives, strict=True)),
        }


def _unflatten(tree: Any, avals: Any, make: Callable[[Any], Any]) -> Any:
    return jax.tree.unflatten(tree, [make(aval) for aval in avals])


def _in_words(aval: Any) -> dict[str, Any]:
    shape = [n if isinstance(n, int) else str(n) for n in aval.shape]
    return {"dtype": str(aval.dtype), "shape": shape}


def _struct(aval: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


@contextlib.contextmanager
def _no_locations() -> Iterator[None]:
    """JAX notes the file and line of every operation; an artefact shall not tell our paths."""
    option = "jax_traceback_in_locations_limit"
    usual = getattr(jax.config, option)
    jax.config.update(option, 0)
    try:
        yield
    finally:
        jax.config.update(option, usual)


def _export(run: Callable[..., Any], *arguments: Any) -> export.Exported:
    with _no_locations():
        return export.export(jax.jit(run), platforms=PLATFORMS)(*arguments)


# --- functions ------------------------------------------------------------------------------------


def _abstract_weights(config: VQVAEConfig | PriorConfig) -> dict[str, jax.ShapeDtypeStruct]:
    shapes = openai.leaf_shapes(config).items()
    return {".".join(path): jax.ShapeDtypeStruct(s, jnp.float32) for path, s in shapes}


def _params(weights: Weights) -> dict[str, Any]:
    return openai.nested({tuple(name.split(".")): x for name, x in weights.items()})


def vqvae_artefacts(config: VQVAEConfig) -> Iterator[tuple[str, Artefact]]:
    """Encoding and decoding of each level, by name: audio (b, t * hop), codes (b, t)."""
    weights = _abstract_weights(config)
    b, t = export.symbolic_shape("b, t")

    def model(weights: Weights) -> tuple[Any, tuple[Codebook, ...]]:
        params = _params(weights)
        codes = params.pop(openai.BOOKS)
        return params, tuple(restored_book(codes[str(i)], 1) for i in range(config.levels))

    for level, hop in enumerate(config.hops):

        def encode(weights: Weights, audio: jax.Array, level: int = level) -> jax.Array:
            return vqvae.encode(config, *model(weights), audio[..., None], level)

        def decode(weights: Weights, codes: jax.Array, level: int = level) -> jax.Array:
            return vqvae.decode(config, *model(weights), codes, level)[..., 0]

        encoder = _export(encode, weights, jax.ShapeDtypeStruct((b, t * hop), jnp.float32))
        decoder = _export(decode, weights, jax.ShapeDtypeStruct((b, t), jnp.int32))
        yield f"encode_level_{level}", Artefact(encoder, ("audio",), ("codes",))
        yield f"decode_level_{level}", Artefact(decoder, ("codes",), ("audio",))


def prior_artefacts(config: PriorConfig) -> Iterator[tuple[str, Artefact]]:
    """`start`, which reads all that a window is given, and the one-token `step`, by name."""
    weights = _abstract_weights(config)
    (b,) = export.symbolic_shape("b")
    example = jax.eval_shape(lambda: example_batch(config))
    batch = {k: jax.ShapeDtypeStruct((b, *x.shape[1:]), x.dtype) for k, x in example.items()}
    number = jax.ShapeDtypeStruct((), jnp.int32)

    def start(weights: Weights, batch: Batch, given: jax.Array) -> tuple[Batch, Any, jax.Array]:
        stream = decode.prefill(config, _params(weights), batch, given)
        kept = {"start": stream.start, "add": stream.add}
        if stream.output_add is not None:
            kept["output_add"] = stream.output_add
        return kept, stream.caches, decode.last_token(stream, given + config.prefix_len)

    def step(
        weights: Weights, kept: Batch, caches: Any, token: jax.Array, position: jax.Array
    ) -> tuple[jax.Array, Any]:
        stream = Stream(token[:, None], caches, kept["start"], kept["add"], kept.get("output_add"))
        return decode.step(config, _params(weights), stream, token, position + config.prefix_len)

    name = f"prior_level_{config.level}"
    first = _export(start, weights, batch, number)
    state = _unflatten(first.out_tree, first.out_avals, _struct)
    one = _export(step, weights, *state, number)
    names = ("kept", "caches", "token")
    yield f"{name}.start", Artefact(first, ("batch", "given"), names)
    yield f"{name}.step", Artefact(one, (*names, "position"), ("logits", "caches"))


# --- weights --------------------------------------------------------------------------------------


def _write(config: VQVAEConfig | PriorConfig, read: Read, path: Path) -> None:
    """Writes a model's arrays in float32; `read` gives one by its path in the tree."""
    shapes = openai.leaf_shapes(config)
    sources = {
        ".".join(leaf): Source(shape, "<f4", functools.partial(read, leaf))
        for leaf, shape in shapes.items()
    }
    safetensors_files.write(path, sources)


def write_vqvae_weights(model: LoadedVQVAE, path: Path) -> None:
    """Writes the parameters and codebooks of a VQ-VAE."""
    books = {str(i): book.codes for i, book in enumerate(model.books)}
    tree = {**model.params, openai.BOOKS: books}
    _write(model.config, lambda leaf: openai.at(tree, leaf), path)


def write_prior_weights(config: PriorConfig, workdir: Path, path: Path) -> None:
    """Writes the averaged parameters of a prior's run, a few in memory at a time."""
    with exporting.open_leaves(workdir, openai.leaf_shapes(config)) as read:
        _write(config, read, path)
