"""musicnn (Pons & Serra 2019), a music tagger, in JAX: embeddings and tags of 3-second patches.

Weights are read from the pinned wheel (ISC licence). Sound is mean downmix at 16 kHz; the front end
is a mel spectrogram of power, 96 bands, compressed as log10(1 + 10000 x), in float32 throughout
(the package's float16 overflows on loud bass). B patches, T = 187 frames, F = 96 bands.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from jukejax.config import ConfigError
from jukejax.evaluation import tf_checkpoint
from jukejax.evaluation.embedding import Embedded
from jukejax.evaluation.wheels import MUSICNN
from jukejax.models.spectral import mel_filters

RATE, FFT, HOP, BANDS, FRAMES = 16_000, 512, 256, 96, 187
_BATCH = 8
TAGS = {
    "MTT": "guitar,classical,slow,techno,strings,drums,electronic,rock,fast,piano,ambient,beat,"
    "violin,vocal,synth,female,indian,opera,male,singing,vocals,no vocals,harpsichord,loud,quiet,"
    "flute,woman,male vocal,no vocal,pop,soft,sitar,solo,man,classic,choir,voice,new age,dance,"
    "male voice,female vocal,beats,harp,cello,no voice,weird,country,metal,female voice,choral",
    "MSD": "rock,pop,alternative,indie,electronic,female vocalists,dance,00s,alternative rock,jazz,"
    "beautiful,metal,chillout,male vocalists,classic rock,soul,indie rock,Mellow,electronica,80s,"
    "folk,90s,chill,instrumental,punk,oldies,blues,hard rock,ambient,acoustic,experimental,"
    "female vocalist,guitar,Hip-Hop,70s,party,country,easy listening,sexy,catchy,funk,electro,"
    "heavy metal,Progressive rock,60s,rnb,indie pop,sad,House,happy",
}
Params = dict[str, jax.Array]


# --- front end ------------------------------------------------------------------------------------


def features(sound: NDArray[Any], rate: int) -> NDArray[np.float32]:
    """Log-mel spectrogram (frames, F) of a mono sound (S,) of any rate, reflected at its ends."""
    import soxr

    sound = soxr.resample(np.asarray(sound, np.float32), rate, RATE)
    if len(sound) <= FFT // 2:
        return np.zeros((0, BANDS), np.float32)
    padded = np.pad(sound, FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP]
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)).astype(np.float32)
    filters = mel_filters(RATE, FFT, BANDS).T.astype(np.float32)
    out = np.empty((len(frames), BANDS), np.float32)
    for i in range(0, len(frames), 4096):
        power = np.abs(np.fft.rfft(frames[i : i + 4096] * window)).astype(np.float32) ** 2
        out[i : i + 4096] = np.log10(1.0 + 10_000.0 * (power @ filters))
    return out


def patches(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Consecutive complete patches (B, T, F) of a spectrogram; the remainder is dropped."""
    count = len(frames) // FRAMES
    return frames[: count * FRAMES].reshape(count, FRAMES, BANDS)


# --- the network ----------------------------------------------------------------------------------


def _norm(p: Params, i: int, x: jax.Array) -> jax.Array:
    """Batch normalisation with the moving averages of training, channels last."""
    name = f"batch_normalization{f'_{i}' if i else ''}"
    scale = p[f"{name}/gamma"] / jnp.sqrt(p[f"{name}/moving_variance"] + 1e-3)
    return (x - p[f"{name}/moving_mean"]) * scale + p[f"{name}/beta"]


def _conv(p: Params, i: int, x: jax.Array, padding: Any) -> jax.Array:
    """Convolution i and its rectifier on x (B, T, F, C)."""
    name = f"conv2d{f'_{i}' if i else ''}"
    layout = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(x, p[f"{name}/kernel"], (1, 1), padding, dimension_numbers=layout)
    return jax.nn.relu(y + p[f"{name}/bias"])


def _dense(p: Params, name: str, x: jax.Array) -> jax.Array:
    return x @ p[f"{name}/kernel"] + p[f"{name}/bias"]


def network(p: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Patches (B, T, F) -> embedding (B, 200), before the last layer, and logits of tags (B, 50).

    Timbre (7 frames by many bands) and tempo (many frames by one band), maximum over frequency;
    three layers over time with residual connections; maximum and mean over time; two dense layers.
    """
    with jax.default_matmul_precision("highest"):
        x = _norm(p, 0, x[..., None])
        time = ((3, 3), (0, 0))
        front = [_norm(p, i + 1, _conv(p, i, x, time if i < 2 else "SAME")) for i in range(5)]
        h = jnp.concatenate([jnp.max(part, axis=2) for part in front], axis=-1)  # (B, T, 561)
        layers = [h]
        for i in (5, 6, 7):
            out = _norm(p, i + 1, _conv(p, i, layers[-1][..., None], time))[:, :, 0]
            layers.append(out + layers[-1] if i > 5 else out)
        h = jnp.concatenate(layers, axis=-1)  # (B, T, 753)
        pooled = jnp.stack([jnp.max(h, axis=1), jnp.mean(h, axis=1)], axis=-1)
        h = _norm(p, 9, pooled.reshape(len(x), -1))
        embedding = _norm(p, 10, jax.nn.relu(_dense(p, "dense", h)))
        return embedding, _dense(p, "dense_1", embedding)


def load_weights(kind: str) -> Params:
    """The weights of a released model, "MTT" (MagnaTagATune) or "MSD" (Million Song Dataset)."""
    folder = f"musicnn/{kind}_musicnn"
    index, data = (MUSICNN.read(f"{folder}/.{x}") for x in ("index", "data-00000-of-00001"))
    tensors = tf_checkpoint.read(index, data)
    return {k: jnp.asarray(v) for k, v in tensors.items() if "Adam" not in k}


class Musicnn:
    """An `Embedder`; NotFetched where the weights cannot be downloaded."""

    seconds = FRAMES * HOP / RATE

    def __init__(self, kind: str = "MTT") -> None:
        if kind not in TAGS:
            raise ConfigError(f"There is no musicnn {kind!r}; choose MTT or MSD.")
        self.name, self.tags = f"musicnn {kind}", tuple(TAGS[kind].split(","))
        self.params = load_weights(kind)
        self.run = jax.jit(network)

    def __call__(self, sound: NDArray[Any], sample_rate: int) -> Embedded:
        """Embeddings and tag probabilities of a sound's complete patches of 3 s."""
        return self.embed(patches(features(sound, sample_rate)))

    def embed(self, x: NDArray[np.float32]) -> Embedded:
        """As `__call__`, of patches (B, T, F)."""
        vectors, tags = [np.zeros((0, 200), np.float32)], [np.zeros((0, 50), np.float32)]
        for i in range(0, len(x), _BATCH):
            part = x[i : i + _BATCH]
            padded = np.pad(part, ((0, _BATCH - len(part)), (0, 0), (0, 0)))
            embedding, logits = self.run(self.params, padded)
            vectors.append(np.asarray(embedding)[: len(part)])
            tags.append(np.asarray(jax.nn.sigmoid(logits))[: len(part)])
        return Embedded(np.concatenate(vectors), np.concatenate(tags))
