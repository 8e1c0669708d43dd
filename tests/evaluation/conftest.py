"""A small model, its songs and codes, for what evaluates whole model directories."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile

from data_pipeline import prepare
from data_pipeline.codes import CodesWriter, codes_info, codes_length
from data_pipeline.plan import Options
from jukejax.checkpoint import Checkpoints
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
from jukejax.model_dir import load_vqvae, write_model_dir
from jukejax.parallel.mesh import make_mesh
from jukejax.training.step import abstract_state
from jukejax.training.tasks import make_task


def write_songs(folder):
    """Two songs to train on and two to test on."""
    rng, entries = np.random.default_rng(0), []
    splits = {"a": "train", "b": "train", "c": "test", "d": "test"}
    for name, split in splits.items():
        t = np.arange(40_001)[:, None] / 44_100
        x = 0.3 * np.sin(2 * np.pi * 440 * t) + 0.05 * rng.normal(size=(len(t), 2))
        soundfile.write(folder / f"{name}.wav", x, 44_100, subtype="PCM_16")
        entries.append({"id": name, "audio": f"{name}.wav", "artist": name, "split": split})
    manifest = folder / "songs.jsonl"
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return manifest


def save_run(workdir, experiment, oracle, note=None):
    """A checkpoint of random weights, as training for 2 steps would leave it."""
    abstract = abstract_state(make_task(experiment), experiment, make_mesh(experiment.mesh))
    trees = abstract._asdict()
    trees.pop("step")
    weights = oracle.random_params(lambda key: abstract.ema, scale=0.1)
    extra = oracle.random_params(lambda key: abstract.extra)
    trees |= {"params": weights, "ema": weights, "opt_state": {}, "extra": extra}
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(2, trees, {"experiment": to_dict(experiment), **(note or {})})


def write_codes(folder):
    """Random codes, some likelier than others, as codes of the VQ-VAE in `folder`."""
    vqvae = load_vqvae(folder / "vqvae", make_mesh(MeshConfig()))
    hops, rng = vqvae.config.hops, np.random.default_rng(7)
    writer = CodesWriter(folder / "songs", folder / "codes", hops, vqvae.fingerprint, codes=16)
    for shard in writer.pending_shards():
        encoded = []
        for song in shard.songs:
            lengths = [codes_length(song.n_samples, hop, hops[-1]) for hop in hops]
            encoded.append((song, [rng.binomial(15, 0.2, length) for length in lengths]))
        writer.write_shard(shard, encoded)
    writer.finish()


@pytest.fixture(scope="session")
def trained(tmp_path_factory, oracle):
    """A folder with songs, a random VQ-VAE, codes, two random priors, model directories."""
    folder = tmp_path_factory.mktemp("trained")
    options = Options(min_seconds=0.5)
    prepare.build(write_songs(folder), folder / "songs", options=options, show_progress=False)
    model = VQVAEConfig(width=4, depth=1, multipliers=(1, 1, 1), emb_width=4, codes=16)
    save_run(folder / "vqvae", VQVAEExperiment(model=model), oracle)
    write_codes(folder)
    small = PriorConfig(codes=16, n_ctx=16, width=8, depth=1, blocks=4, attn_ratio=1.0)
    labels = LabelsConfig(artists=3, genres=1, timing_bins=4, min_seconds=0.1)
    top = dataclasses.replace(small, labels=labels)
    middle = dataclasses.replace(small, level=1, hop=32, upper=UpperConfig(width=4, depth=1))
    fingerprint = codes_info(folder / "codes").fingerprint
    for config in (top, middle):
        run = folder / f"prior_{config.level}"
        note = {"fingerprint": fingerprint, "run": f"run of level {config.level}"}
        save_run(run, PriorExperiment(model=config), oracle, note)
    labels_file = folder / "songs" / "labels.json"
    runs = {level: folder / f"prior_{level}" for level in (1, 2)}
    write_model_dir(folder / "model", folder / "vqvae", runs, labels_file)
    write_model_dir(folder / "no_priors", folder / "vqvae", {}, labels_file)
    return folder
