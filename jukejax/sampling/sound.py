"""Sound to codes and back: encode, decode piece by piece, sounds that grow with their codes."""

from __future__ import annotations

import jax
import numpy as np

from jukejax.codec import Decoder, Encoder, Renderer, Sound
from jukejax.config import ConfigError, MeshConfig
from jukejax.model_dir import LoadedRenderer, LoadedVQVAE
from jukejax.parallel.mesh import make_mesh
from jukejax.sampling.sample_dir import SampleDir

PIECE_SECONDS = 4  # decoded at once, besides the overlap


def encode(vqvae: LoadedVQVAE, sound: np.ndarray) -> list[np.ndarray]:
    """Codes (n,) uint16 per level, bottom first, of sound (S,) float32 at the model's sample rate.

    The sound is cut to whole blocks, so that the levels end together.

    Raises:
      ConfigError: it is shorter than one block.
    """
    config, block = vqvae.config, vqvae.config.block
    n_samples = len(sound) // block * block
    if not n_samples:
        raise ConfigError(
            f"The sound has {len(sound)} samples at {config.sample_rate} Hz; the top level "
            f"reads {block} at a time. Give a longer sound."
        )
    encoder = Encoder(
        config, vqvae.params, vqvae.books, make_mesh(MeshConfig(), jax.local_devices()[:1]),
        seconds=PIECE_SECONDS,
    )  # fmt: skip
    return encoder([Sound(lambda start, stop: sound[start:stop], n_samples)])[0]


def to_mono(sound: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Sound (S,) float32 at `wanted` Hz: the mean of the channels of (S,) or (S, channels).

    Raises:
      ConfigError: it is not an array of finite floats in [-1, 1] with a positive rate.
    """
    array = np.asarray(sound)
    if array.ndim not in (1, 2) or not np.issubdtype(array.dtype, np.floating):
        raise ConfigError(
            f"The sound is an array {array.shape} of {array.dtype}; give (samples,) or (samples, "
            "channels) of floats in [-1, 1]."
        )
    if not np.isfinite(array).all() or np.abs(array).max(initial=0) > 1.0001:
        raise ConfigError("The sound has values that are not finite or not in [-1, 1]; scale it.")
    if rate <= 0:
        raise ConfigError(f"The sample rate is {rate}; it must be positive.")
    mono = array.astype(np.float32)
    mono = mono.mean(1, dtype=np.float32) if mono.ndim == 2 else mono
    if rate == wanted:
        return mono
    import soxr  # only sound at another sample rate needs it

    resampled: np.ndarray = soxr.resample(mono, rate, wanted)
    return resampled


def decode(
    vqvae: LoadedVQVAE, codes: np.ndarray, level: int, renderer: LoadedRenderer | None = None
) -> np.ndarray:
    """Sound (S,) float32 in [-1, 1] of codes (T,) of a level, as by `decoder`, piece by piece.

    Raises:
      ConfigError: there is no such level, or the codes are not of it.
    """
    config, codes = vqvae.config, np.asarray(codes)
    if not 0 <= level < config.levels:
        raise ConfigError(f"level is {level}; the model's are 0 to {config.levels - 1}.")
    if codes.ndim != 1 or not codes.size or not np.issubdtype(codes.dtype, np.integer):
        raise ConfigError(
            f"The codes are an array {codes.shape} of {codes.dtype}; give integers (codes,)."
        )
    if codes.min() < 0 or codes.max() >= config.codes:
        raise ConfigError(
            f"The codes are from {codes.min()} to {codes.max()}; this model's are 0 to "
            f"{config.codes - 1}."
        )
    if codes.size % config.groups:
        raise ConfigError(
            f"There are {codes.size} codes; this model makes sound of {config.groups} at a time. "
            "Give a multiple."
        )
    sound = np.concatenate(list(decoder(vqvae, level, renderer=renderer)(codes[None])), 1)[0]
    return np.clip(sound, -1.0, 1.0)


def decoder(
    vqvae: LoadedVQVAE,
    level: int,
    seconds: float = PIECE_SECONDS,
    renderer: LoadedRenderer | None = None,
) -> Decoder:
    """The decoder of a level in pieces of these seconds; the renderer, where it is of the level."""
    samples = round(seconds * vqvae.config.sample_rate)
    if renderer is not None and renderer.config.level == level:
        return Renderer(renderer.config, renderer.params, renderer.book, samples)
    return Decoder(vqvae.config, vqvae.params, vqvae.books, level, samples)


class GrowingSounds:
    """The sounds of a level, written while its codes are sampled; one piece is in memory."""

    def __init__(
        self, decoder: Decoder, sample: SampleDir, level: int, codes: np.ndarray, n_samples: int
    ) -> None:
        """Starts from scratch; `codes` (N, T) is read while it is filled."""
        self.sample, self.level, self.codes = sample, level, codes
        self.left = n_samples
        self.decoder = decoder
        self.waiting = self.decoder.pieces(codes.shape[1])
        self.begun = False

    def grow(self, done: int) -> np.ndarray:
        """Writes and returns the pieces (N, n) that depend only on the first `done` codes.

        The last one ends the file.
        """
        grown = [np.zeros((len(self.codes), 0), np.float32)]
        while self.waiting and self.waiting[0].stop <= done:
            piece = np.clip(self.decoder.decode(self.codes, self.waiting.pop(0)), -1.0, 1.0)
            grown.append(piece[:, : self.left])
            self.sample.add_sound(self.level, grown[-1], first=not self.begun)
            self.left -= grown[-1].shape[1]
            self.begun = True
            if not self.waiting:
                self.sample.finish_sound(self.level)
        return np.concatenate(grown, axis=1)
