"""The settings of a VQ-VAE. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field

from jukejax.config_checks import require_dtype, require_positive
from jukejax.errors import ConfigError


@dataclass(frozen=True)
class ReconstructionLoss:
    """Weights of the VQ-VAE's losses (paper section 3 and appendix B)."""

    l1: float = 0.0
    l2: float = 1.0
    linf: float = 0.02
    linf_k: int = 2048  # largest squared residuals per example that `linf` averages
    spectral: float = 0.0
    multispectral: float = 1.0
    mel: float = 0.0  # log-mel spectra of the sound at three resolutions, mean |difference|
    frames: float = 0.0  # the log-mel frames that the decoders emit (`FramesConfig`)
    commit: float = 0.02


@dataclass(frozen=True)
class FramesConfig:
    """Short-time spectra at the encoders' input and the decoders' output, in place of samples.

    Encoders read log-mel frames. Decoders emit, for each frame, magnitudes and phases of which an
    inverse short-time Fourier transform makes the sound, and log-mel values for the loss
    `ReconstructionLoss.frames`. All layers run at the rate of the frames or below.
    """

    hop: int = 32  # samples per frame
    bands: int = 80
    window: int = 1024  # samples that a log-mel frame is computed from
    synthesis: int = 256  # samples that a frame of the inverse transform adds to the sound

    def __post_init__(self) -> None:
        require_positive(self, "hop", "bands", "window", "synthesis")
        if self.window < self.hop or self.window % 2 or self.hop % 2:
            raise ConfigError(
                f"frames.window {self.window} and frames.hop {self.hop} must be even, and the hop "
                "at most the window."
            )
        if self.synthesis % (2 * self.hop):
            raise ConfigError(
                f"frames.synthesis is {self.synthesis}; it must be a multiple of twice frames.hop "
                f"({2 * self.hop}), so that overlapping windows add up to a constant."
            )


@dataclass(frozen=True)
class VQVAEConfig:
    """Three separate autoencoders, one per level; level 0 is the bottom (finest) one."""

    sample_rate: int = 44_100
    downs: tuple[int, ...] = (3, 2, 2)  # stride-2 stages of each level block
    multipliers: tuple[int, ...] = (2, 1, 1)  # of width and depth, by level
    width: int = 32
    depth: int = 4
    dilation_growth: int = 3
    emb_width: int = 64
    # codes of an encoder output, one after the other in their level, each of what those before it
    # leave (residual quantisation, SoundStream, arXiv 2107.03312, section 3.3)
    groups: int = 1
    codes: int = 2048
    codebook_decay: float = 0.99
    restart_threshold: float = 1.0  # EMA count under which a code restarts
    # share of a microbatch's examples that training decodes without quantising (Mimi, arXiv
    # 2410.00037, section 3.3), so that the decoder's gradient is not confined to the codes' span
    unquantized: float = 0.0
    frames: FramesConfig | None = None  # None: encoders read samples and decoders emit samples
    loss: ReconstructionLoss = field(default_factory=ReconstructionLoss)
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require_positive(self, "sample_rate", "width", "depth", "emb_width", "groups", "codes")
        require_dtype(self.dtype)
        if len(self.downs) != len(self.multipliers):
            raise ConfigError(
                f"downs {self.downs} and multipliers {self.multipliers} name different numbers of "
                "levels; give one number per level in each."
            )
        first = (self.frames.hop if self.frames else 1) * 2 ** self.downs[0]
        if first % self.groups:
            raise ConfigError(
                f"groups {self.groups} does not divide the {first} samples per encoder output of "
                "level 0; choose a divisor."
            )
        if not 0.0 <= self.unquantized < 1.0:
            raise ConfigError(f"unquantized is {self.unquantized}; it must be in [0, 1).")
        if self.loss.frames and self.frames is None:
            raise ConfigError(
                f"loss.frames is {self.loss.frames}, but the model has no frames; configure "
                "frames, or set loss.frames to 0."
            )

    @property
    def levels(self) -> int:
        return len(self.downs)

    @property
    def hops(self) -> tuple[int, ...]:
        """Samples per code at each level, bottom first: (8, 32, 128) as published."""
        first = self.frames.hop if self.frames else 1
        steps = [first * 2 ** sum(self.downs[: level + 1]) for level in range(self.levels)]
        return tuple(step // self.groups for step in steps)

    @property
    def block(self) -> int:
        """Samples per encoder output of the top level: songs and windows are whole blocks."""
        return self.hops[-1] * self.groups
