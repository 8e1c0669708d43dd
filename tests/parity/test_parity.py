"""Exported directories in transformers: the same codes, sound and logits as ours.

JUKEJAX_PARITY_PYTHON names the Python of an environment with the requirements beside this file;
`make test-parity` makes it. Of the port only the forward pass is compared, its sampling is not the
published one.
"""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from openai_files import write

from experiments import convert as command
from jukejax.config import (
    LabelsConfig,
    LyricsConfig,
    MeshConfig,
    PriorConfig,
    UpperConfig,
    VQVAEConfig,
)
from jukejax.interop import huggingface, openai_settings
from jukejax.model_dir import load_vqvae, read_model_dir
from jukejax.models import vqvae
from jukejax.models.prior import Prior
from jukejax.parallel.mesh import make_mesh

PYTHON = os.environ.get("JUKEJAX_PARITY_PYTHON")
GOLDEN = os.environ.get("JUKEJAX_GOLDEN")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(
        not PYTHON, reason="JUKEJAX_PARITY_PYTHON names no Python; make test-parity"
    ),
]

VQVAE = VQVAEConfig(multipliers=(2, 1, 1), width=8, depth=2, emb_width=8, codes=64)
LABELS = LabelsConfig(
    artists=7, genres=5, max_genres=3, timing_bins=16, min_seconds=1, max_seconds=9
)
BASE = PriorConfig(
    codes=64, n_ctx=64, width=32, heads=2, blocks=8, depth=6, attn_ratio=0.5, labels=LABELS
)
UPPER = UpperConfig(width=16, depth=3, dilation_cycle=2)
UPSAMPLERS = {
    1: replace(BASE, level=1, hop=32, upper=replace(UPPER, scale_residual=True)),
    0: replace(BASE, level=0, hop=8, upper=UPPER),
}
LYRICS = LyricsConfig(tokens=32, width=16, depth=4, heads=2, blocks=4, init_scale=1.0)
MODELS = {
    "5b": {2: replace(BASE, tied_output=False)} | UPSAMPLERS,
    "5b_lyrics": {
        2: replace(BASE, attn_order=10, depth=30, tied_output=False, lyrics=LYRICS)
    } | UPSAMPLERS,
    "1b_lyrics": {
        2: replace(
            BASE, attn_order=12, depth=48,
            labels=replace(LABELS, artists=9, max_genres=1),
            lyrics=replace(LYRICS, prefix=True, alphabet="v3"),
        )
    } | UPSAMPLERS,
    "no_labels": {2: replace(BASE, labels=None, scale_residual=True)},
}  # fmt: skip
GOLDEN_PRIORS = {name: f"{name}/prior_level_2" for name in ("5b", "5b_lyrics", "1b_lyrics")}


def assert_within(case, error, limit):
    print(f"{case}: {error:.3g} (limit {limit:g})")
    assert error <= limit, case


def random_files(name, folder):
    """Random models as OpenAI's files, and names for labels."""
    hps = openai_settings.vqvae_settings(VQVAE, 1024)
    paths = [write(folder / "vqvae.pth.tar", VQVAE, hps, 0, scale=0.15)]
    for level, config in MODELS[name].items():
        hps = openai_settings.prior_settings(config)
        path = folder / f"prior_level_{level}.pth.tar"
        paths.append(write(path, config, hps, 1 + level, scale=0.2))
    return paths, id_files(name, folder) if MODELS[name][2].labels else []


def id_files(name, folder):
    """Names for labels, of both rules where the top prior has the other one."""
    top, more = MODELS[name][2].labels, []
    sizes = {"v2": LABELS.artists} | ({"v3": top.artists} if top.max_genres == 1 else {})
    for rule, artists in sizes.items():
        space = "_" if rule == "v2" else " "
        singers = ["", f"artist{space}one", f"artist{space}two", *map(str, range(3, artists))]
        files = folder / f"{rule}_artists", folder / f"{rule}_genres"
        for file, names in zip(files, (singers, ["", "rock", "pop", "folk", "jazz"]), strict=True):
            file.write_text("".join(f"{name};{i}\n" for i, name in enumerate(names)))
        more += [f"--{rule}-ids", *files]
    return more


def golden_files(name):
    """The reference's small checkpoints; all stacks share the VQ-VAE and the upsamplers."""
    shared = ("5b/vqvae", "5b/prior_level_0", "5b/prior_level_1", f"{name}/prior_level_2")
    return [Path(GOLDEN) / "openai" / f"{path}.pth.tar" for path in shared], []


class Compared:
    """A model of ours, its directory, and what transformers made of that."""

    def __init__(self, folder, paths, more):
        arguments = ["--vqvae", paths[0], "--prior", *paths[1:], "--out", folder / "model", *more]
        command.main(["import", "--format", "openai", *map(str, arguments)])
        arguments = ["--model", folder / "model", "--out", folder / "directory"]
        command.main(["export", "--format", "huggingface", *map(str, arguments)])
        self.folder, self.directory = folder, folder / "directory"
        model, mesh = read_model_dir(folder / "model"), make_mesh(MeshConfig())
        self.vqvae = load_vqvae(model.vqvae, mesh)
        levels = sorted(model.priors, reverse=True)
        self.priors = [model.load_prior(mesh, self.vqvae, level) for level in levels]
        self.inputs = self._inputs()
        np.savez(folder / "inputs.npz", **self.inputs)
        script = Path(__file__).with_name("run_transformers.py")
        run = [PYTHON, script, self.directory, folder / "inputs.npz", folder]
        subprocess.run(list(map(str, run)), check=True)
        self.found = np.load(folder / "found.npz")
        self.facts = json.loads((folder / "facts.json").read_text())

    def _inputs(self):
        """Two items of everything, at random."""
        rng = np.random.default_rng(0)
        config = self.vqvae.config
        loud = rng.uniform(-10, 10, (2, 4096, 1))  # so that random weights use many codes
        out = {"audio": loud.astype(np.float32)}
        for level, hop in enumerate(config.hops):
            out[f"z_{level}"] = rng.integers(config.codes, size=(2, 4096 // hop))
        for i, prior in enumerate(self.priors):
            p = prior.config
            out[f"codes_{i}"] = rng.integers(p.codes, size=(2, p.n_ctx))
            if p.upper:
                out[f"upper_{i}"] = rng.integers(p.codes, size=(2, p.n_ctx // p.upper.ratio))
            if p.labels:
                out[f"metadata_{i}"] = self._metadata(rng, p)
        return out

    def _metadata(self, rng, p):
        labels, low = p.labels, max(p.labels.min_seconds * p.sample_rate, p.window_samples)
        total = rng.integers(low, 1.5 * low, size=2)
        offset = rng.integers(total - p.window_samples + 1)
        genres = rng.integers(labels.genres, size=(2, labels.max_genres))
        genres[1, 1:] = -1
        columns = [
            total,
            offset,
            np.full(2, p.window_samples),
            rng.integers(labels.artists, size=2),
        ]
        rows = [np.stack(columns, axis=1), genres]
        if p.lyrics:
            rows.append(rng.integers(p.lyrics.vocabulary, size=(2, p.lyrics.tokens)))
        return np.concatenate(rows, axis=1).astype(np.int64)

    def logits(self, i):
        """Ours, of prior i from the top."""
        p, batch = self.priors[i].config, {"codes": self.inputs[f"codes_{i}"]}
        if p.upper:
            batch["upper"] = self.inputs[f"upper_{i}"]
        if p.labels:
            y = self.inputs[f"metadata_{i}"]
            words = 4 + p.labels.max_genres
            batch |= {"total_length": y[:, 0], "offset": y[:, 1], "artist": y[:, 3]}
            batch |= {"genres": y[:, 4:words]} | ({"lyrics": y[:, words:]} if p.lyrics else {})
        batch = {name: jnp.asarray(array, jnp.int32) for name, array in batch.items()}
        return np.asarray(Prior(p).apply({"params": self.priors[i].params}, batch)[0])


CASES = [("random", name) for name in MODELS]
CASES += [("golden", name) for name in ("5b", "5b_lyrics", "1b_lyrics")] if GOLDEN else []


@pytest.fixture(scope="module", params=CASES, ids=" ".join)
def compared(request, tmp_path_factory):
    kind, name = request.param
    folder = tmp_path_factory.mktemp(kind)
    files = random_files(name, folder) if kind == "random" else golden_files(name)
    return Compared(folder, *files)


def test_nothing_is_left_over_or_made_up(compared):
    names = ("missing_keys", "unexpected_keys", "mismatched_keys")
    assert {name: compared.facts[name] for name in names} == {name: [] for name in names}


def test_logits(compared):
    """Of the whole model, and of each prior made by its own entry of config.json alone.

    Layers' matrices that are stored as float16, as in the random models, stay so in transformers;
    the port casts them when it uses them.
    """
    for i, prior in enumerate(compared.priors):
        ours = compared.logits(i)
        assert ours.std() > 0.1
        for name in (f"logits_{i}", f"logits_alone_{i}"):
            error = np.abs(ours - compared.found[name]).max()
            assert_within(f"level {prior.config.level} {name}", error, 2e-4)


def test_codes_and_sound(compared):
    model = compared.vqvae
    audio = jnp.asarray(compared.inputs["audio"])
    for level in range(model.config.levels):
        codes = vqvae.encode(model.config, model.params, model.books, audio, level)
        assert len(np.unique(codes)) > 10
        wrong = (np.asarray(codes) != compared.found[f"encoded_{level}"]).sum()
        assert_within(f"level {level}: of {codes.size} codes, differ", wrong, 0)
        z = jnp.asarray(compared.inputs[f"z_{level}"], jnp.int32)
        sound = vqvae.decode(model.config, model.params, model.books, z, level)
        error = np.abs(np.asarray(sound) - compared.found[f"decoded_{level}"]).max()
        assert_within(f"level {level} sound", error, 1e-5)


def test_what_transformers_saves_is_imported(compared):
    """Its own spelling of config.json, and shards of PyTorch's format."""
    saved = compared.folder / "saved"
    assert (
        len(list(saved.glob("*.bin"))) > 1
        and "prior_config_list" in (saved / "config.json").read_text()
    )
    before, after = (huggingface.open_directory(f).models for f in (compared.directory, saved))
    for a, b in zip(before, after, strict=True):
        assert a.file.tensors.keys() == b.file.tensors.keys()
        for name, tensor in a.file.tensors.items():
            assert tensor.read().tobytes() == b.file.tensors[name].read().tobytes(), name
    most = max((p.config.labels.max_genres for p in compared.priors if p.config.labels), default=0)
    for a, b in zip(before[1:], after[1:], strict=True):
        wanted = a.experiment.model
        if wanted.labels:  # the port gives all priors the most
            wanted = replace(wanted, labels=replace(wanted.labels, max_genres=most))
        assert b.experiment.model == wanted


def test_label_names_get_the_same_ids(compared):
    if "tokens" not in compared.facts:
        assert not (compared.directory / "artists.json").exists()
        return
    assert len(compared.facts["tokens"]) == len(compared.priors)
    for row in compared.facts["tokens"]:
        assert row[3] == 2 and row[4] == 1
