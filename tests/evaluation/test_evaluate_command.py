"""The command from songs to results, and what keeps it from giving one."""

import contextlib
import io
import json
import os
import shutil

import numpy as np
import pytest

from data_pipeline.code_loader import code_token_counts
from data_pipeline.codes import read_song_codes
from data_pipeline.labels import Vocabulary
from experiments.evaluate import command, subject
from jukejax.checkpoint import Checkpoints
from jukejax.config import MeshConfig
from jukejax.evaluation import report
from jukejax.model_dir import load_vqvae, read_model_dir, write_model_dir
from jukejax.models import prior
from jukejax.parallel.mesh import make_mesh


def arguments(folder, suite, out, model="model"):
    paths = {"model": model, "songs": "songs", "codes": "codes"}
    return [suite, *(f"--{k}={folder / v}" for k, v in paths.items()), f"--out={out}", "--json"]


@pytest.fixture(scope="module")
def evaluated(trained):
    """(folder of results, what the command printed)."""
    out, printed = trained / "evaluation", io.StringIO()
    with contextlib.redirect_stdout(printed):
        command.main(arguments(trained, "all", out))
    return out, printed.getvalue()


def test_the_command_writes_prints_and_does_not_compute_again(trained, evaluated, capsys):
    out, first = evaluated
    results = json.loads(first.splitlines()[-1])
    rebuilt, bits = results["reconstruction"], results["likelihood"]["levels"]
    assert (rebuilt["songs"], rebuilt["silent"], len(rebuilt["levels"])) == (2, 0, 3)
    assert [row["level"] for row in bits] == [2, 1]
    assert [row["windows"] for row in bits] == [2 * (313 // 16), 2 * (1252 // 16)]
    assert bits[0]["covered"] == (313 // 16) * 16 / 313
    for name in ("reconstruction", "likelihood"):
        written = json.loads((out / f"{name}.json").read_text())
        assert written["result"] == results[name]
        assert written["source"]["vqvae"]["step"] == 2
    command.main(arguments(trained, "all", out))
    second = capsys.readouterr().out
    assert second.count("not computed again") == 2 and "not computed again" not in first
    assert json.loads(second.splitlines()[-1]) == results
    (trained / "codes" / "songs.jsonl").touch()  # its content counts, not its time
    command.main(arguments(trained, "reconstruction", out))
    assert "not computed again" in capsys.readouterr().out


def test_each_level_reads_its_own_label_names(trained, evaluated, tmp_path, capsys):
    Vocabulary.build([], []).save(tmp_path / "none.json")
    runs = {level: trained / f"prior_{level}" for level in (1, 2)}
    names = {1: trained / "songs" / "labels.json", 2: tmp_path / "none.json"}
    write_model_dir(tmp_path / "model", trained / "vqvae", runs, names)
    command.main(arguments(trained, "likelihood", tmp_path, tmp_path / "model"))
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["likelihood"]["levels"]
    before = json.loads((evaluated[0] / "likelihood.json").read_text())["result"]["levels"]
    assert found[0]["bits_per_token"] != before[0]["bits_per_token"]  # the top one has labels
    assert found[1]["bits_per_token"] == before[1]["bits_per_token"]


def test_the_command_measures_what_the_library_says(trained, evaluated):
    out = evaluated[0]
    rows = json.loads((out / "likelihood.json").read_text())["result"]["levels"]
    mesh = make_mesh(MeshConfig())
    found = read_model_dir(trained / "model")
    model = found.load_prior(mesh, load_vqvae(found.vqvae, mesh), 1)
    codes, labels = {}, {}
    for song in ("c", "d"):
        levels = read_song_codes(trained / "codes", song)
        labels[song] = len(levels[1]) // 16
        codes[song] = [levels[i][: labels[song] * n] for i, n in ((1, 16), (2, 4))]
    batch = {
        "codes": np.concatenate([c[0].reshape(-1, 16) for c in codes.values()]).astype(np.int32),
        "upper": np.concatenate([c[1].reshape(-1, 4) for c in codes.values()]).astype(np.int32),
    }
    direct = np.asarray(prior.token_bits(model.config, model.params, batch)["music"], np.float64)
    assert rows[1]["bits_per_token"] == pytest.approx(direct.mean(), rel=1e-5)
    tokens = code_token_counts(trained / "codes", "train", 1, 16)
    unigram = (tokens + 1) / (tokens.sum() + 16)
    wanted = -np.log2(unigram[batch["codes"]]).mean()
    assert rows[1]["unigram_bits_per_token"] == pytest.approx(wanted)
    used = json.loads((out / "reconstruction.json").read_text())["result"]["levels"][1]["used"]
    tokens = tokens + code_token_counts(trained / "codes", "test", 1, 16)
    assert used == np.mean(tokens > 0)


def test_a_result_holds_for_its_source_alone(tmp_path):
    source = {"priors": {"2": {"step": 5}}, "hops": (8, 32)}
    assert report.read_result(tmp_path, "x", source) is None
    path = report.write_result(tmp_path, "x", source, {"bits": 1.5})
    assert report.read_result(tmp_path, "x", source) == {"bits": 1.5}
    assert report.read_result(tmp_path, "x", source | {"hops": (8,)}) is None
    with pytest.raises(ValueError, match="JSON"):
        report.write_result(tmp_path, "x", source, {"bits": float("nan")})
    assert report.read_result(tmp_path, "x", source) == {"bits": 1.5}
    path.write_text(path.read_text()[:40])
    assert report.read_result(tmp_path, "x", source) is None


def test_a_copy_of_a_run_is_the_same_source_and_another_run_or_step_is_not(trained, tmp_path):
    before = subject.checkpoint_mark(trained / "prior_1")
    shutil.copytree(trained / "prior_1", tmp_path / "prior_1")
    os.utime(tmp_path / "prior_1" / "checkpoints" / "2", (1e9, 1e9))
    assert subject.checkpoint_mark(tmp_path / "prior_1") == before
    assert before == {"run": "run of level 1", "step": 2}
    with Checkpoints(tmp_path / "prior_1") as checkpoints:
        checkpoints.save(3, {"ema": {"a": np.zeros(1)}}, checkpoints.config())
    assert subject.checkpoint_mark(tmp_path / "prior_1") == before | {"step": 3}
    assert subject.checkpoint_mark(trained / "prior_2")["run"] != before["run"]


def exits(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    capsys.readouterr()
    return str(stop.value.code)


def test_what_cannot_be_evaluated_is_one_sentence(trained, tmp_path, capsys):
    assert "names no priors" in exits(
        arguments(trained, "likelihood", tmp_path, "no_priors"), capsys
    )
    assert "reconstruction, likelihood, generation, all" in exits(
        arguments(trained, "x", tmp_path), capsys
    )
    other = tmp_path / "other"
    for name in ("songs", "codes", "vqvae", "model", "prior_1", "prior_2"):
        shutil.copytree(trained / name, other / name)
    info = other / "codes" / "codes.json"
    value = json.loads(info.read_text())
    info.write_text(json.dumps(value | {"fingerprint": "another"}))
    found = exits(arguments(other, "all", tmp_path), capsys)
    assert "codes of VQ-VAE another" in found and "encode" in found
    info.write_text(json.dumps(value))
    for name in ("songs", "codes"):
        path = other / name / "songs.jsonl"
        rows = [line for line in path.read_text().splitlines() if '"split": "test"' not in line]
        path.write_text("\n".join(rows) + "\n")
    for suite in ("reconstruction", "likelihood"):
        assert "no songs in the split 'test'" in exits(arguments(other, suite, tmp_path), capsys)
    assert not list(tmp_path.glob("*.json"))
