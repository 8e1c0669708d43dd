"""All settings of a model and of a run, as frozen dataclasses. Standard library only.

A preset (`jukejax.presets`) is a `VQVAEExperiment`, `PriorExperiment` or `RendererExperiment`; the
demo, the tests and the 5B run differ only in its values. `to_dict` and `from_dict` convert to and
from the JSON of checkpoints and job files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from jukejax import alphabets
from jukejax.config_checks import DTYPES as DTYPES
from jukejax.config_checks import require_dtype, require_positive
from jukejax.config_json import from_dict as from_dict
from jukejax.config_json import to_dict as to_dict
from jukejax.errors import ConfigError
from jukejax.label_kinds import LabelsConfig as LabelsConfig
from jukejax.patterns import CROSS, PRIME, layer_patterns, prime_visible, segments
from jukejax.renderer_config import RendererConfig as RendererConfig
from jukejax.renderer_config import RendererLoss as RendererLoss
from jukejax.track_config import Track as Track
from jukejax.track_config import TracksConfig as TracksConfig
from jukejax.vqvae_config import FramesConfig as FramesConfig
from jukejax.vqvae_config import ReconstructionLoss as ReconstructionLoss
from jukejax.vqvae_config import VQVAEConfig as VQVAEConfig

REMATS = ("none", "dots", "attention", "layer")  # from the most memory to the most recomputation
LAYERS = ("plain", "tuned")


@dataclass(frozen=True)
class LyricsConfig:
    """Lyrics conditioning: an encoder with cross-attention, or a prefix of the same stack."""

    tokens: int = 512  # characters in a window
    # "v2" (80 ids), "v3" (79: no '+'), "bytes" (257: UTF-8), or "characters:" and the characters
    # themselves; "characters" alone: those of the data's lyrics
    alphabet: str = "v2"
    prefix: bool = False  # True: lyrics and music form one sequence (`prior_1b_lyrics`)
    loss_fraction: float = 0.4  # weight of the loss of the lyric tokens
    # the encoder (unused with `prefix`)
    width: int = 1280
    depth: int = 18
    heads: int = 4
    attn_order: int = 2  # as that of the prior
    blocks: int = 32  # rows of the factorized attention
    init_scale: float = 0.7  # factor of the standard deviations of the initial weights

    @property
    def vocabulary(self) -> int:
        """Ids of the alphabet, with that of padding; 0: those of the data, not known yet."""
        return alphabets.size(self.alphabet)

    def __post_init__(self) -> None:
        own = self.alphabet.removeprefix(alphabets.CHARACTERS)
        if own != self.alphabet and 0 < len(set(own)) == len(own):
            return
        known = (*alphabets.PUBLISHED, alphabets.BYTES, "characters")
        if self.alphabet not in known:
            names = ", ".join(map(repr, known))
            raise ConfigError(
                f"lyrics.alphabet is {self.alphabet!r}; it must be one of {names} (those of the "
                f"data), or {alphabets.CHARACTERS!r} followed by the characters, each once."
            )


@dataclass(frozen=True)
class UpperConfig:
    """The upsampler's conditioner on the codes of the level above."""

    ratio: int = 4  # codes of this level per code above
    width: int = 1024
    depth: int = 16
    dilation_growth: int = 3
    dilation_cycle: int = 8
    scale_residual: bool = False  # residual branches scaled by 1/sqrt(depth)

    @property
    def stages(self) -> int:
        """Stride-2 stages of the upsampling stack."""
        return int(math.log2(self.ratio))


@dataclass(frozen=True)
class PriorConfig:
    """One autoregressive transformer over the codes of one level."""

    level: int = 2  # of the codes; 0 is the bottom (finest)
    hop: int = 128  # samples per code
    sample_rate: int = 44_100
    codes: int = 2048
    groups: int = 1  # codes per encoder output of the VQ-VAE: windows hold whole outputs
    n_ctx: int = 8192  # codes in a window
    width: int = 1920
    depth: int = 72
    heads: int = 1
    blocks: int = 128  # rows of the factorized attention
    # which positions each layer attends to, in the published numbering of `jukejax.patterns`:
    # 2 rows and columns alone; 6 to 8, 10 and 11 also lyrics by cross-attention, 12 as a prefix
    attn_order: int = 2
    attn_ratio: float = 0.25  # attention width / width
    mlp_ratio: float = 1.0  # width of the MLP / width
    init_scale: float = 0.4  # factor of the standard deviations of the initial weights
    scale_residual: bool = False  # residual branches scaled by 1/depth
    # True: the token table is the output matrix, and the conditioning is added after the stack;
    # False: a separate output matrix and no such addition
    tied_output: bool = True
    labels: LabelsConfig | None = None
    lyrics: LyricsConfig | None = None
    upper: UpperConfig | None = None
    tracks: TracksConfig | None = None  # phones, notes ... that run along with the codes
    dtype: str = "float32"  # of the stack's activations; parameters stay float32
    # rematerialisation, what the backward pass recomputes of a layer: "dots" all but matrix
    # products, "attention" all but queries, keys, values and attention's output, "layer" all
    remat: str = "none"
    # "plain" dense layers, or "tuned" ones with the same results (`jukejax.models.dense_tuned`).
    # Files from before this field existed are of tuned models.
    layers: str = field(default="plain", metadata={"if_missing": "tuned"})

    def __post_init__(self) -> None:
        require_positive(
            self,
            "hop",
            "sample_rate",
            "codes",
            "groups",
            "n_ctx",
            "width",
            "depth",
            "heads",
            "blocks",
        )
        require_dtype(self.dtype)
        if self.n_ctx % self.blocks or self.seq_len % self.blocks:
            raise ConfigError(
                f"blocks {self.blocks} does not divide the context ({self.seq_len} tokens); "
                "choose a divisor."
            )
        if self.n_ctx % self.groups or self.prefix_len % self.groups:
            raise ConfigError(
                f"n_ctx {self.n_ctx} or the lyrics before it ({self.prefix_len}) is not a multiple "
                f"of groups {self.groups}; choose a multiple."
            )
        if self.attn_width % self.heads:
            raise ConfigError(
                f"heads {self.heads} does not divide the attention width {self.attn_width} "
                f"(attn_ratio {self.attn_ratio} x width {self.width})."
            )
        if self.remat not in REMATS:
            known = ", ".join(map(repr, REMATS))
            raise ConfigError(f"remat is {self.remat!r}; it must be one of {known}.")
        if self.layers not in LAYERS:
            raise ConfigError(f"layers is {self.layers!r}; it must be one of {', '.join(LAYERS)}.")
        uses = {CROSS: self.lyric_encoder, PRIME: self.lyric_prefix}
        for pattern in layer_patterns(self.attn_order, self.depth):
            if not uses.get(pattern, True):
                raise ConfigError(
                    f"attn_order {self.attn_order} has {pattern!r} layers at depth {self.depth}, "
                    f"but lyrics is {self.lyrics}: configure lyrics of that kind "
                    "(an encoder for 'cross', a prefix for 'prime') or another attn_order."
                )

    @property
    def lyric_prefix(self) -> bool:
        return self.lyrics is not None and self.lyrics.prefix

    @property
    def lyric_encoder(self) -> bool:
        return self.lyrics is not None and not self.lyrics.prefix

    @property
    def prefix_len(self) -> int:
        """Lyric tokens before the music in the same sequence."""
        return self.lyrics.tokens if self.lyrics is not None and self.lyrics.prefix else 0

    @property
    def step(self) -> int:
        """Windows begin at multiples of this many codes: encoder outputs here and above."""
        return self.groups * (self.upper.ratio if self.upper else 1)

    @property
    def seq_len(self) -> int:
        """Positions of the stack: lyrics (with `prefix`) and music."""
        return self.prefix_len + self.n_ctx

    @property
    def vocabulary(self) -> int:
        """Rows of the token table: lyric characters (with `prefix`), then codes."""
        prefix = self.lyrics.vocabulary if self.lyrics and self.lyrics.prefix else 0
        return prefix + self.codes

    @property
    def attn_width(self) -> int:
        return int(self.attn_ratio * self.width)

    @property
    def mlp_width(self) -> int:
        return int(self.mlp_ratio * self.width)

    @property
    def residual(self) -> float:
        """Factor of what a layer adds to the residual stream."""
        return 1.0 / self.depth if self.scale_residual else 1.0

    @property
    def prime_visible(self) -> int:
        """Positions that "prime" layers attend to."""
        return prime_visible(self.prefix_len, self.blocks)

    @property
    def runs(self) -> tuple[tuple[int, tuple[str, ...]], ...]:
        """The stack as (repeats, pattern) runs, each one scan."""
        return segments(layer_patterns(self.attn_order, self.depth))

    @property
    def encoder(self) -> PriorConfig:
        """The lyrics encoder's stack, as a prior over characters without conditions."""
        assert self.lyrics is not None and self.lyric_encoder
        x = self.lyrics
        return replace(
            self, n_ctx=x.tokens, width=x.width, depth=x.depth, heads=x.heads, blocks=x.blocks,
            attn_order=x.attn_order, init_scale=x.init_scale, scale_residual=False,
            labels=None, lyrics=None, upper=None, tracks=None,
        )  # fmt: skip

    @property
    def timing(self) -> bool:
        """Whether it is conditioned on its window's position in the song: the top level only."""
        return self.labels is not None and self.upper is None

    @property
    def window_samples(self) -> int:
        return self.n_ctx * self.hop


# --- runs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam and its schedule (linear warm-up, then constant, linear, cosine or stepwise decay).

    `kind` "adamw" is the usual rule; "jukebox" is that of the published models: eps is
    added before the bias correction, which also scales weight decay.
    """

    kind: str = "adamw"
    learning_rate: float = 3e-4
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 1.0  # global gradient norm; 0 turns clipping off
    warmup_steps: int = 100
    decay: str = "constant"  # "constant" | "linear" | "cosine" | "step"
    decay_start: int = 0  # step at which "linear" and "cosine" begin
    decay_steps: int = 0  # length of the decay, or of a step of "step"
    gamma: float = 0.5  # factor per step of "step"

    def __post_init__(self) -> None:
        if self.kind not in ("adamw", "jukebox"):
            raise ConfigError(f"optimizer.kind is {self.kind!r}; it must be adamw or jukebox.")
        if self.decay not in ("constant", "linear", "cosine", "step"):
            raise ConfigError(
                f"optimizer.decay is {self.decay!r}; it must be constant, linear, cosine or step."
            )
        if self.decay != "constant" and self.decay_steps < 1:
            raise ConfigError(
                f"optimizer.decay {self.decay!r} needs optimizer.decay_steps of 1 or more."
            )


@dataclass(frozen=True)
class TrainConfig:
    """Length and intervals of training. Steps are optimizer steps; batch is the global batch."""

    steps: int = 100_000
    batch: int = 256
    accumulate: int = 1  # microbatches per batch, to save memory
    seed: int = 0
    # of parameters, their average and Adam's moments; "bfloat16" takes half the memory
    state_dtype: str = "float32"
    ema_decay: float = 0.999  # of parameters; evaluation and export use the average
    log_every: int = 100
    evaluate_every: int = 10_000
    evaluate_batches: int = 16
    checkpoint_every: int = 1_000
    keep: int = 3  # latest checkpoints
    keep_best: int = 0  # checkpoints of the lowest held-out loss, saved at evaluations
    # skip a step whose loss or gradient norm exceeds its running mean by this number of standard
    # deviations, such as 6; 0: only where it is not finite
    skip_spikes: float = 0.0
    max_skipped: int = 10  # consecutive skipped steps by which a run diverges, and ends
    rollbacks: int = 0  # times that a diverging run returns to a checkpoint and leaves out data
    # a process ends itself, to be restarted, when the start, an evaluation or a checkpoint takes
    # longer than this, or a step 45 s and ten times as long as the longest before it; 0: never
    hang_seconds: float = 3600.0

    def __post_init__(self) -> None:
        require_positive(
            self, "steps", "batch", "accumulate", "log_every", "evaluate_every",
            "evaluate_batches", "checkpoint_every", "keep", "max_skipped",
        )  # fmt: skip
        for name in ("skip_spikes", "rollbacks", "hang_seconds"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise ConfigError(f"train.{name} is {value}; give a number over 0, or 0 for none.")
        if self.state_dtype not in ("float32", "bfloat16"):
            raise ConfigError(
                f"train.state_dtype is {self.state_dtype!r}; it must be float32 or bfloat16."
            )
        if self.batch % self.accumulate:
            raise ConfigError(
                f"train.accumulate {self.accumulate} does not divide train.batch {self.batch}."
            )


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; -1 takes what is left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        for name in ("data", "fsdp", "tensor"):
            if getattr(self, name) != -1:
                require_positive(self, name)


@dataclass(frozen=True)
class VQVAEExperiment:
    """A VQ-VAE and how it is trained."""

    model: VQVAEConfig = field(default_factory=VQVAEConfig)
    samples: int = 393_216  # of a training chunk
    downmix: str = "random"  # "random": m*left + (1-m)*right, m uniform; "mean"
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def __post_init__(self) -> None:
        if self.samples % self.model.block:
            raise ConfigError(
                f"samples {self.samples} is not a multiple of the {self.model.block} samples of an "
                "encoder output of the top level."
            )


@dataclass(frozen=True)
class PriorExperiment:
    """A prior and how it is trained on codes."""

    model: PriorConfig = field(default_factory=PriorConfig)
    label_dropout: float = 0.0  # probability that all labels are replaced by "unknown"
    track_dropout: float = 0.0  # probability, of each track, that an example goes without it
    context_noise: float = 0.0  # mean share of codes read in training that are of another place
    lora: int = 0  # rank of adapters that are trained in place of the weights; 0: all weights are
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def __post_init__(self) -> None:
        if not 0.0 <= self.context_noise <= 0.5:
            raise ConfigError(f"context_noise is {self.context_noise}; give a share from 0 to 0.5.")
        if self.lora < 0:
            raise ConfigError(f"lora is {self.lora}; give a rank of 1 or more, or 0 for none.")


@dataclass(frozen=True)
class RendererExperiment:
    """A renderer and how it is trained on songs.

    Renderer and discriminators have an optimizer each, both with the settings of `optimizer`.
    """

    model: RendererConfig = field(default_factory=RendererConfig)
    samples: int = 65_536  # of a training chunk
    downmix: str = "random"  # as of `VQVAEExperiment`
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def __post_init__(self) -> None:
        if self.samples % self.model.block:
            raise ConfigError(
                f"samples {self.samples} is not a multiple of the {self.model.block} samples of "
                f"an encoder output of level {self.model.level}."
            )


Experiment = VQVAEExperiment | PriorExperiment | RendererExperiment


def model_kind(of: type) -> str:
    """What messages call a type of config or experiment."""
    kinds = {"VQVAE": "a VQ-VAE", "Prior": "a prior", "Renderer": "a renderer"}
    return kinds[of.__name__.removesuffix("Config").removesuffix("Experiment")]
