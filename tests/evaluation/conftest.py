"""Sample directories and reconstructions as the commands write them, with made-up sound."""

import json

import numpy as np
import pytest
import soundfile

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
        patch.setattr("jukejax.evaluation.player.FRAMES", 40)
        songs = [("The Lanterns", ["jazz"]), ("<b>Söns</b> & Co", ["rock metal", "pop"])]
        make_samples(folder / "first", songs, aligned=True)
        make_samples(folder / "deep" / "second", songs, step=440, model="other")
        make_reconstructions(folder / "evaluation")
        yield folder
