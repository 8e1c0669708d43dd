"""Spectral convergence, SI-SDR and codebook use of songs rebuilt by a VQ-VAE.

Songs are decoded from their codes in windows that overlap by the decoder's receptive field, so the
numbers are those of decoding each song at once, in memory that does not grow with its length (but
for its codes, 2 bytes each). T codes, n samples, F frames, K codes of a codebook.

Spectral convergence (paper section 3.3) is 20 log10(||S| - |S'|| / ||S||) dB over all frames and
bins of a song, lower is better; silence in place of a song gives 0 dB by definition. SI-SDR is the
scale-invariant ratio of signal to distortion (Le Roux et al. 2019, without removing means), higher
is better. The decoded sound is not clipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jukejax.errors import CheckpointError
from jukejax.model_dir import LoadedRenderer, LoadedVQVAE
from jukejax.models import spectral
from jukejax.sampling import sound

Sound = NDArray[np.float32]
Decoder = Callable[[NDArray[Any]], Iterator[Sound]]

LIMIT_DB = 120.0  # reported for a perfect (or orthogonal) reconstruction, in place of infinity
_FRAMES = 512  # frames of spectrum computed at once
_, _HOP, _WINDOW = spectral.PLAIN
_MARGIN = _WINDOW // 2  # samples by which the first and last frames extend beyond the song


@dataclass(frozen=True)
class Song:
    """A held-out song: its sound, read on demand, and its codes."""

    id: str
    n_samples: int
    audio: Callable[[int, int], Sound]  # (start, stop) -> (stop - start,) mean downmix in [-1, 1)
    codes: Sequence[NDArray[Any]]  # by level, (T,) of the song padded to whole blocks


# --- decoding -------------------------------------------------------------------------------------


def decode_pieces(
    model: LoadedVQVAE,
    level: int,
    codes: NDArray[Any],
    samples: int = 262_144,
    renderer: LoadedRenderer | None = None,
) -> Iterator[Sound]:
    """A whole song's sound from its codes (T,) of a level, in consecutive pieces (n,) float32.

    Args:
      samples: of a piece; more where a sample depends on more codes.
      renderer: makes the sound, where it is of the level.
    """
    rate = model.config.sample_rate
    decoder = sound.decoder(model, level, samples / rate, renderer)
    context = 2 * decoder.reach * decoder.hop
    if context > samples:
        decoder = sound.decoder(model, level, context / rate, renderer)
    return (piece[0] for piece in decoder(codes[None]))


# --- spectra of songs, block by block -------------------------------------------------------------


def reflected(pieces: Iterable[Sound], margin: int) -> Iterator[Sound]:
    """Pieces (C, n) of a signal -> pieces of the same with `margin` reflected samples on each side.

    Concatenated they are np.pad(signal, margin, "reflect") along the last axis.
    """
    rest, begun = np.zeros((0, 0), np.float32), False
    for piece in pieces:
        rest = np.concatenate([rest, piece], axis=1) if rest.size else piece
        if rest.shape[1] <= margin + 1:
            continue
        if not begun:
            yield rest[:, margin:0:-1]
            begun = True
        yield rest[:, : -(margin + 1)]
        rest = rest[:, -(margin + 1) :]
    if begun:
        yield rest
        yield rest[:, -2::-1]
    elif rest.size:
        yield np.pad(rest, ((0, 0), (margin, margin)), mode="reflect")


def _blocks(pieces: Iterable[Sound]) -> Iterator[tuple[Sound, int]]:
    """Pieces (2, n) of a padded signal -> blocks of `_FRAMES` consecutive frames.

    A block is (2, (_FRAMES - 1) * hop + window), the last one padded with zeros; the number is that
    of its frames without padding.
    """
    step, size = _FRAMES * _HOP, (_FRAMES - 1) * _HOP + _WINDOW
    rest = np.zeros((2, 0), np.float32)
    for piece in pieces:
        rest = np.concatenate([rest, piece], axis=1)
        while rest.shape[1] >= size:
            yield rest[:, :size], _FRAMES
            rest = rest[:, step:]
    frames = max(0, 1 + (rest.shape[1] - _WINDOW) // _HOP)
    if frames:
        yield np.pad(rest, ((0, 0), (0, size - rest.shape[1]))), frames


@jax.jit
def _frame_energies(block: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Energies |S|^2 and (|S| - |S'|)^2 per frame (F,) of a block (2, n): song, reconstruction."""
    magnitudes = spectral.magnitudes(block, *spectral.PLAIN)
    first = _MARGIN // _HOP  # frames before it extend beyond the block
    target, rebuilt = magnitudes[:, first : first + _FRAMES]
    return jnp.sum(target**2, -1), jnp.sum((target - rebuilt) ** 2, -1)


class Sums(NamedTuple):
    """Sums over a song that its figures are computed from; x the song, y its reconstruction."""

    spectrum: float  # of |S|^2
    error: float  # of (|S| - |S'|)^2
    xx: float
    xy: float
    yy: float


def song_sums(pairs: Iterable[Sound]) -> Sums:
    """The sums of a song in pieces (2, n) float32: rows are the song and its reconstruction."""
    products = np.zeros(3)

    def watched() -> Iterator[Sound]:
        for pair in pairs:
            x, y = pair.astype(np.float64)
            products[:] += x @ x, x @ y, y @ y
            yield pair

    spectrum = error = 0.0
    for block, frames in _blocks(reflected(watched(), _MARGIN)):
        target, gap = _frame_energies(block)
        spectrum += float(np.asarray(target, np.float64)[:frames].sum())
        error += float(np.asarray(gap, np.float64)[:frames].sum())
    return Sums(spectrum, error, *products.tolist())


def _decibels(ratio_of: float, to: float) -> float:
    """10 log10(a / b) of two energies, clipped to LIMIT_DB."""
    if min(ratio_of, to) <= 0:
        return LIMIT_DB if ratio_of > to else -LIMIT_DB
    return min(LIMIT_DB, max(-LIMIT_DB, 10 * math.log10(ratio_of / to)))


def convergence_db(sums: Sums) -> float:
    """Spectral convergence of a song that is not silent, in dB."""
    return _decibels(sums.error, sums.spectrum)


def si_sdr_db(sums: Sums) -> float:
    """Scale-invariant signal-to-distortion ratio of a song that is not silent, in dB."""
    signal = sums.xy**2 / sums.xx  # energy of y along x
    return _decibels(signal, sums.yy - signal)


# --- the suite ------------------------------------------------------------------------------------


def _pairs(song: Song, pieces: Iterable[Sound]) -> Iterator[Sound]:
    """Pieces (2, n) of a song and its reconstruction, without the padding at its end."""
    done = 0
    for piece in pieces:
        stop = min(song.n_samples, done + len(piece))
        if stop > done:
            yield np.stack([song.audio(done, stop), piece[: stop - done]])
        done = stop


def evaluate(decoders: Sequence[Decoder], songs: Iterable[Song]) -> dict[str, Any]:
    """Figures of each level, means over songs, and of each song.

    Args:
      decoders: by level, codes (T,) -> pieces of their sound.
      songs: the held-out songs.

    Returns:
      "levels": per level `spectral_convergence_db` and `si_sdr_db`; "songs" measured; "silent"
      songs left out; "samples" measured; "by_song": per song its id and both figures by level.

    Raises:
      CheckpointError: a reconstruction is not finite, or every song is silent.
    """
    rows: list[dict[str, Any]] = []
    silent = samples = 0
    for song in songs:
        row: dict[str, Any] = {"id": song.id, "spectral_convergence_db": [], "si_sdr_db": []}
        for level, decoder in enumerate(decoders):
            sums = song_sums(_pairs(song, decoder(song.codes[level])))
            if sums.xx == 0:
                silent += 1
                break
            if not all(map(math.isfinite, sums)):
                raise CheckpointError(
                    f"Level {level} of the VQ-VAE decodes song {song.id!r} to numbers that are "
                    "not finite: its weights are damaged or its training diverged; go back to an "
                    "earlier checkpoint."
                )
            row["spectral_convergence_db"].append(convergence_db(sums))
            row["si_sdr_db"].append(si_sdr_db(sums))
        else:
            rows.append(row)
            samples += song.n_samples
    if not rows:
        raise CheckpointError(
            f"All of the {silent} held-out songs are silent, so nothing can be measured on them; "
            "prepare others."
        )
    names = ("spectral_convergence_db", "si_sdr_db")
    levels = [
        {"level": level, **{n: float(np.mean([r[n][level] for r in rows])) for n in names}}
        for level in range(len(decoders))
    ]
    counts = {"songs": len(rows), "silent": silent, "samples": samples}
    return {"levels": levels, **counts, "by_song": rows}


def codebook_use(counts: NDArray[np.integer]) -> dict[str, float]:
    """The part of codes that occur, entropy and perplexity, from counts (K,) of each code.

    Returns:
      "used" in [0, 1], "entropy_bits" in [0, log2 K], "perplexity" in [1, K].
    """
    p = counts[counts > 0] / max(1, counts.sum())
    entropy = abs(float(-(p * np.log2(p)).sum()))
    return {
        "used": float(np.mean(counts > 0)),
        "entropy_bits": entropy,
        "perplexity": 2.0**entropy,
    }
