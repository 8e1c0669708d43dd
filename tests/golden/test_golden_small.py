"""The small part of the reference's files: a two-level VQ-VAE and a prior without labels."""

import jax.numpy as jnp
import numpy as np
from reference import SMALL, assert_within, check_forward, check_samples, open_prior, open_vqvae

from jukejax.models import vqvae


def test_vqvae_gives_the_reference_codes_and_sound():
    config, params, books = open_vqvae(SMALL / "vqvae_small.pth.tar")
    data = np.load(SMALL / "vqvae_small.npz")
    for level in range(config.levels):
        z = vqvae.encode(config, params, books, jnp.asarray(data["audio"]), level)
        differ = (np.asarray(z) != data[f"z_{level}"]) & (data[f"z_margin_{level}"] >= 1e-4)
        assert_within(f"vqvae_small codes {level} that differ", differ.sum(), 0)
        codes = jnp.asarray(data[f"z_{level}"], jnp.int32)
        sound = vqvae.decode(config, params, books, codes, level)
        wanted = data[f"dec_{level}"]
        error = np.abs(np.asarray(sound)[:, : wanted.shape[1]] - wanted).max()
        assert_within(f"vqvae_small sound {level}", error, 1e-5)


def test_prior_gives_the_reference_logits_losses_and_samples():
    config, params = open_prior(SMALL / "prior_nolabels.pth.tar")
    data = np.load(SMALL / "prior_nolabels.npz")
    check_forward("nolabels (small set)", config, params, data)
    check_samples("nolabels (small set)", config, params, data)
