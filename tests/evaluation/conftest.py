"""Small models with their songs and codes; sample directories and reconstructions as the commands
write them, with made-up sound."""

import dataclasses
import json

import numpy as np
import oracle
import pytest
import soundfile

from data_pipeline import prepare
from data_pipeline.codes import CodesWriter, codes_info, codes_length
from data_pipeline.plan import Options
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
from jukejax.training.checkpoint import Checkpoints
from jukejax.training.step import abstract_state
from jukejax.training.tasks import make_task

RATE = 44_100
SECONDS = 4.0
LYRICS = "Oh my darling,\noh my darling,\r\nClemen\x00tine\x1b"
WORDS = [  # text, seconds, characters
    ["Oh", 0.5, 1.0, 0, 2],
    ["my", 1.0, 1.5, 3, 5],
    ["darling", 1.5, 2.5, 6, 13],
    ["Clemen\x00tine", 3.0, 3.9, 31, 42],
]


def tone(hertz, amplitude=0.1, seconds=SECONDS):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)


@pytest.fixture(scope="session")
def make_samples():
    """make(folder, songs, step): a sample directory of three levels, at 1, 2 and 3 * 220 Hz."""

    def make(folder, songs, step=220, model="runs/demo/model", aligned=False):
        names = {2: "top", 1: "middle", 0: "bottom"}
        items = [{"artist": a, "genres": g, "lyrics": LYRICS} for a, g in songs]
        job = {
            "title": "Songs",
            "model": model,
            "seed": 1,
            "seconds": SECONDS,
            "items": items,
            "levels": [
                {"level": n, "name": name, "weights": f"VQ-VAE 0, run 1 step {step}"}
                for n, name in names.items()
            ],
            "request": {"items": items, "seed": 1},
        }
        folder.mkdir(parents=True)
        (folder / "job.json").write_text(json.dumps(job))
        for level in names:
            (folder / f"level_{level}").mkdir()
            for item in range(len(songs)):
                sound = tone(220 * (level + 1), 0.1 * (level + 1))
                soundfile.write(folder / f"level_{level}" / f"item_{item}.wav", sound, RATE)
        if aligned:
            weights = np.eye(40, len(LYRICS), dtype=np.float16) + np.float16(0.01)
            starts = np.arange(40, dtype=np.float32) / 10
            found = {"weights": weights, "seconds": starts, "layer": 3, "head": 1}
            np.savez(folder / "level_2/item_0.alignment.npz", **found)
            (folder / "level_2/item_0.words.json").write_text(json.dumps(WORDS))
        return folder

    return make


@pytest.fixture(scope="session")
def make_reconstructions():
    """make(folder): the sounds of an evaluation, of two songs."""

    def make(folder, model="runs/demo/model"):
        sounds = folder / "sounds"
        sounds.mkdir(parents=True)
        items = []
        for name, hertz in (("clementine", 330), ("cavern", 440)):
            for index, version in enumerate(("original", "0", "1", "2")):
                sound = tone(hertz, 0.05 * (index + 1))
                soundfile.write(sounds / f"{name}_{version}.wav", sound, RATE)
            items.append(
                {
                    "id": name,
                    "artist": "Flite RMS",
                    "genres": ["parlour song"],
                    "lyrics": "In a cavern, in a canyon",
                    "words": [["in", 0.5, 1.0], ["a", 1.0, 1.5], ["IN", 2.0, 2.5]],
                    "seconds": SECONDS,
                    "original": f"{name}_original.wav",
                    "levels": {level: f"{name}_{level}.wav" for level in "012"},
                }
            )
        found = {"model": model, "step": 100, "items": items}
        (sounds / "sounds.json").write_text(json.dumps(found))
        return folder

    return make


@pytest.fixture(scope="session")
def runs(tmp_path_factory, make_samples, make_reconstructions):
    """Two runs of the same two songs and the reconstructions of two."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jukejax.evaluation.pages.player.FRAMES", 40)
        songs = [("The Lanterns", ["jazz"]), ("<b>Söns</b> & Co", ["rock metal", "pop"])]
        make_samples(folder / "first", songs, aligned=True)
        make_samples(folder / "deep" / "second", songs, step=440, model="other")
        make_reconstructions(folder / "evaluation")
        yield folder


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


def save_run(workdir, experiment, note=None):
    """A checkpoint of random weights, as training for 2 steps would leave it."""
    abstract = abstract_state(make_task(experiment), experiment, make_mesh(experiment.mesh))
    trees = abstract._asdict()
    trees.pop("step")
    weights = oracle.random_params(lambda key: abstract.ema, scale=0.1)
    extra = oracle.random_params(lambda key: abstract.extra)
    trees |= {"params": weights, "ema": weights, "opt_state": {}, "extra": extra}
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(2, trees, {"experiment": to_dict(experiment), **(note or {})})


@pytest.fixture(scope="session")
def make_run():
    """make_run(workdir, experiment, note=...): `save_run`."""
    return save_run


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
def trained(tmp_path_factory):
    """A folder with songs, a random VQ-VAE, codes, two random priors, model directories."""
    folder = tmp_path_factory.mktemp("trained")
    options = Options(min_seconds=0.5)
    prepare.build(write_songs(folder), folder / "songs", options=options, show_progress=False)
    model = VQVAEConfig(width=4, depth=1, multipliers=(1, 1, 1), emb_width=4, codes=16)
    save_run(folder / "vqvae", VQVAEExperiment(model=model))
    write_codes(folder)
    small = PriorConfig(codes=16, n_ctx=16, width=8, depth=1, blocks=4, attn_ratio=1.0)
    labels = LabelsConfig(artists=5, genres=1, timing_bins=4, min_seconds=0.1)
    top = dataclasses.replace(small, labels=labels)
    middle = dataclasses.replace(small, level=1, hop=32, upper=UpperConfig(width=4, depth=1))
    fingerprint = codes_info(folder / "codes").fingerprint
    for config in (top, middle):
        run = folder / f"prior_{config.level}"
        note = {"fingerprint": fingerprint, "run": f"run of level {config.level}"}
        save_run(run, PriorExperiment(model=config), note)
    labels_file = folder / "songs" / "labels.json"
    runs = {level: folder / f"prior_{level}" for level in (1, 2)}
    write_model_dir(folder / "model", folder / "vqvae", runs, labels_file)
    write_model_dir(folder / "no_priors", folder / "vqvae", {}, labels_file)
    return folder


@pytest.fixture(scope="session")
def tell_songs():
    """tell(songs, codes, hops, fingerprint): of a and c codes 0 to 3, of the others 12 to 15."""

    def tell(songs, codes, hops, fingerprint):
        rng = np.random.default_rng(3)
        writer = CodesWriter(songs, codes, hops, fingerprint, codes=16)
        for shard in writer.pending_shards():
            encoded = []
            for song in shard.songs:
                first = 0 if song.id in "ac" else 12
                lengths = [codes_length(song.n_samples, hop, hops[-1]) for hop in hops]
                encoded.append((song, [rng.integers(first, first + 4, n) for n in lengths]))
            writer.write_shard(shard, encoded)
        writer.finish()

    return tell
