"""Parameters, FLOPs and bytes of a config, computed analytically; and the peaks of chips.

A FLOP is a multiplication or an addition of a matrix product or convolution; of masked attention
all of it is counted, as all of it is computed. Standard library and configs only, so a 5B model
costs nothing to look at; the tests compare every number with the model itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jukejax.config import (
    Experiment,
    PriorConfig,
    RendererConfig,
    RendererExperiment,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.patterns import COLUMN, CROSS, DENSE, PREVIOUS_ROW, PRIME, ROW, layer_patterns

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """Published peaks of one chip."""

    name: str
    flops: float  # bfloat16 FLOP/s
    memory: int  # bytes of HBM
    bandwidth: float  # of HBM, bytes/s
    interconnect: float  # bytes/s that all links of a chip can send within a slice
    network: float | None  # bytes/s a chip's share of its host's network, between slices
    clock: float  # Hz; what the compiler's cycles are divided by


# Sources: the pages "TPU v4", "v5e", "v5p" and "v6e" of the Cloud TPU documentation. Interconnect
# is published for both directions; half of it is sent. The clock is the peak over the FLOPs of a
# cycle of the matrix units (of 128 x 128: 8 in v4 and v5p, 4 in v5e); v6e is taken to run as v5p.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275e12, 32 * GIB, 1228e9, 150e9, None, 1.050e9),
        Chip("v5e", 197e12, 16 * GIB, 819e9, 200e9, 3.125e9, 1.503e9),
        Chip("v5p", 459e12, 95 * GIB, 2765e9, 600e9, 6.25e9, 1.750e9),
        Chip("v6e", 918e12, 32 * GIB, 1640e9, 400e9, 12.5e9, 1.750e9),
    )
}

# Sources: NVIDIA's data sheets of the SXM modules (dense half-precision matrix units, boost clock).
GPUS = {
    chip.name: chip
    for chip in (
        Chip("V100", 125e12, 16 * GIB, 900e9, 150e9, None, 1.530e9),
        Chip("H100", 989.5e12, 84_942_979_072, 3352e9, 450e9, 50e9, 1.755e9),
    )
}

# What jax calls their devices.
_KINDS = {
    "TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5e": "v5e", "TPU v5": "v5p", "TPU v5p": "v5p",
    "TPU v6 lite": "v6e", "TPU v6e": "v6e", "Tesla V100-SXM2-16GB": "V100",
    "NVIDIA H100 80GB HBM3": "H100",
}  # fmt: skip


def chip_of(device_kind: str) -> Chip | None:
    """The chip of a jax device kind; None if unknown, or a CPU, which has no published peak."""
    return (CHIPS | GPUS).get(_KINDS.get(device_kind, ""))


# --- convolutional networks -----------------------------------------------------------------------


@dataclass(frozen=True)
class Convolution:
    """One layer of a convolutional network, for one example."""

    taps: int
    n_in: int
    n_out: int
    length: int  # of its output
    transposed: bool = False  # stride 2: each output sees half the taps

    @property
    def parameters(self) -> int:
        return self.taps * self.n_in * self.n_out + self.n_out

    @property
    def flops(self) -> int:
        taps = self.taps // 2 if self.transposed else self.taps
        return 2 * taps * self.n_in * self.n_out * self.length


def _resnet(width: int, depth: int, length: int) -> Iterator[Convolution]:
    for _ in range(depth):
        yield Convolution(3, width, width, length)
        yield Convolution(1, width, width, length)


def _up_block(
    stages: int, width: int, depth: int, n_in: int, n_out: int, length: int
) -> Iterator[Convolution]:
    yield Convolution(3, n_in, width, length)
    for i in range(stages):
        yield from _resnet(width, depth, length)
        length *= 2
        yield Convolution(4, width, n_out if i == stages - 1 else width, length, transposed=True)


def encoder(config: VQVAEConfig, level: int, samples: int) -> list[Convolution]:
    """The convolutions of one level's encoder."""
    found: list[Convolution] = []
    c, n_in = config, 1
    if c.frames:
        samples, n_in = samples // c.frames.hop, c.frames.bands
    m = c.multipliers[level]
    for stages in c.downs[: level + 1]:
        for _ in range(stages):
            samples //= 2
            found.append(Convolution(4, n_in, c.width * m, samples))
            found += _resnet(c.width * m, c.depth * m, samples)
            n_in = c.width * m
        n_in, before = c.emb_width, n_in
        found.append(Convolution(3, before, n_in, samples))
    return found


def decoder(config: VQVAEConfig, level: int, samples: int) -> list[Convolution]:
    """The convolutions of one level's decoder."""
    found: list[Convolution] = []
    c = config
    m, e, length = (
        c.multipliers[level],
        c.emb_width,
        samples // c.hops[level] // c.groups,
    )
    for i in reversed(range(level + 1)):
        found += _up_block(c.downs[i], c.width * m, c.depth * m, e, e, length)
        length *= 2 ** c.downs[i]
    out = c.frames.synthesis + 2 + c.frames.bands if c.frames else 1
    return [*found, Convolution(3, e, out, length)]


def renderer(config: RendererConfig, samples: int) -> list[Convolution]:
    """The convolutions of a renderer."""
    c, length = config, samples // config.block
    found = [Convolution(3, c.vqvae.emb_width, c.width, length)]
    for stage in range(c.stages + 1):
        if stage:
            length *= 2
            found.append(Convolution(4, c.width, c.width, length, transposed=True))
        found += _resnet(c.width, c.depth, length)
    return [*found, Convolution(3, c.width, c.synthesis + 2, length)]


def discriminators(config: RendererConfig, samples: int) -> list[tuple[Convolution, bool]]:
    """The 2-D convolutions of a renderer's discriminators, and which are the first of one.

    They have gains in addition, one for each channel of their output.
    """
    found, c = [], config.channels
    for window in config.discriminators if config.loss.adversarial else ():
        places = samples // (window // 4) * (window // 2)  # of a spectrum: time and frequency
        found.append((Convolution(27, 2, c, places), True))
        found += [(Convolution(15, 2 * c, c, places // 2**i), False) for i in (1, 2, 3)]
        found += [(Convolution(9, c, n, places // 8), False) for n in (c, 1)]
    return found


def mel_flops(config: VQVAEConfig, samples: int) -> int:
    """The product of spectra and mel filters at every level's input; FFTs are not counted."""
    if not (f := config.frames):
        return 0
    return config.levels * 2 * (samples // f.hop) * (f.window // 2 + 1) * f.bands


# --- transformers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """One transformer layer over `length` positions of one example."""

    pattern: str
    width: int
    attn: int
    mlp: int
    length: int
    keys: int  # that a position attends to
    encoded: int  # lyric states that keys and values are made of (cross-attention)

    @property
    def matrices(self) -> int:
        """Weights that multiply every position."""
        made = 1 if self.pattern == CROSS else 3
        return self.width * (made * self.attn + 2 * self.mlp) + self.attn * self.width

    @property
    def parameters(self) -> int:
        made = 1 if self.pattern == CROSS else 3
        biases = made * self.attn + self.mlp + 2 * self.width
        kv = 2 * self.attn * (self.width + 1) if self.pattern == CROSS else 0
        return self.matrices + biases + kv + 4 * self.width

    @property
    def flops(self) -> int:
        kv = 4 * self.encoded * self.width * self.attn if self.pattern == CROSS else 0
        return 2 * self.length * self.matrices + kv + 4 * self.length * self.keys * self.attn


def stack(c: PriorConfig) -> list[Layer]:
    """The layers of a prior."""
    encoded = c.lyrics.tokens if c.lyrics else 0
    columns = c.seq_len // c.blocks
    keys = {
        ROW: columns, PREVIOUS_ROW: columns, COLUMN: c.blocks, DENSE: c.seq_len, CROSS: encoded,
        PRIME: c.prime_visible,
    }  # fmt: skip
    return [
        Layer(pattern, c.width, c.attn_width, c.mlp_width, c.seq_len, keys[pattern], encoded)
        for pattern in layer_patterns(c.attn_order, c.depth)
    ]


def lyric_stack(c: PriorConfig) -> list[Layer]:
    """The layers of a prior's lyrics encoder, if it has one."""
    return stack(c.encoder) if c.lyric_encoder else []


def _upper(c: PriorConfig) -> list[Convolution]:
    if c.upper is None:
        return []
    u = c.upper
    return list(_up_block(u.stages, u.width, u.depth, c.width, c.width, c.n_ctx // u.ratio))


def _tracks(c: PriorConfig) -> list[Convolution]:
    if c.tracks is None:
        return []
    width = c.tracks.width
    return [*_resnet(width, c.tracks.depth, c.n_ctx), Convolution(1, width, c.width, c.n_ctx)]


# --- whole models ---------------------------------------------------------------------------------


def parameters(experiment: Experiment) -> int:
    """Number of trained parameters (without a VQ-VAE's codebooks)."""
    if isinstance(experiment, VQVAEExperiment):
        v = experiment.model
        return sum(
            conv.parameters
            for level in range(v.levels)
            for conv in (*encoder(v, level, 1), *decoder(v, level, v.hops[level] * v.groups))
        )
    if isinstance(experiment, RendererExperiment):
        r = experiment.model
        return sum(x.parameters for x in renderer(r, r.block)) + sum(
            x.parameters + x.n_out for x, _ in discriminators(r, 1)
        )
    c = experiment.model
    rows = c.vocabulary * c.groups + c.seq_len + (c.width if c.groups > 1 else 0)
    rows += 0 if c.tied_output else c.codes * c.groups
    if c.labels:
        rows += sum(c.labels.tables.values()) + (3 * c.labels.timing_bins if c.timing else 0)
    else:
        rows += 1  # the embedding before the first token
    if c.upper:
        rows += c.codes + 2  # codes above, and the norm
    total = rows * c.width
    total += sum(layer.parameters for layer in (*stack(c), *lyric_stack(c)))
    if c.tracks:
        rows = sum(len(track.events) + 1 + c.tracks.parts for track in c.tracks.tracks)
        total += rows * c.tracks.width + 2 * c.width  # embeddings and the norm
    total += sum(conv.parameters for conv in (*_upper(c), *_tracks(c)))
    if c.lyrics and c.lyric_encoder:
        x = c.lyrics
        total += (x.vocabulary + x.tokens + 1) * x.width
        total += (x.width + 1 + 2 + x.vocabulary) * c.width  # projection, norm, output
    return total


def forward_flops(experiment: Experiment) -> dict[str, int]:
    """FLOPs of a training example's forward pass, by part."""
    if isinstance(experiment, VQVAEExperiment):
        v, samples = experiment.model, experiment.samples
        levels = range(v.levels)
        codes = sum(samples // v.hops[level] for level in levels)
        return {
            "encoders": mel_flops(v, samples)
            + sum(x.flops for level in levels for x in encoder(v, level, samples)),
            "bottlenecks": 2 * codes * v.emb_width * v.codes,
            "decoders": sum(x.flops for level in levels for x in decoder(v, level, samples)),
        }
    if isinstance(experiment, RendererExperiment):
        r, samples = experiment.model, experiment.samples
        codes = samples // r.vqvae.hops[r.level]
        return {
            "encoder": mel_flops(r.vqvae, samples) // r.vqvae.levels
            + sum(x.flops for x in encoder(r.vqvae, r.level, samples)),
            "bottleneck": 2 * codes * r.vqvae.emb_width * r.vqvae.codes,
            "renderer": sum(x.flops for x in renderer(r, samples)),
            "discriminators": 2 * sum(x.flops for x, _ in discriminators(r, samples)),
        }
    c = experiment.model
    parts = {
        "stack": sum(x.flops for x in stack(c)),
        "output": 2 * c.seq_len * c.width * (c.vocabulary if c.tied_output else c.codes),
    }
    if c.upper:
        parts["upper"] = sum(x.flops for x in _upper(c))
    if c.tracks:
        parts["tracks"] = sum(x.flops for x in _tracks(c))
    if c.lyrics and c.lyric_encoder:
        x = c.lyrics
        ends = 2 * x.tokens * c.width * (x.width + x.vocabulary)
        parts["lyrics"] = sum(x.flops for x in lyric_stack(c)) + ends
    return parts


def train_flops(experiment: Experiment) -> int:
    """FLOPs of forward and backward pass for one example, recomputation not counted.

    The backward pass costs twice the forward one, except where no gradient is needed: the input of
    a VQ-VAE's encoders, the search for the nearest code, and all that is frozen of a renderer. Each
    of its discriminators has three backward passes, of which one gives no gradient of its weights.
    """
    forward = forward_flops(experiment)
    if isinstance(experiment, RendererExperiment):
        r, samples = experiment.model, experiment.samples
        firsts = sum(x.flops for x, first in discriminators(r, samples) if first)
        backward = 2 * forward["renderer"] - renderer(r, samples)[0].flops
        backward += 5 * forward["discriminators"] // 2 - 2 * firsts
        return sum(forward.values()) + backward
    total = 3 * sum(forward.values())
    if isinstance(experiment, VQVAEExperiment):
        v = experiment.model
        inputs = (encoder(v, level, experiment.samples)[0] for level in range(v.levels))
        total -= 2 * forward["bottlenecks"] + sum(x.flops for x in inputs)
        total -= 2 * mel_flops(v, experiment.samples)
    return total


def tokens(experiment: Experiment) -> int:
    """Tokens of a training example: codes of a prior's window; samples of a chunk of sound."""
    is_sound = isinstance(experiment, VQVAEExperiment | RendererExperiment)
    return experiment.samples if is_sound else experiment.model.n_ctx  # type: ignore[union-attr]


# --- decoding -------------------------------------------------------------------------------------


def cache_positions(layer: Layer) -> int:
    """Positions whose keys and values a layer keeps while a window is decoded."""
    return {PREVIOUS_ROW: 2 * layer.keys, COLUMN: layer.length}.get(layer.pattern, layer.keys)


def cache_bytes(config: PriorConfig, batch: int, itemsize: int) -> int:
    """Size of all caches of a window."""
    return 2 * itemsize * batch * sum(x.attn * cache_positions(x) for x in stack(config))


def decode_bytes(config: PriorConfig, batch: int, weight: int, cached: int) -> int:
    """Lower bound on the bytes read to decode one token of each of `batch` windows.

    Every weight of the stack and of the output once, and the keys and values that each layer
    attends to (`weight` and `cached` are the sizes of an item).
    """
    c = config
    output = c.width * (c.vocabulary if c.tied_output else c.codes)
    kv = 2 * sum(x.attn * x.keys for x in stack(c))
    read = sum(
        x.parameters - (2 * x.attn * (x.width + 1) if x.pattern == CROSS else 0) for x in stack(c)
    )
    return weight * (read + output) + cached * batch * kv


def decode_flops(config: PriorConfig) -> int:
    """FLOPs of decoding one token of one window."""
    c = config
    per_layer = sum(2 * x.matrices + 4 * x.keys * x.attn for x in stack(c))
    return per_layer + 2 * c.width * (c.vocabulary if c.tied_output else c.codes)
