"""Between sound and codes: a prompt's codes, and a song's sound piece by piece."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from data_pipeline import audio
from jukejax.config import ConfigError, MeshConfig
from jukejax.model_dir import LoadedVQVAE
from jukejax.models import vqvae
from jukejax.models.encoding import Encoder, Sound
from jukejax.parallel.mesh import make_mesh

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


def decode(model: LoadedVQVAE, codes: np.ndarray, level: int) -> Iterator[np.ndarray]:
    """Codes (N, T) of a level -> audio in consecutive pieces (N, n) float32, clipped; exactly.

    The pieces are the decoded whole's: windows overlap by what a sample depends on.
    """
    hop = model.config.hops[level]
    reach = vqvae.decoder_reach(model.config, level)
    piece = max(1, PIECE_SECONDS * model.config.sample_rate // hop)
    plan = vqvae.piecewise(lambda start, stop: (start, stop), codes.shape[1], piece, reach)
    for first, last, (start, stop) in plan:
        window = codes[:, start:stop].astype(np.int32)
        part = np.asarray(_decode(model.config, model.params, model.books, window, level))
        yield np.clip(part[:, first * hop : last * hop, 0], -1.0, 1.0)
