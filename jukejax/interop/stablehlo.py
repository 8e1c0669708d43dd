"""Models as functions that run without jukejax: `jax.export` artefacts, with weights beside them.

An artefact has StableHLO for CPU, CUDA and TPU, traced from the functions that this package runs
itself. The batch size b is free, and so is the length of what a VQ-VAE encodes or decodes. Inputs
and outputs are dicts, lists and tuples of arrays. Weights are the first argument, the dict of a
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

from jukejax import alphabets, files
from jukejax.config import MeshConfig, PriorConfig, VQVAEConfig
from jukejax.errors import InteropError
from jukejax.interop import exporting, importing, openai, safetensors_files
from jukejax.interop.tensors import Source
from jukejax.interop.torch_files import sha256
from jukejax.model_dir import LoadedVQVAE, ModelDir, load_vqvae, read_model_dir
from jukejax.models import vqvae
from jukejax.models.bottleneck import Codebook, restored_book
from jukejax.models.prior import Batch, example_batch
from jukejax.parallel.mesh import make_mesh
from jukejax.sampling import decode
from jukejax.sampling.conditions import check_labels
from jukejax.sampling.decode import Stream
from jukejax.text.labels import Vocabulary
from jukejax.training import checkpoint

PLATFORMS = ("cpu", "cuda", "tpu")
MANIFEST = "manifest.json"
VERSION = 1
MEANINGS = {
    "call": "jax.export.deserialize(bytearray(file)).call(weights, *arguments), best inside "
    "jax.jit; b (songs) and t (codes) may be any number from 1 on, other sizes are fixed",
    "weights": "the dict of a .safetensors file: array by name, float32",
    "audio": "mono sound in [-1, 1] at sample_rate; decoded sound is not clipped",
    "codes": "codes of a level; of a prior's batch those before `given` are read",
    "batch": "what a prior's window is conditioned on",
    "batch.artist, batch.genres": "numbers of the names in the prior's labels; genres end with -1",
    "batch.year, batch.tags": "of priors that have them: numbers in the labels; tags end with -1",
    "batch.total_length": "length of the song in samples, over 0",
    "batch.offset": "first sample of the window in its song",
    "batch.upper": "codes of the level above for the same stretch of sound",
    "batch.lyrics": "place of each character in lyric_characters, from 1 on; 0 pads on the left; "
    "with lyric_bytes: each byte of the text and 1",
    "batch.track_NAME": "what sounds at each code: number of the event in the prior's tracks times "
    "track_parts, plus how far it has come (0: its first code); -1: nothing, all -2: not given",
    "given": "number of codes of the window that are known already",
    "kept": "what start gives to every step, unchanged",
    "caches": "what start makes and every step replaces; donate it: jax.jit(step, "
    "donate_argnums=2)",
    "token": "the last one drawn: an index into the logits; start gives the one before `given`",
    "position": "the code that is to be drawn: given, given + 1, ... up to codes_in_window - 1",
    "logits": "of the code at position; an index i stands for the code max(i - first_code, 0)",
}

Weights = dict[str, jax.Array]  # leaves of a tree by their paths, joined with dots
Read = Callable[[openai.Path], Any]


@dataclass(frozen=True)
class Artefact:
    """An exported function, and the names of its arguments after the weights and of its results.

    Several results are a tuple.
    """

    exported: export.Exported
    arguments: tuple[str, ...]
    results: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """Platforms, and dtype and shape of arguments and results, as JSON; free sizes by name."""
        e = self.exported
        (_, *takes), _ = _unflatten(e.in_tree, e.in_avals, _as_json)
        gives = _unflatten(e.out_tree, e.out_avals, _as_json)
        gives = gives if len(self.results) > 1 else (gives,)
        return {
            "platforms": e.platforms,
            "calling_convention": e.calling_convention_version,
            "arguments": dict(zip(self.arguments, takes, strict=True)),
            "results": dict(zip(self.results, gives, strict=True)),
        }


def _unflatten(tree: Any, avals: Any, make: Callable[[Any], Any]) -> Any:
    return jax.tree.unflatten(tree, [make(aval) for aval in avals])


def _as_json(aval: Any) -> dict[str, Any]:
    shape = [n if isinstance(n, int) else str(n) for n in aval.shape]
    return {"dtype": str(aval.dtype), "shape": shape}


def _struct(aval: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


@contextlib.contextmanager
def _no_locations() -> Iterator[None]:
    """Without the file and line of every operation, which would put this machine's paths in."""
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

        encoder = _export(
            encode, weights, jax.ShapeDtypeStruct((b, t * hop * config.groups), jnp.float32)
        )
        decoder = _export(decode, weights, jax.ShapeDtypeStruct((b, t * config.groups), jnp.int32))
        yield f"encode_level_{level}", Artefact(encoder, ("audio",), ("codes",))
        yield f"decode_level_{level}", Artefact(decoder, ("codes",), ("audio",))


def prior_artefacts(config: PriorConfig) -> Iterator[tuple[str, Artefact]]:
    """`start`, which prefills a window, and the one-token `step`, by name."""
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
    starting = _export(start, weights, batch, number)
    state = _unflatten(starting.out_tree, starting.out_avals, _struct)
    stepping = _export(step, weights, *state, number)
    names = ("kept", "caches", "token")
    yield f"{name}.start", Artefact(starting, ("batch", "given"), names)
    yield f"{name}.step", Artefact(stepping, (*names, "position"), ("logits", "caches"))


# --- a folder -------------------------------------------------------------------------------------


def export_model(model: Path, out: Path) -> None:
    """Writes a model directory as artefacts, .safetensors files, label names and manifest.json.

    Raises:
      InteropError: `out` is not empty, or a prior is not supported.
      CheckpointError, DataError: a prior or its label names do not fit the VQ-VAE.
    """
    importing.check_out(out)
    folder = read_model_dir(model)
    loaded = load_vqvae(folder.vqvae, make_mesh(MeshConfig()))
    priors = {level: _checked_prior(folder, loaded, level) for level in sorted(folder.priors)}
    with files.atomic_folder(out) as written:
        books = {str(i): book.codes for i, book in enumerate(loaded.books)}
        tree = {**loaded.params, openai.BOOKS: books}
        weights = "vqvae.safetensors"
        _write_weights(loaded.config, lambda leaf: checkpoint.at(tree, leaf), written / weights)
        entries = _write_artefacts(written, weights, vqvae_artefacts(loaded.config))
        for level, (config, names) in priors.items():
            if names:
                names.save(written / _labels_file(level))
            weights = f"prior_level_{level}.safetensors"
            with exporting.open_leaves(folder.priors[level], openai.leaf_shapes(config)) as leaf:
                _write_weights(config, leaf, written / weights)
            entries |= _write_artefacts(written, weights, prior_artefacts(config))
        manifest: dict[str, Any] = {
            "format": "jukejax-stablehlo",
            "version": VERSION,
            "jax": jax.__version__,
            "fingerprint": loaded.fingerprint,
            "sample_rate": loaded.config.sample_rate,
            "hops": loaded.config.hops,
            "codes": loaded.config.codes,
            "priors": {str(level): _describe(config) for level, (config, _) in priors.items()},
            "meanings": MEANINGS,
            "artefacts": entries,
            "files": {
                path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
                for path in sorted(written.iterdir())
            },
        }
        files.write_json(written / MANIFEST, manifest)
    for name, file in manifest["files"].items():
        print(f"{name}: {file['bytes']:,} bytes, sha256 {file['sha256']}")
    print(f"Manifest: {out / MANIFEST}")


def _checked_prior(
    folder: ModelDir, vqvae: LoadedVQVAE, level: int
) -> tuple[PriorConfig, Vocabulary | None]:
    """The config and label names of a prior that fits the VQ-VAE; no weights are read."""
    config, note = folder.checked_config(vqvae, level)
    if config.groups > 1:
        raise InteropError(
            f"StableHLO export does not support priors over codes in groups ({config.groups} in "
            f"{folder.priors[level]}). Export a model directory of the VQ-VAE alone."
        )
    if not config.labels:
        return config, None
    names = Vocabulary.load(folder.labels(level))
    check_labels(config, note, names, folder)
    return config, names


def _write_weights(config: VQVAEConfig | PriorConfig, read: Read, path: Path) -> None:
    """Writes a model's arrays in float32; `read` gives one by its path in the tree."""
    shapes = openai.leaf_shapes(config)
    sources = {
        ".".join(leaf): Source(shape, "<f4", functools.partial(read, leaf))
        for leaf, shape in shapes.items()
    }
    safetensors_files.write(path, sources)


def _write_artefacts(
    folder: Path, weights: str, artefacts: Iterator[tuple[str, Artefact]]
) -> dict[str, Any]:
    """Writes artefacts; returns their entries in the manifest, by name."""
    entries = {}
    for name, artefact in artefacts:
        file = f"{name}.jaxexport"
        (folder / file).write_bytes(artefact.exported.serialize())
        entries[name] = {"file": file, "weights": weights, **artefact.describe()}
    return entries


def _labels_file(level: int) -> str:
    return f"labels_{level}.json"


def _describe(config: PriorConfig) -> dict[str, Any]:
    """A prior's entry in the manifest."""
    name = f"prior_level_{config.level}"
    entry: dict[str, Any] = {
        "start": f"{name}.start",
        "step": f"{name}.step",
        "hop": config.hop,
        "codes_in_window": config.n_ctx,
        "first_code": config.vocabulary - config.codes,
    }
    if config.labels:
        entry["labels"] = _labels_file(config.level)
    if config.upper:
        entry["codes_per_upper_code"] = config.upper.ratio
    if config.lyrics:
        alphabet = config.lyrics.alphabet
        if alphabet == alphabets.BYTES:
            entry["lyric_bytes"] = "utf-8"
        else:
            entry["lyric_characters"] = alphabets.characters(alphabet)
    if config.tracks:
        entry["tracks"] = {track.name: track.events for track in config.tracks.tracks}
        entry["track_parts"] = config.tracks.parts
    return entry
