"""Sound to codes and back: encode, decode piece by piece, sounds that grow with their codes."""

from __future__ import annotations

import jax
import numpy as np

from jukejax.codec import Encoder, Sound
from jukejax.config import ConfigError, MeshConfig
from jukejax.model_dir import LoadedVQVAE
from jukejax.models import vqvae
from jukejax.parallel.mesh import make_mesh
from jukejax.sampling.sample_dir import SampleDir

PIECE_SECONDS = 4  # decoded at once, besides the overlap

_decode = jax.jit(vqvae.decode, static_argnums=(0, 4))


def encode(vqvae: LoadedVQVAE, sound: np.ndarray) -> list[np.ndarray]:
    """Codes (n,) uint16 per level, bottom first, of sound (S,) float32 at the model's sample rate.

    The sound is cut to a whole number of top-level codes, so that the levels end together.

    Raises:
      ConfigError: it is shorter than one top-level code.
    """
    config, top = vqvae.config, vqvae.config.hops[-1]
    n_samples = len(sound) // top * top
    if not n_samples:
        raise ConfigError(
            f"The sound has {len(sound)} samples at {config.sample_rate} Hz; one code of the top "
            f"level takes {top}. Give a longer sound."
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


def decode(vqvae: LoadedVQVAE, codes: np.ndarray, level: int) -> np.ndarray:
    """Sound (S,) float32 in [-1, 1] of codes (T,) of a level, decoded piece by piece.

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
    parts = [decode_piece(vqvae, codes[None], level, x) for x in pieces(vqvae, level, len(codes))]
    return np.concatenate(parts, 1)[0]


Piece = tuple[
    int, int, tuple[int, int]
]  # [first, last) of the codes [start, stop) that are decoded


def pieces(
    model: LoadedVQVAE, level: int, total: int, seconds: float = PIECE_SECONDS
) -> list[Piece]:
    """Pieces of a song of `total` codes; they overlap by the decoder's receptive field."""
    reach = vqvae.decoder_reach(model.config, level)
    size = max(1, round(seconds * model.config.sample_rate) // model.config.hops[level])
    return vqvae.piecewise(lambda start, stop: (start, stop), total, size, reach)


def decode_piece(model: LoadedVQVAE, codes: np.ndarray, level: int, piece: Piece) -> np.ndarray:
    """The sound (N, n) float32 of one piece of codes (N, T), clipped to [-1, 1]."""
    first, last, (start, stop) = piece
    hop, window = model.config.hops[level], codes[:, start:stop].astype(np.int32)
    part = np.asarray(_decode(model.config, model.params, model.books, window, level))
    return np.clip(part[:, first * hop : last * hop, 0], -1.0, 1.0)


class GrowingSounds:
    """The sounds of a level, written while its codes are sampled; one piece is in memory."""

    def __init__(
        self, model: LoadedVQVAE, sample: SampleDir, level: int, codes: np.ndarray, n_samples: int,
        piece_seconds: float = PIECE_SECONDS,
    ) -> None:  # fmt: skip
        """Starts from scratch; `codes` (N, T) is read while it is filled."""
        self.model, self.sample, self.level, self.codes = model, sample, level, codes
        self.left = n_samples
        self.waiting = pieces(model, level, codes.shape[1], piece_seconds)
        self.begun = False

    def grow(self, done: int) -> np.ndarray:
        """Writes and returns the pieces (N, n) that depend only on the first `done` codes.

        The last one ends the file.
        """
        grown = [np.zeros((len(self.codes), 0), np.float32)]
        while self.waiting and self.waiting[0][2][1] <= done:
            piece = decode_piece(self.model, self.codes, self.level, self.waiting.pop(0))
            grown.append(piece[:, : self.left])
            self.sample.add_sound(self.level, grown[-1], anew=not self.begun)
            self.left -= grown[-1].shape[1]
            self.begun = True
            if not self.waiting:
                self.sample.finish_sound(self.level)
        return np.concatenate(grown, axis=1)
