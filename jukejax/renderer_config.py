"""The settings of a renderer. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field

from jukejax.config_checks import require_dtype, require_positive
from jukejax.errors import ConfigError
from jukejax.vqvae_config import VQVAEConfig


@dataclass(frozen=True)
class RendererLoss:
    """Weights of a renderer's losses (EnCodec, arXiv 2210.13438, section 3.4)."""

    mel: float = 15.0  # log-mel spectra of the sound at three resolutions, mean |difference|
    adversarial: float = 1.0  # of the discriminators; 0: none are built, trained or stored
    features: float = 5.0  # feature matching: the discriminators' layers, |difference|

    def __post_init__(self) -> None:
        if self.features and not self.adversarial:
            raise ConfigError(
                f"loss.features is {self.features}, but without loss.adversarial there are no "
                "discriminators, whose features it matches; give --model.loss.features 0 too."
            )


@dataclass(frozen=True)
class RendererConfig:
    """From the codes of one level to sound, in place of that level's decoder.

    Residual blocks at the rate of encoder outputs, and at each doubling of it up to the rate of the
    spectra, of which an inverse short-time Fourier transform makes the sound. `discriminators` and
    `channels` are of the adversaries that it is trained against.
    """

    vqvae: VQVAEConfig = field(default_factory=VQVAEConfig)  # in training that of --vqvae
    level: int = 2
    width: int = 512
    depth: int = 12  # residual blocks at each rate
    dilation_growth: int = 3
    dilation_cycle: int = 4
    # samples per frame of the inverse transform: those of an encoder output, or a half, ...
    hop: int = 128
    synthesis: int = 1024  # samples that a frame of the inverse transform adds to the sound
    discriminators: tuple[int, ...] = (2048, 1024, 512)  # samples of each one's windows
    channels: int = 32  # of the discriminators' layers
    loss: RendererLoss = field(default_factory=RendererLoss)
    dtype: str = "float32"  # of activations; parameters stay float32

    def __post_init__(self) -> None:
        require_positive(self, "width", "depth", "hop", "synthesis", "channels")
        require_dtype(self.dtype)
        if not 0 <= self.level < self.vqvae.levels:
            raise ConfigError(
                f"level is {self.level}; the levels of the VQ-VAE are 0 to {self.vqvae.levels - 1}."
            )
        block = self.block
        if self.hop not in (block >> i for i in range(block.bit_length())):
            raise ConfigError(
                f"hop is {self.hop}, but an encoder output of level {self.level} has {block} "
                f"samples; give {block}, or {block} halved once or several times."
            )
        if self.synthesis % (2 * self.hop):
            raise ConfigError(
                f"synthesis is {self.synthesis}; it must be a multiple of twice the hop "
                f"({2 * self.hop}), so that overlapping windows add up to a constant."
            )
        for window in self.discriminators:
            if window < 128 or window & (window - 1):
                raise ConfigError(
                    f"discriminators has {window}; windows must be powers of two, 128 or more."
                )
        if self.loss.adversarial and not self.discriminators:
            raise ConfigError(
                "discriminators is empty; name their windows, or give --model.loss.adversarial 0 "
                "and --model.loss.features 0."
            )

    @property
    def sample_rate(self) -> int:
        return self.vqvae.sample_rate

    @property
    def block(self) -> int:
        """Samples per encoder output of the level."""
        return self.vqvae.hops[self.level] * self.vqvae.groups

    @property
    def stages(self) -> int:
        """Stride-2 stages from the rate of encoder outputs to that of the spectra."""
        return (self.block // self.hop).bit_length() - 1
