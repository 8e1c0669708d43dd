"""Between sound and codes: a prompt's codes, and a song's sound piece by piece."""

from __future__ import annotations

import math
from pathlib import Path

import jax
import numpy as np

from data_pipeline import audio
from jukejax.codec import Encoder, Sound
from jukejax.config import ConfigError, MeshConfig
from jukejax.model_dir import LoadedVQVAE
from jukejax.models import vqvae
from jukejax.parallel.mesh import make_mesh
from jukejax.sampling.sample_dir import SampleDir

PIECE_SECONDS = 4  # decoded at once, beside the overlap

_decode = jax.jit(vqvae.decode, static_argnums=(0, 4))


def prompt_codes(model: LoadedVQVAE, path: Path, seconds: float) -> list[np.ndarray]:
    """Codes (n,) a level, bottom first, of the first seconds of a file (0: of all of it).

    The mean of its channels at the model's rate, cut to whole top codes: lower levels are primed
    with true codes too.

    Raises:
      DataError: the file is no sound, or is silent.
      ConfigError: it is shorter than asked for, or than one top code.
    """
    rate, top = model.config.sample_rate, model.config.hops[-1]
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"prompt_seconds is {seconds}; it must be 0 (all) or more.")
    blocks = audio.decode(path, min_seconds=max(seconds, top / rate), sample_rate=rate)
    pcm = np.concatenate([block.mean(1, dtype=np.float32) / 32768.0 for block in blocks])
    wanted = round(seconds * rate) if seconds else len(pcm)
    n_samples = min(wanted, len(pcm)) // top * top
    if not n_samples:
        raise ConfigError(
            f"prompt_seconds is {seconds}; one code of the top level is {top} samples."
        )
    encode = Encoder(
        model.config, model.params, model.books, make_mesh(MeshConfig(), jax.local_devices()[:1]),
        seconds=PIECE_SECONDS,
    )  # fmt: skip
    return encode([Sound(lambda start, stop: pcm[start:stop], n_samples)])[0]


Piece = tuple[int, int, tuple[int, int]]  # of codes [start, stop) decoded, [first, last) counts


def pieces(model: LoadedVQVAE, level: int, total: int) -> list[Piece]:
    """How a song of `total` codes is decoded: windows overlap by what a sample depends on."""
    reach = vqvae.decoder_reach(model.config, level)
    size = max(1, round(PIECE_SECONDS * model.config.sample_rate) // model.config.hops[level])
    return vqvae.piecewise(lambda start, stop: (start, stop), total, size, reach)


def decode_piece(model: LoadedVQVAE, codes: np.ndarray, level: int, piece: Piece) -> np.ndarray:
    """A piece (N, n) float32 of the sound of codes (N, T), clipped."""
    first, last, (start, stop) = piece
    hop, window = model.config.hops[level], codes[:, start:stop].astype(np.int32)
    part = np.asarray(_decode(model.config, model.params, model.books, window, level))
    return np.clip(part[:, first * hop : last * hop, 0], -1.0, 1.0)


class GrowingSounds:
    """The sounds of a level, written while its codes are made, in memory for one piece."""

    def __init__(
        self, model: LoadedVQVAE, sample: SampleDir, level: int, codes: np.ndarray, n_samples: int
    ) -> None:
        """Begins anew; `codes` (N, T) is read as it is filled."""
        self.model, self.sample, self.level, self.codes = model, sample, level, codes
        self.left = n_samples
        self.waiting = pieces(model, level, codes.shape[1])
        self.begun = False

    def grow(self, done: int) -> None:
        """Writes the pieces for which the first `done` codes are enough; the last ends the file."""
        while self.waiting and self.waiting[0][2][1] <= done:
            piece = decode_piece(self.model, self.codes, self.level, self.waiting.pop(0))
            self.sample.add_sound(self.level, piece[:, : self.left], anew=not self.begun)
            self.left -= min(self.left, piece.shape[1])
            self.begun = True
            if not self.waiting:
                self.sample.finish_sound(self.level)
