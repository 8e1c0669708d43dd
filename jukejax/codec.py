"""Sound to codes and codes to sound, for songs of any length, piece by piece.

A piece is encoded or decoded in a window that is longer on both sides by the receptive field, so
the result is that of the whole song at once. The encoder's windows all have one shape: where a
window begins before the song or ends after it, every layer's output is set to zero there
(`layers.silenced`), as the zero padding of the whole song would be, and pieces of several songs
share a batch. The decoder's windows lie inside the song.

B pieces of a batch, S samples of a window, N samples of a piece, T codes, E code width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from jukejax.config import RendererConfig, VQVAEConfig
from jukejax.errors import CheckpointError
from jukejax.models import bottleneck, renderer, vqvae
from jukejax.models.bottleneck import Codebook
from jukejax.parallel.mesh import put_batch, replicated

Codes = npt.NDArray[np.uint16]
_VECTORS = 2048  # compared with the codebook at once: their distances fit in a CPU's cache


# --- windows --------------------------------------------------------------------------------------


def encoder_reach(config: VQVAEConfig, level: int) -> int:
    """Receptive field of a code on either side of its own hop: samples, whole blocks."""
    m = config.multipliers[level]
    reach, step = 0, 1
    if config.frames:
        step = config.frames.hop
        reach = (config.frames.window - step) // 2
    for stages in config.downs[: level + 1]:
        for _ in range(stages):
            reach += step  # stride-2 convolution, kernel 4, one step of padding
            step *= 2
            reach += step * sum(config.dilation_growth**i for i in range(config.depth * m))
        reach += step  # projection, kernel 3
    return -(-reach // config.block) * config.block


def decoder_reach(config: VQVAEConfig, level: int) -> int:
    """Receptive field of a decoded sample, in codes, on either side of its own.

    A multiple of `config.groups`."""
    m = config.multipliers[level]
    block = config.hops[level] * config.groups  # samples per encoder output
    reach, step = 1, block  # the last convolution, kernel 3, in samples
    if config.frames:
        reach = config.frames.hop + (config.frames.synthesis - config.frames.hop) // 2
    for i in reversed(range(level + 1)):
        reach += step  # projection, kernel 3
        for _ in range(config.downs[i]):
            reach += step * sum(config.dilation_growth**d for d in range(config.depth * m))
            reach += step  # transposed convolution, kernel 4
            step //= 2
    return -(-reach // block) * config.groups


def renderer_reach(config: RendererConfig) -> int:
    """Receptive field of a rendered sample, in codes, on either side of its own.

    A multiple of the codes per encoder output.
    """
    step = config.hop
    blocks = sum(config.dilation_growth ** (i % config.dilation_cycle) for i in range(config.depth))
    reach = (config.synthesis - step) // 2 + step  # the inverse transform; convolution, kernel 3
    for _ in range(config.stages):
        reach += step * blocks  # residual blocks
        step *= 2
        reach += step  # transposed convolution, kernel 4
    reach += config.block * (blocks + 1)  # residual blocks; the first convolution, kernel 3
    return -(-reach // config.block) * config.vqvae.groups


class Piece(NamedTuple):
    """A window [start, stop) of a song, and the part [first, last) of the window to keep."""

    start: int
    stop: int
    first: int
    last: int


def pieces(length: int, size: int, reach: int) -> list[Piece]:
    """Windows of one size whose kept parts, concatenated, are [0, length).

    A window is `size` + 2 `reach` long, or the whole song where that is shorter. It stays inside
    the song, so the network pads the first and the last one with zeros as it pads the whole song;
    kept parts are at least `reach` away from the other borders.

    Args:
      length, size, reach: in one unit, samples or codes.
    """
    window = min(length, size + 2 * reach)
    out, done = [], 0
    while done < length:
        start = min(max(0, done - reach), length - window)
        stop = start + window
        last = length if stop == length else stop - reach
        out.append(Piece(start, stop, done - start, last - start))
        done = last
    return out


# --- codes to sound -------------------------------------------------------------------------------


_decode = jax.jit(vqvae.decode, static_argnums=(0, 4))
_render = jax.jit(renderer.render, static_argnums=0)


class Decoder:
    """Decodes the codes of one level; songs of any length share one compiled program.

    A song shorter than a window is decoded whole, which compiles a program for its length.
    """

    def __init__(
        self, config: VQVAEConfig, params: Any, books: Sequence[Codebook], level: int, samples: int
    ) -> None:
        """Args: the VQ-VAE, the level, and the samples of a piece, rounded down to whole blocks."""
        self.name = f"The VQ-VAE decodes codes of level {level}"  # in errors
        self.hop, self.reach = config.hops[level], decoder_reach(config, level)
        groups = config.groups
        self.size = max(1, samples // self.hop // groups) * groups  # codes of a piece
        model = config, params, tuple(books)
        self._sound = lambda codes: _decode(*model, codes, level)

    def pieces(self, total: int) -> list[Piece]:
        """The pieces of a song of `total` codes."""
        return pieces(total, self.size, self.reach)

    def decode(self, codes: npt.NDArray[Any], piece: Piece) -> npt.NDArray[np.float32]:
        """A piece (B, N) of the sound of codes (B, T), not clipped.

        Raises:
          CheckpointError: the sound has NaN or infinite samples.
        """
        window = codes[:, piece.start : piece.stop].astype(np.int32)
        sound = np.asarray(self._sound(window))[..., 0]
        if not np.isfinite(sound).all():
            raise CheckpointError(
                f"{self.name} to sound that is not finite: its weights are damaged, or its "
                "activations overflow. Train or import it again, or use an earlier checkpoint."
            )
        return sound[:, piece.first * self.hop : piece.last * self.hop]

    def __call__(self, codes: npt.NDArray[Any]) -> Iterator[npt.NDArray[np.float32]]:
        """The sound of codes (B, T) in consecutive pieces (B, N), not clipped."""
        return (self.decode(codes, piece) for piece in self.pieces(codes.shape[1]))


class Renderer(Decoder):
    """Renders the codes of its level, in the place of that level's decoder."""

    def __init__(self, config: RendererConfig, params: Any, book: jax.Array, samples: int) -> None:
        """Args: the renderer, the codes (G K, E) of its level, and the samples of a piece."""
        self.name = f"The renderer decodes codes of level {config.level}"
        groups, block = config.vqvae.groups, config.block
        self.hop, self.reach = block // groups, renderer_reach(config)
        self.size = max(1, samples // block) * groups
        self._sound = lambda codes: _render(config, params, book, codes)


# --- sound to codes -------------------------------------------------------------------------------


class Sound(NamedTuple):
    """A song to encode; `read(start, stop)` gives those samples (stop - start,) float32."""

    read: Callable[[int, int], npt.NDArray[np.float32]]
    n_samples: int


class Encoder:
    """Encodes songs with one compiled program, its batches spread over the devices of a mesh."""

    def __init__(
        self,
        config: VQVAEConfig,
        params: Any,
        books: Sequence[Codebook],
        mesh: Mesh,
        *,
        seconds: float,
        per_device: int = 1,
    ) -> None:
        """Puts the parameters on the devices; CheckpointError if one of them is not finite.

        Args:
          config, params, books: the VQ-VAE.
          mesh: of devices of this process only; the batch is sharded over it.
          seconds: of a piece, rounded down to whole blocks, at least one.
          per_device: pieces per device and batch.
        """
        block = config.block
        self.config = config
        self.reaches = [encoder_reach(config, level) for level in range(config.levels)]
        self.piece = max(1, int(seconds * config.sample_rate) // block) * block
        self.batch = per_device * mesh.size
        self._mesh = mesh
        whole = replicated(mesh)
        weights = jax.tree.map(np.asarray, (params, [book.codes for book in books]))
        if not all(np.isfinite(x).all() for x in jax.tree.leaves(weights)):
            raise CheckpointError(
                "The VQ-VAE has weights that are not finite, with which every sound is encoded as "
                "code 0. Train or import it again, or use an earlier checkpoint."
            )
        self._weights = jax.device_put(weights, whole)
        self._encode = jax.jit(self._program)

    @property
    def window(self) -> int:
        """Samples of a window: a piece and the receptive field on both sides."""
        return self.piece + 2 * max(self.reaches)

    def __call__(
        self,
        sounds: Sequence[Sound],
        progress: Callable[[int], object] = lambda samples: None,
    ) -> list[list[Codes]]:
        """The codes of every song by level, bottom first: (T,) uint16 each.

        A song is padded with silence to whole blocks. Which pieces share a batch depends only on
        the songs' lengths, so the same songs give the same codes, bit for bit, on the same devices.
        `progress` is called after each batch with the number of samples encoded.

        Raises:
          CheckpointError: encoder outputs or their distances to the codes overflow.
        """
        block = self.config.block
        lengths = [-(-sound.n_samples // block) * block for sound in sounds]
        out = [
            [np.empty(length // hop, np.uint16) for hop in self.config.hops] for length in lengths
        ]
        places = [
            (song, start)
            for song, length in enumerate(lengths)
            for start in range(0, length, self.piece)
        ]
        batches = [places[i : i + self.batch] for i in range(0, len(places), self.batch)]

        def read(batch: list[tuple[int, int]]) -> dict[str, npt.NDArray[Any]]:
            return self._read([(sounds[song], start) for song, start in batch])

        def keep(batch: list[tuple[int, int]], levels: list[tuple[jax.Array, jax.Array]]) -> None:
            for level, hop in enumerate(self.config.hops):
                found, finite = map(np.asarray, levels[level])
                if not finite[: len(batch)].all():
                    raise CheckpointError(
                        f"The VQ-VAE's encoder of level {level} overflows, and what overflows is "
                        "encoded as code 0: its weights are damaged or its training diverged. "
                        "Train or import it again, or use an earlier checkpoint."
                    )
                for row, (song, start) in enumerate(batch):
                    target = out[song][level][start // hop : (start + self.piece) // hop]
                    target[:] = found[row, : len(target)]
            progress(sum(min(self.piece, sounds[i].n_samples - start) for i, start in batch))

        under_way: deque[tuple[Any, Any]] = deque()
        for batch, arrays in zip(batches, _ahead(read, batches), strict=True):
            under_way.append((batch, self._encode(self._weights, put_batch(self._mesh, arrays))))
            if len(under_way) > 1:  # devices compute while the host reads and stores
                keep(*under_way.popleft())
        while under_way:
            keep(*under_way.popleft())
        return out

    def _read(self, places: list[tuple[Sound, int]]) -> dict[str, npt.NDArray[Any]]:
        """The windows of up to B pieces that start at these samples; unused rows are zeros."""
        reach, block = max(self.reaches), self.config.block
        audio = np.zeros((self.batch, self.window, 1), np.float32)
        begin, end = np.zeros((2, self.batch), np.int32)
        for row, (sound, start) in enumerate(places):
            first, last = start - reach, start + self.piece + reach
            known = max(0, first), min(last, sound.n_samples)
            audio[row, known[0] - first : known[1] - first, 0] = sound.read(*known)
            begin[row] = known[0] - first
            end[row] = min(self.window, -(-sound.n_samples // block) * block - first)
        return {"audio": audio, "begin": begin, "end": end}

    def _program(
        self, weights: Any, batch: dict[str, jax.Array]
    ) -> list[tuple[jax.Array, jax.Array]]:
        """Codes (B, N / hop) of each level, and whether all their distances are finite (B,).

        Args:
          weights: parameters, and the codes of each level.
          batch: windows (B, S, 1), and the song's begin and end in them (B,).
        """
        params, books = weights
        place = jnp.arange(self.window)[None, :, None]
        inside = (place >= batch["begin"][:, None, None]) & (place < batch["end"][:, None, None])
        codes = []
        for level, (reach, hop) in enumerate(zip(self.reaches, self.config.hops, strict=True)):
            spare = max(self.reaches) - reach  # this level's receptive field is smaller
            cut = slice(spare, self.window - spare)
            # full float32 on every device, so that codes equal those of a CPU
            with jax.default_matmul_precision("float32"):
                x = vqvae.to_vectors(
                    self.config, params, batch["audio"][:, cut], level, inside[:, cut]
                )
                step = hop * self.config.groups  # samples per encoder output
                x = x[:, reach // step : (reach + self.piece) // step]  # (B, N / step, E)
                index, distance = _nearest(books[level], x, self.config.groups)
                codes.append((index.astype(jnp.uint16), jnp.isfinite(distance).all(1)))
        return codes


def _nearest(book: jax.Array, x: jax.Array, groups: int) -> tuple[jax.Array, jax.Array]:
    """`bottleneck.assign` (B, T G) of x (B, T, E), without all distances (B, T, K) in memory."""

    def row(vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
        def find(vector: jax.Array) -> tuple[jax.Array, jax.Array]:
            found = bottleneck.assign(book, vector[None], groups)
            return found.codes, found.distance

        codes, distance = jax.lax.map(find, vectors, batch_size=min(_VECTORS, len(vectors)))
        return codes.reshape(-1), distance.reshape(-1)

    return jax.vmap(row)(x)


def _ahead(read: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """read(item) in order; the next two are read in a thread while one is used."""
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Any] = deque()
        for item in items:
            waiting.append(thread.submit(read, item))
            if len(waiting) > 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
