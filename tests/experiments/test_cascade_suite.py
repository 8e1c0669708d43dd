"""The suite `cascade` on songs of a tiny model: what was drawn is likeliest as it was drawn."""

import json

import numpy as np
import pytest
import tiny_model
from tiny_model import codes, sample

from experiments.evaluate import suites as command
from jukejax.config import MeshConfig
from jukejax.errors import CheckpointError
from jukejax.evaluation import cascade
from jukejax.sampling.plan import Window

pytestmark = pytest.mark.usefixtures("quick")
DRAWN = {"seconds": 0.0751, "count": 4, "temperature": (1.0,) * 3, "hop_fraction": (0.5,) * 3}
LABELS = {"a": ("ella", "jazz"), "b": ("elvis", "soul")}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Weights so small that it draws this or that, and not always the same."""
    return tiny_model.write(tmp_path_factory.mktemp("model"), scale=0.3)


@pytest.fixture(scope="module")
def songs(model, tmp_path_factory):
    """Four songs each of two artists, at all levels."""
    folder = tmp_path_factory.mktemp("songs")
    return [
        sample(folder / name, model=model, artist=artist, genre=(genre,), seed=seed, **DRAWN)
        for seed, (name, (artist, genre)) in enumerate(LABELS.items())
    ]


def evaluate(model, out, songs, **mesh):
    asked = command.Evaluation(
        ("cascade",), model, out, samples=tuple(songs), mesh=MeshConfig(**mesh)
    )
    return command.run(asked)["cascade"]


@pytest.mark.slow
def test_what_a_prior_drew_is_likeliest_under_what_it_drew_it_by(model, songs, tmp_path, capsys):
    found = evaluate(model, tmp_path / "one", songs)
    upsampler = {"shuffled codes", "another song's upper codes"}
    wanted = {2: {"shuffled codes"}, 1: upsampler, 0: upsampler}
    assert [row["level"] for row in found["levels"]] == [2, 1, 0]
    for row in found["levels"]:
        # every token once, in the window that made it
        assert row["tokens"] == 8 * codes(songs[0], row["level"]).shape[1]
        assert row["songs"] == 8
        rows = {one["name"]: one for one in row["conditions"]}
        assert row["level"] < 2 or {"another song's labels", "unknown labels"} <= set(rows)
        for name in wanted[row["level"]]:
            assert rows[name]["interval"][0] > 0, (row["level"], name)
            assert rows[name]["songs"] == 8
    assert "the model's own samples" in capsys.readouterr().out
    split = evaluate(model, tmp_path / "split", songs, fsdp=4, tensor=2)
    for a, b in zip(found["levels"], split["levels"], strict=True):
        for one, other in zip(a["conditions"], b["conditions"], strict=True):
            assert other["bits_per_token"] == pytest.approx(one["bits_per_token"], abs=1e-4)


def test_windows_hold_the_songs_and_count_what_they_made():
    made = np.arange(1, 29, dtype=np.int32).reshape(2, 14)
    windows = (Window(0, 0, 8), Window(4, 8, 12), Window(6, 12, 14))

    class Setup:
        config = type("Config", (), {"n_ctx": 8, "hop": 4, "upper": None})
        plan = type("Plan", (), {"windows": windows})

        @staticmethod
        def conditions(offset):
            return {"who": np.array([7, 9]), "offset": np.full(2, offset)}

    found = cascade.made_windows(Setup, made, None, 10)
    assert found["codes"].tolist() == [row[a : a + 8].tolist() for a in (0, 4, 6) for row in made]
    assert found["who"].tolist() == [7, 9] * 3 and found["song"].tolist() == [0, 1] * 3
    assert found["offset"].tolist() == [0, 0, 16, 16, 24, 24]
    counted = [[1] * 8, [0] * 4 + [1] * 4, [0] * 6 + [1] * 2]
    assert found["counted"].astype(int).tolist() == [row for row in counted for _ in made]
    few = cascade.made_windows(Setup, made, None, 2)
    assert few["offset"].tolist() == [0, 0, 16, 16]


@pytest.mark.slow
def test_samples_of_other_weights_are_refused(model, songs, tmp_path):
    record = json.loads((songs[0] / "job.json").read_text())
    record["levels"][0]["weights"] = "VQ-VAE 0, run 1 step 2"
    (tmp_path / "job.json").write_text(json.dumps(record))
    for level in (0, 1, 2):
        (tmp_path / f"level_{level}").symlink_to(songs[0] / f"level_{level}")
    with pytest.raises(CheckpointError, match="was made with VQ-VAE 0, run 1 step 2, but"):
        evaluate(model, tmp_path / "out", [tmp_path])
