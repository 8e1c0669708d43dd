"""Reads the reference's files and arrays the way the tests of both sets need them.

The files hold random weights; the arrays beside them are what the reference computes with them.
"""

import functools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import windows

from jukejax.config import VQVAEConfig, VQVAEExperiment
from jukejax.interop import importing, openai, torch_files
from jukejax.models.prior import Prior, prior_loss
from jukejax.sampling.decode import last_token, music, prefill, step
from jukejax.sampling.draw import Control

SMALL = Path(__file__).parent / "data"
FOLDER = Path(os.environ.get("JUKEJAX_GOLDEN") or "unset")
GOLDEN = [
    pytest.mark.golden,
    pytest.mark.skipif(
        not os.environ.get("JUKEJAX_GOLDEN"),
        reason="JUKEJAX_GOLDEN does not name the folder of the reference's files",
    ),
]
PRIORS = {
    "up0": "5b/prior_level_0",
    "up1": "5b/prior_level_1",
    "5b": "5b/prior_level_2",
    "5b_lyrics": "5b_lyrics/prior_level_2",
    "1b_lyrics": "1b_lyrics/prior_level_2",
    "order0": "extra/prior_order0",
    "order8": "extra/prior_order8",
    "nolabels": "extra/prior_nolabels",
}
TAGS = {
    "greedy": (0, 1e-6),  # as good as the largest logit
    "uniform": (0, 0.99),
    "primed_uniform": (40, 0.99),
    "primed_end": (200, 1.3),
}  # given tokens, temperature

TABLE = []  # (case, error, limit), printed at the end of the run


def assert_within(case, error, limit):
    """Notes an error and asserts that it is within its limit."""
    TABLE.append((case, float(error), limit))
    assert error <= limit, f"{case}: {error} > {limit}"


def arrays(name):
    return np.load(FOLDER / "npz" / f"{name}.npz")


def open_vqvae(path):
    """Config, parameters and codebooks of a VQ-VAE's file."""
    opened = importing.open_vqvae(torch_files.read(path))
    params, extra = importing.vqvae_trees(opened)
    return opened.experiment.model, openai.as_float32(params), extra.books


@functools.cache
def published_vqvae():
    """Config, parameters and codebooks of the file with the published settings."""
    return open_vqvae(FOLDER / "openai/5b/vqvae.pth.tar")


def open_prior(path):
    """Config and parameters of a prior's file, over a VQ-VAE of the published hops."""
    opened = importing.open_prior(torch_files.read(path), VQVAEExperiment(VQVAEConfig()))
    return opened.experiment.model, openai.as_float32(importing.prior_params(opened))


def batch(config, z, y=None, z_cond=None):
    """Our batch from the reference's tokens, label rows and tokens above."""
    out = {"codes": jnp.asarray(z, jnp.int32)}
    if config.upper:
        out["upper"] = jnp.asarray(z_cond, jnp.int32)
    if config.labels:
        y = jnp.asarray(np.asarray(y), jnp.int32)
        words = 4 + config.labels.max_genres
        out |= {"total_length": y[:, 0], "offset": y[:, 1], "artist": y[:, 3]}
        out["genres"] = y[:, 4:words]
        if config.lyrics:
            out["lyrics"] = y[:, words:]
    return out


def optional(data, name):
    return data[name] if name in data.files else None


def check_forward(case, config, params, data):
    """Logits at the recorded positions, and the losses."""
    inputs = batch(config, data["z"], optional(data, "y"), optional(data, "z_cond"))
    logits, _ = Prior(config).apply({"params": params}, inputs)
    error = np.abs(np.asarray(logits)[:, data["forward/pos"]] - data["forward/logits_at_pos"]).max()
    assert_within(f"{case} logits", error, 2e-4)
    loss, metrics = prior_loss(config, params, inputs)
    pairs = {"loss": loss, "gen_loss": metrics["bits_music"]}
    if "bits_lyrics" in metrics:
        pairs["prime_loss"] = metrics["bits_lyrics"]
    for name, value in pairs.items():
        assert_within(
            f"{case} {name}", abs(float(value) / float(data[f"forward/{name}"]) - 1), 1e-5
        )


def check_steps(case, config, params, data, tags=tuple(TAGS)):
    """Logits with caches: as recorded, and as the whole window at once gives them."""
    run = jax.jit(step, static_argnums=0)
    for tag in tags:
        given, temperature = TAGS[tag]
        temperature = 1.0 if tag == "greedy" else temperature  # recorded after the division
        z, n = data[f"sample/{tag}/z"], config.prefix_len
        codes = np.zeros((len(z), config.n_ctx), np.int32)
        codes[:, : z.shape[1]] = z
        raw = optional(data, f"sample/{tag}/raw_tokens")
        if raw is not None:  # ids as drawn: it goes on from a lyric character that z shows as 0
            codes[:, given : z.shape[1]] = raw - (config.vocabulary - config.codes)
        inputs = batch(config, codes, optional(data, "y"), optional(data, "z_cond"))
        whole = np.asarray(Prior(config).apply({"params": params}, inputs)[0])
        stream = jax.jit(prefill, static_argnums=0)(config, params, inputs, jnp.asarray(given))
        cached = []
        for p in range(n + given, n + z.shape[1]):
            at = jnp.asarray(p)
            logits, caches = run(config, params, stream, last_token(stream, at), at)
            cached.append(np.asarray(logits))
            stream = stream._replace(caches=caches)
        cached = np.stack(cached, 1)
        gap = np.abs(cached - whole[:, n + given : n + z.shape[1]]).max()
        assert_within(f"{case} {tag}: cached - teacher-forced logits", gap, 1e-4)
        wanted = data[f"sample/{tag}/logits_at_steps"] * temperature
        found = cached[:, data[f"sample/{tag}/steps"]]
        assert_within(f"{case} {tag}: logits at steps", np.abs(found - wanted).max(), 2e-4)


def check_samples(case, config, params, data, tags=tuple(TAGS)):
    """Sampling with caches draws the recorded tokens from the recorded uniforms."""
    for tag in tags:
        given, temperature = TAGS[tag]
        z, u = data[f"sample/{tag}/z"], data[f"sample/{tag}/u"]
        stop = z.shape[1]
        codes = np.zeros((len(z), config.n_ctx), np.int32)
        codes[:, :given] = z[:, :given]
        inputs = batch(config, codes, optional(data, "y"), optional(data, "z_cond"))
        uniforms = np.zeros((len(z), config.n_ctx), np.float32)
        uniforms[:, given:stop] = np.nan_to_num(u, nan=0.5)  # greedy has none
        control = Control(jnp.float32(temperature))
        stream = windows.filled(config, params, inputs, uniforms, given, stop, control)
        wrong = (np.asarray(music(config, stream))[:, :stop] != z).sum()
        assert_within(f"{case} {tag}: tokens that differ", wrong, 0)
