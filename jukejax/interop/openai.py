"""OpenAI's tensor names and the leaves of our parameter trees, as one table for both directions.

An `Entry` maps a leaf to one tensor, or to several that the leaf stacks (a run of a transformer has
its repeats in one array). `layout` is the permutation from a tensor to the leaf:

  same       unchanged
  transpose  (out, in) -> (in, out)
  conv       (out, in, k) -> (k, in, out)
  conv_up    (in, out, k) -> (k, in, out), taps reversed: a transposed convolution

The VQ-VAE's decoders number their residual blocks from the largest dilation down on both sides, so
the numbers stay.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jukejax import presets
from jukejax.config import (
    Experiment,
    PriorConfig,
    PriorExperiment,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.errors import InteropError
from jukejax.interop.tensors import Array, Tensor
from jukejax.models import prior, vqvae
from jukejax.patterns import CROSS

Path = tuple[str, ...]
Published = VQVAEExperiment | PriorExperiment
BOOKS = "codebooks"  # first part of the path of a codebook, which is no parameter


@dataclass(frozen=True)
class Entry:
    """One leaf and the tensors that make it."""

    path: Path
    names: tuple[str, ...]
    layout: str = "same"
    stacked: bool = False


# layout -> (tensor to leaf, leaf to tensor)
_LAYOUTS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "same": (lambda x: x, lambda x: x),
    "transpose": (lambda x: x.T, lambda x: x.T),
    "conv": (lambda x: x.transpose(2, 1, 0), lambda x: x.transpose(2, 1, 0)),
    "conv_up": (lambda x: x.transpose(2, 0, 1)[::-1], lambda x: x[::-1].transpose(1, 2, 0)),
}

# our leaf, OpenAI's suffix, for each kind of layer
_CONV = (("kernel", "weight", "conv"), ("bias", "bias", "same"))
_CONV_UP = (("kernel", "weight", "conv_up"), ("bias", "bias", "same"))
_DENSE = (("kernel", "w", "same"), ("bias", "b", "same"))
_NORM = (("scale", "weight", "same"), ("bias", "bias", "same"))

# a transformer layer: our name, OpenAI's, kind
_LAYER = (
    ("qkv", "attn.c_attn", _DENSE),
    ("attn_out", "attn.c_proj", _DENSE),
    ("mlp_in", "mlp.c_fc", _DENSE),
    ("mlp_out", "mlp.c_proj", _DENSE),
    ("norm_0", "ln_0", _NORM),
    ("norm_1", "ln_1", _NORM),
)
_CROSS = (("encoder_kv", "attn.c_enc_kv", _DENSE),)

_LABELS = (("artist", "y_emb.artist_emb"), ("genre", "y_emb.bow_genre_emb"))
_TIMING = (
    ("total_length", "y_emb.total_length_emb"),
    ("absolute_position", "y_emb.absolute_pos_emb"),
    ("relative_position", "y_emb.relative_pos_emb"),
)


def _kind(path: Path, name: str, kind: tuple[tuple[str, str, str], ...]) -> Iterator[Entry]:
    for leaf, suffix, layout in kind:
        yield Entry((*path, leaf), (f"{name}.{suffix}",), layout)


def _resnet(path: Path, name: str, depth: int) -> Iterator[Entry]:
    for j in range(depth):
        for leaf, index in (("conv3", 1), ("conv1", 3)):
            place = (*path, f"block_{j}_{leaf}")
            yield from _kind(place, f"{name}.{j}.model.{index}", _CONV)


def _down(path: Path, name: str, stages: int, depth: int) -> Iterator[Entry]:
    for i in range(stages):
        yield from _kind((*path, f"down_{i}"), f"{name}.{i}.0", _CONV)
        yield from _resnet((*path, f"resnet_{i}"), f"{name}.{i}.1.model", depth)
    yield from _kind((*path, "out"), f"{name}.{stages}", _CONV)


def _up(path: Path, name: str, stages: int, depth: int, blocks: str = "model") -> Iterator[Entry]:
    yield from _kind((*path, "in"), f"{name}.0", _CONV)
    for i in range(stages):
        yield from _resnet((*path, f"resnet_{i}"), f"{name}.{i + 1}.0.{blocks}", depth)
        yield from _kind((*path, f"up_{i}"), f"{name}.{i + 1}.1", _CONV_UP)


def vqvae_entries(config: VQVAEConfig) -> list[Entry]:
    """The table of a VQ-VAE; codebooks have paths that begin with `BOOKS`."""
    entries: list[Entry] = []
    for level in range(config.levels):
        depth = config.depth * config.multipliers[level]
        for i, stages in enumerate(config.downs[: level + 1]):
            for side, make in (("encoders", _down), ("decoders", _up)):
                name = f"{side}.{level}.level_blocks.{i}.model"
                entries += make((f"{side}_{level}", f"block_{i}"), name, stages, depth)
        entries += _kind((f"decoders_{level}", "out"), f"decoders.{level}.out", _CONV)
        entries.append(Entry((BOOKS, str(level)), (f"bottleneck.level_blocks.{level}.k",)))
    return entries


def _stack(path: Path, name: str, config: PriorConfig) -> Iterator[Entry]:
    first = 0
    for run, (repeats, patterns) in enumerate(config.runs):
        for j, pattern in enumerate(patterns):
            layers = [first + r * len(patterns) + j for r in range(repeats)]
            for ours, theirs, kind in _LAYER + (_CROSS if pattern == CROSS else ()):
                for leaf, suffix, layout in kind:
                    names = tuple(f"{name}._attn_mods.{d}.{theirs}.{suffix}" for d in layers)
                    place = (*path, f"run_{run}", f"layer_{j}", ours, leaf)
                    yield Entry(place, names, layout, stacked=True)
        first += repeats * len(patterns)


def prior_entries(config: PriorConfig, blocks: str = "blocks") -> list[Entry]:
    """The table of a prior.

    Args:
      blocks: what the upsampler's conditioner calls its residual blocks: "blocks" in the published
        files (trained with checkpointing, cond_c_res = 1), else "model".
    """
    entries = [
        Entry(("token",), ("prior.x_emb.weight",)),
        Entry(("position",), ("prior.pos_emb.pos_emb",)),
    ]
    tables = (_LABELS if config.labels else ()) + (_TIMING if config.timing else ())
    entries += [Entry(("labels", ours), (f"{theirs}.emb.weight",)) for ours, theirs in tables]
    if not config.labels:
        entries.append(Entry(("start",), ("prior.start_token",)))
    if config.upper:
        top = "conditioner_blocks.0"
        entries.append(Entry(("upper", "token"), (f"{top}.x_emb.weight",)))
        entries += _kind(("upper", "norm"), f"{top}.ln", _NORM)
        path, upper = ("upper", "convolutions"), config.upper
        entries += _up(path, f"{top}.cond.model", upper.stages, upper.depth, blocks)
    if config.lyric_encoder:
        entries += _lyric_encoder(config)
    entries += _stack(("stack",), "prior.transformer", config)
    if not config.tied_output:
        entries.append(Entry(("output",), ("prior.x_out.weight",), "transpose"))
    return entries


def _lyric_encoder(config: PriorConfig) -> Iterator[Entry]:
    here = "lyric_encoder"
    yield Entry((here, "token"), ("prime_prior.x_emb.weight",))
    yield Entry((here, "position"), ("prime_prior.pos_emb.pos_emb",))
    yield Entry((here, "start"), ("prime_prior.start_token",))
    yield from _stack((here, "stack"), "prime_prior.transformer", config.encoder)
    yield from _kind((here, "project"), "prime_state_proj", _DENSE)
    yield from _kind((here, "norm"), "prime_state_ln", _NORM)
    yield Entry((here, "output"), ("prime_x_out.weight",))


def table(config: VQVAEConfig | PriorConfig, blocks: str = "blocks") -> list[Entry]:
    """The table of either kind of model; `blocks` as in `prior_entries`."""
    if isinstance(config, VQVAEConfig):
        return vqvae_entries(config)
    return prior_entries(config, blocks)


def shared(config: VQVAEConfig | PriorConfig) -> dict[str, str]:
    """Names in a file of the same tensor as another: the tied output of a prior."""
    tied = isinstance(config, PriorConfig) and config.tied_output
    return {"prior.x_out.weight": "prior.x_emb.weight"} if tied else {}


@functools.cache
def leaf_shapes(config: VQVAEConfig | PriorConfig) -> dict[Path, tuple[int, ...]]:
    """Shapes of our leaves by path, codebooks too; nothing is computed."""
    init: Callable[[jax.Array], Any]
    if isinstance(config, VQVAEConfig):
        init = lambda key: vqvae.init_params(config, key)  # noqa: E731
    else:
        init = lambda key: prior.init_params(config, key)  # noqa: E731
    tree = nn.unbox(jax.eval_shape(init, jax.random.key(0)))
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    shapes = {tuple(str(k.key) for k in path): leaf.shape for path, leaf in leaves}
    if isinstance(config, VQVAEConfig):
        book = (config.groups * config.codes, config.emb_width)
        shapes |= {(BOOKS, str(level)): book for level in range(config.levels)}
    return shapes


def tensor_shape(entry: Entry, leaf: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of each of an entry's tensors, from that of its leaf."""
    shape = leaf[1:] if entry.stacked else leaf
    return _LAYOUTS[entry.layout][1](np.broadcast_to(np.float32(0), shape)).shape


def expected(config: VQVAEConfig | PriorConfig, entries: list[Entry]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model's file."""
    leaves = leaf_shapes(config)
    unknown = leaves.keys() ^ {entry.path for entry in entries}
    assert not unknown, f"the table and the model differ: {sorted(unknown)}"
    shapes = {name: tensor_shape(e, leaves[e.path]) for e in entries for name in e.names}
    return shapes | {name: shapes[other] for name, other in shared(config).items()}


def has_sizes(config: VQVAEConfig | PriorConfig) -> bool:
    """Whether a config's label tables have sizes; those of the demo's presets come from data."""
    labels = None if isinstance(config, VQVAEConfig) else config.labels
    return labels is None or labels.sized


def published(experiment: Experiment, where: str | pathlib.Path) -> Published:
    """An experiment of a kind that OpenAI published.

    Raises:
      InteropError: it is a renderer's.
    """
    if not isinstance(experiment, Published):
        raise InteropError(
            f"{where} is a renderer, which formats of other projects do not support; convert the "
            "VQ-VAE and the priors."
        )
    return experiment


@functools.cache
def preset_tensors(name: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a preset's file."""
    config = published(presets.get(name), name).model
    return expected(config, table(config))


def check(
    where: str, wanted: Mapping[str, tuple[int, ...]], stored: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises InteropError that names every missing, extra or misshapen tensor."""
    lines = [f"  missing  {n} {wanted[n]}" for n in sorted(wanted.keys() - stored.keys())]
    lines += [f"  extra    {n} {stored[n]}" for n in sorted(stored.keys() - wanted.keys())]
    both = sorted(wanted.keys() & stored.keys())
    lines += [
        f"  shape    {n} is {stored[n]}, expected {wanted[n]}"
        for n in both
        if wanted[n] != stored[n]
    ]
    if lines:
        raise InteropError(
            f"{where} is not the model that its settings describe; {len(lines)} tensors differ. "
            "Name the right file or preset; nothing was written.\n" + "\n".join(lines)
        )


def gather(
    entry: Entry, tensors: Mapping[str, Tensor], scratch: pathlib.Path | None = None
) -> Array:
    """A leaf from its tensors, read one at a time; float16 if all of them are, else float32.

    Args:
      scratch: a folder that gets the leaf as a memory map; None keeps it in memory.
    """
    into = _LAYOUTS[entry.layout][0]
    first = tensors[entry.names[0]]
    single = into(np.broadcast_to(np.float32(0), first.shape)).shape
    shape = (len(entry.names), *single) if entry.stacked else single
    half = all(tensors[name].dtype == np.float16 for name in entry.names)
    dtype = np.dtype(np.float16 if half else np.float32)
    if scratch is None:
        out = np.empty(shape, dtype)
    else:
        out = np.memmap(scratch / ".".join(entry.path), dtype, "w+", shape=shape)
    for place, name in zip(out if entry.stacked else [out], entry.names, strict=True):
        place[...] = into(tensors[name].read())
    return out


def scatter(entry: Entry, leaf: Array, index: int) -> Array:
    """The entry's tensor number `index` from its leaf."""
    return _LAYOUTS[entry.layout][1](leaf[index] if entry.stacked else leaf)


def nested(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """A tree of dicts from its leaves by path."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = leaf
    return tree


def as_float32(tree: Any) -> Any:
    """A tree in the dtype that models load their parameters in."""
    return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)
