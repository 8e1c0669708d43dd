"""A model directory of three levels with random weights, and what the command makes with it."""

import dataclasses
import functools

import numpy as np
import oracle
from jax.sharding import Mesh

import jukejax
from experiments.sample import Command, run
from jukejax import model_dir
from jukejax.config import (
    LabelsConfig,
    MeshConfig,
    PriorConfig,
    PriorExperiment,
    UpperConfig,
    VQVAEConfig,
    VQVAEExperiment,
    to_dict,
)
from jukejax.model_dir import ModelDir, load_vqvae, write_model_dir
from jukejax.parallel.mesh import make_mesh
from jukejax.text.labels import Vocabulary, labels_digest
from jukejax.training.checkpoint import Checkpoints
from jukejax.training.step import abstract_state
from jukejax.training.tasks import make_task

RATE, HOPS, N_CTX = 8000, (4, 8, 16), 16
VQVAE = VQVAEConfig(
    sample_rate=RATE, downs=(2, 1, 1), multipliers=(1, 1, 1), width=4, depth=1, emb_width=4,
    codes=11,
)  # fmt: skip
_BASE = {
    "sample_rate": RATE, "n_ctx": N_CTX, "width": 8, "blocks": 4, "codes": 11, "heads": 2,
    "attn_ratio": 0.5,
}  # fmt: skip
TOP = PriorConfig(
    **_BASE, level=2, hop=16, depth=3, attn_order=2,
    labels=LabelsConfig(artists=3, genres=3, max_genres=2, timing_bins=5, min_seconds=0.0),
)  # fmt: skip
MIDDLE = PriorConfig(
    **_BASE, level=1, hop=8, depth=3, attn_order=2, upper=UpperConfig(ratio=2, width=4, depth=1)
)
BOTTOM = PriorConfig(
    **_BASE, level=0, hop=4, depth=3, attn_order=2, upper=UpperConfig(ratio=2, width=4, depth=1)
)


def save(workdir, experiment, note=None, scale=0.5):
    abstract = abstract_state(make_task(experiment), experiment, make_mesh(experiment.mesh))
    weights = oracle.random_params(lambda key: abstract.ema, scale=scale)
    extra = oracle.random_params(lambda key: abstract.extra)
    trees = {"params": weights, "ema": weights, "opt_state": {}, "extra": extra}
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(2, trees, {"experiment": to_dict(experiment), **(note or {})})


def write(folder, scale=0.5, **larger):
    """`folder`/model; returns it. `scale` is of the priors' weights, `larger` replaces sizes."""
    save(folder / "vqvae", VQVAEExperiment(model=VQVAE))
    mark = load_vqvae(folder / "vqvae", make_mesh(MeshConfig())).fingerprint
    names = Vocabulary.build(["Ella", "Elvis"], ["Jazz", "Soul"])
    priors = {}
    for small in (TOP, MIDDLE, BOTTOM):
        config = dataclasses.replace(small, **larger)
        priors[config.level] = folder / f"prior_{config.level}"
        experiment = PriorExperiment(model=config)
        note = {"fingerprint": mark, "labels": labels_digest(names, config.labels)}
        save(priors[config.level], experiment, note, scale)
    names.save(folder / "labels.json")
    write_model_dir(folder / "model", folder / "vqvae", priors, folder / "labels.json")
    return folder / "model"


_load_vqvae = functools.cache(load_vqvae)
_READ = {}  # by function, path, level and mesh


def read_once(patch):
    """Reads a VQ-VAE, and each level's prior, once per mesh in all tests of a process."""

    def once(function):
        known = _READ.setdefault(function.__name__, {})

        def call(self, *arguments):
            key = (self.path, arguments[-1], *(x for x in arguments if isinstance(x, Mesh)))
            if key not in known:
                known[key] = function(self, *arguments)
            return known[key]

        return call

    patch.setattr(model_dir, "load_vqvae", _load_vqvae)
    patch.setattr(ModelDir, "load_prior", once(ModelDir.load_prior))
    patch.setattr(ModelDir, "prior_config", once(ModelDir.prior_config))


def sample(out, **options):
    """Runs the command; returns `out`."""
    run(Command(out=out, **options))
    return out


def request(model, **options):
    """The model, and the request that the library makes of options."""
    loaded = jukejax.load(model)
    return loaded, loaded.request(**options)


def codes(folder, level):
    """Of a finished level."""
    with np.load(folder / f"level_{level}" / "codes.npz") as data:
        assert (data["done"] == data["codes"].shape[1]).all()
        assert (data["made"] == data["codes"].shape[1]).all()
        return data["codes"].astype(int)


def assert_same(a, b, levels=(0, 1, 2), items=None):
    """Codes and sounds of b, whose songs are these items of a, or all."""
    for level in levels:
        chosen = range(len(codes(a, level))) if items is None else items
        np.testing.assert_array_equal(codes(a, level)[list(chosen)], codes(b, level))
        for there, here in enumerate(chosen):
            files = [a / f"level_{level}" / f"item_{here}.wav"]
            files.append(b / f"level_{level}" / f"item_{there}.wav")
            assert files[0].read_bytes() == files[1].read_bytes()
