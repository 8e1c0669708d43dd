"""What keeps a suite from running is a sentence, and the other suites run."""

import json
import shutil

import numpy as np
import orbax.checkpoint as ocp
import pytest

from data_pipeline import songs as prepared
from experiments.evaluate import suites as command
from jukejax.evaluation.results import Table
from jukejax.evaluation.subject import Suite
from jukejax.evaluation.suites import SUITES
from jukejax.model_dir import write_model_dir
from jukejax.training.checkpoint import Checkpoints, open_existing

NAMES = Suite(
    title="Names",
    about="How many label names there are.",
    measure=lambda subject: {"files": len(subject.directory.label_files)},
    tables=lambda result: [Table("Label files.", ("files",), [(str(result["files"]),)])],
    needs=("labels",),
)


@pytest.fixture
def copy(trained, tmp_path, monkeypatch):
    """A copy of the model, its songs and codes, to spoil; and a suite that needs little."""
    monkeypatch.setitem(SUITES, "names", NAMES)
    for name in ("songs", "codes", "vqvae", "model", "prior_1", "prior_2"):
        shutil.copytree(trained / name, tmp_path / name)
    return tmp_path


def evaluate(folder, capsys, *suites, model="model"):
    """(exit code or sentence, what was printed, suites with a result)."""
    paths = [f"--{name}={folder / name}" for name in ("songs", "codes")]
    out, code = folder / "out", 0
    try:
        command.main([*suites, f"--model={folder / model}", *paths, f"--out={out}"])
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().out, sorted(path.stem for path in out.glob("*.json"))


def test_no_priors_is_nothing_to_ask_and_no_failure(copy, capsys):
    write_model_dir(copy / "bare", copy / "vqvae", {}, copy / "songs" / "labels.json")
    code, printed, found = evaluate(copy, capsys, "likelihood", "names", model="bare")
    assert (code, found) == (0, ["names"])
    assert "likelihood is left out" in printed and "names no priors" in printed


def test_a_missing_level_leaves_the_other_suites(copy, capsys):
    shutil.rmtree(copy / "prior_1")
    code, _, found = evaluate(copy, capsys, "labels", "names", "likelihood")
    assert found == ["labels", "names"]  # the maps are of the level that is there
    assert (
        "likelihood could not run" in code and "prior_1" in code and "is not a training run" in code
    )


def test_codes_of_another_vqvae_leave_what_needs_none(copy, capsys):
    info = copy / "codes" / "codes.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fingerprint": "another"}))
    code, printed, found = evaluate(copy, capsys, "likelihood", "names")
    assert found == ["names"]
    assert "likelihood could not run" in code and "codes of VQ-VAE another" in code
    shutil.rmtree(copy / "vqvae")
    code, printed, found = evaluate(copy, capsys, "likelihood", "names")
    assert "not computed again" in printed and "vqvae is not a training run" in code


def test_no_codes_and_no_data(copy, capsys):
    (copy / "codes" / "songs.jsonl").rename(copy / "codes" / "hidden")
    code, _, found = evaluate(copy, capsys, "names", "likelihood")
    assert found == ["names"] and "is not a prepared data set" in code
    (copy / "songs" / "songs.jsonl").unlink()
    code, _, _ = evaluate(copy, capsys, "reconstruction")
    assert "is not a" in code
    out = copy / "only"
    command.main(["names", "likelihood", f"--model={copy / 'model'}", f"--out={out}"])
    assert "likelihood is left out: This needs codes" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"Nothing was evaluated: This needs codes"):
        command.main(["likelihood", "reconstruction", f"--model={copy / 'model'}", f"--out={out}"])
    (copy / "songs" / "labels.json").unlink()
    code, _, _ = evaluate(copy, capsys, "names")
    assert "labels.json" in code and "is not there" in code


def keep_songs(folder, wanted):
    """Leaves the songs of which `wanted` holds, as if the others had never been prepared."""
    for name in ("songs", "codes"):
        rows = [song for song in prepared.prepared_songs(folder / name) if wanted(song)]
        prepared.write_songs(folder / name, rows)


def test_an_empty_data_set(copy, capsys):
    keep_songs(copy, lambda song: False)
    code, _, found = evaluate(copy, capsys, "reconstruction", "likelihood")
    assert not found and "reconstruction, likelihood could not run" in code
    assert "no songs in the split" in code


@pytest.mark.slow
def test_one_held_out_song_has_no_intervals_and_borrows_from_training_songs(copy, capsys):
    keep_songs(copy, lambda song: song.id != "d")
    code, printed, found = evaluate(copy, capsys, "likelihood")
    assert (code, found) == (0, ["likelihood"])
    levels = json.loads((copy / "out" / "likelihood.json").read_text())["result"]["levels"]
    assert [row["songs"] for row in levels] == [1, 1]
    assert [row["interval"] for row in levels] == [None, None]
    borrowed = [one for one in levels[1]["conditions"] if one["name"].startswith("another")]
    assert {one["split"] for one in borrowed} == {"test", "train"}
    assert all(one["lent_by_training_songs"] == (one["split"] == "test") for one in borrowed)
    assert "nan" not in printed


def test_a_checkpoint_of_nan(copy, capsys):
    with open_existing(copy / "prior_2") as checkpoints:
        folder = checkpoints.path / "2" / "ema"
        note = checkpoints.config()
    with ocp.PyTreeCheckpointer() as reader:
        weights = reader.restore(folder)
    shutil.rmtree(copy / "prior_2")
    spoilt = {"ema": weights | {"position": np.full_like(weights["position"], np.nan)}}
    with Checkpoints(copy / "prior_2") as checkpoints:
        checkpoints.save(2, spoilt, note)
    code, _, found = evaluate(copy, capsys, "likelihood", "names")
    assert found == ["names"]
    assert "level 2" in code and "not finite" in code
