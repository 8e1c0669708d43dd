"""Small random files in OpenAI's layout."""

import numpy as np

from jukejax.config import VQVAEConfig
from jukejax.interop import openai, openai_settings, torch_files
from jukejax.interop.tensors import Source


def write(path, config, hps, seed, drop=(), add=(), scale=1.0):
    """A file in OpenAI's layout with random numbers, matrices of layers in float16."""
    rng = np.random.default_rng(seed)
    vq = isinstance(config, VQVAEConfig)
    entries = openai.vqvae_entries(config) if vq else openai.prior_entries(config)
    shapes = openai.expected(config, entries) | dict(add)
    sources = {}
    for name, shape in shapes.items():
        if name not in openai.shared(config) and name not in drop:
            dtype = "<f2" if name.endswith(".w") else "<f4"
            array = (scale * rng.normal(size=shape)).astype(dtype)
            sources[name] = Source(shape, dtype, lambda array=array: array)
    torch_files.write(path, sources, openai.shared(config), hps, step=40 + seed)
    return path


def write_release(folder, vqvae, priors, samples=64):
    """Files of a VQ-VAE and its priors by level, as "vqvae" and "prior_level_N"."""
    hps = openai_settings.vqvae_settings(vqvae, samples)
    paths = {"vqvae": write(folder / "vqvae.pth.tar", vqvae, hps, 9)}
    for level, config in priors.items():
        name = f"prior_level_{level}"
        hps = openai_settings.prior_settings(config)
        paths[name] = write(folder / f"{name}.pth.tar", config, hps, level)
    return paths
