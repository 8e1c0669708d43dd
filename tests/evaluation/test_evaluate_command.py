"""The command from songs to results, and what keeps it from giving one."""

import base64
import contextlib
import dataclasses
import io
import json
import os
import re
import shutil

import numpy as np
import pytest

from data_pipeline.code_loader import code_token_counts
from data_pipeline.codes import read_song_codes
from data_pipeline.songs import prepared_songs
from experiments import encode
from experiments.evaluate import suites as command
from experiments.training import Training, train
from jukejax import locks
from jukejax.config import ConfigError, MeshConfig, TrainConfig
from jukejax.errors import CheckpointError
from jukejax.evaluation import excerpts, results, scoring, subject
from jukejax.evaluation import likelihood as suite
from jukejax.evaluation.comparison import compare_directories
from jukejax.evaluation.suites import SUITES
from jukejax.model_dir import load_vqvae, read_model_dir, write_model_dir
from jukejax.models import prior
from jukejax.parallel.mesh import make_mesh
from jukejax.text.labels import Vocabulary
from jukejax.training.checkpoint import Checkpoints, load_experiment
from jukejax.training.metrics import read_metrics


def arguments(folder, suite, out, model="model"):
    paths = {"model": model, "songs": "songs", "codes": "codes"}
    return [
        *suite.split(),
        *(f"--{k}={folder / v}" for k, v in paths.items()),
        f"--out={out}",
        "--json",
    ]


@pytest.fixture(scope="module")
def evaluated(trained):
    """(folder of results, what the command printed)."""
    out, printed = trained / "evaluation", io.StringIO()
    with contextlib.redirect_stdout(printed):
        command.main(arguments(trained, "reconstruction likelihood", out))
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
    command.main(arguments(trained, "reconstruction likelihood", out))
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
    assert results.read_result(tmp_path, "x", source) is None
    path = results.write_result(tmp_path, "x", source, {"bits": 1.5})
    assert results.read_result(tmp_path, "x", source) == {"bits": 1.5}
    assert results.read_result(tmp_path, "x", source | {"hops": (8,)}) is None
    with pytest.raises(ValueError, match="JSON"):
        results.write_result(tmp_path, "x", source, {"bits": float("nan")})
    assert results.read_result(tmp_path, "x", source) == {"bits": 1.5}
    path.write_text(path.read_text()[:40])
    assert results.read_result(tmp_path, "x", source) is None


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


@pytest.mark.slow
def test_an_interrupted_suite_goes_on_where_it_was(trained, evaluated, tmp_path, monkeypatch):
    calls, make = [0], scoring.make_scorer

    def counting_scorer(most):
        def maker(*args):
            scorer = make(*args)

            def count(batch):
                calls[0] += 1
                if calls[0] > most:
                    raise KeyboardInterrupt
                return scorer(batch)

            return count

        return maker

    monkeypatch.setattr(suite, "KEPT_BATCHES", 2)
    wanted = json.loads((evaluated[0] / "likelihood.json").read_text())["result"]
    paths = {name: trained / name for name in ("model", "songs", "codes")}
    asked = command.Evaluation(("likelihood",), out=tmp_path, **paths)
    monkeypatch.setattr(scoring, "make_scorer", counting_scorer(9))
    with pytest.raises(KeyboardInterrupt):
        command.run(asked)
    monkeypatch.setattr(scoring, "make_scorer", counting_scorer(10**9))
    calls[0] = 0
    command.run(asked)
    again = calls[0]
    found = json.loads((tmp_path / "likelihood.json").read_text())["result"]
    assert not list(tmp_path.glob(".*.partial.json"))
    for row, true in zip(found["levels"], wanted["levels"], strict=True):
        assert row["bits_per_token"] == pytest.approx(true["bits_per_token"], rel=1e-9)
        for one, other in zip(row["conditions"], true["conditions"], strict=True):
            assert one["difference"] == pytest.approx(other["difference"], rel=1e-6, abs=1e-9)
    calls[0] = 0
    command.run(dataclasses.replace(asked, out=tmp_path / "anew"))
    assert calls[0] == again + 5  # batches of the top level; of its conditions nothing was whole


@pytest.mark.slow
def test_suites_run_while_a_prior_trains(trained, tmp_path):
    experiment, _ = load_experiment(trained / "prior_1")
    settings = TrainConfig(steps=5, batch=8, evaluate_every=1, evaluate_batches=1)
    experiment = dataclasses.replace(experiment, train=settings)
    run = tmp_path / "run"
    training = Training(
        trained / "codes", run, experiment,
        evaluate=("likelihood", "reconstruction"), evaluate_every=3,
    )  # fmt: skip
    train(training, lambda line: None)
    name = "likelihood/level_1_bits_per_token"
    rows = {row["step"]: row[name] for row in read_metrics(run / "metrics.jsonl") if name in row}
    assert list(rows) == [3, 5]
    write_model_dir(tmp_path / "model", trained / "vqvae", {1: run}, {})
    command.main(arguments(trained, "likelihood", tmp_path / "after", tmp_path / "model"))
    after = json.loads((tmp_path / "after" / "likelihood.json").read_text())["result"]
    assert after["levels"][0]["bits_per_token"] == pytest.approx(rows[5], rel=1e-6)
    folders = [run / "evaluation" / f"step_{step}" for step in (3, 5)]
    assert all((folder / "index.html").exists() for folder in folders)
    (row,) = compare_directories((*folders, tmp_path / "nothing"), tmp_path / "both")
    assert row["suite"] == "likelihood" and row["scores"][0]["songs"] == 2
    assert row["scores"][0]["second"] == pytest.approx(rows[5])
    page = (tmp_path / "both" / "index.html").read_text()
    assert "paired bootstrap" in page and "level 1: bits per token" in page


@pytest.mark.slow
def test_reconstruction_runs_while_a_vqvae_trains(trained, tmp_path, monkeypatch):
    def no_excerpts(*args):
        raise subject.Lacking("Excerpts take long, and have tests of their own.")

    monkeypatch.setattr(excerpts, "measure", no_excerpts)
    experiment, _ = load_experiment(trained / "vqvae")
    settings = TrainConfig(steps=2, batch=8, ema_decay=0.5, evaluate_every=2, evaluate_batches=1)
    mesh = MeshConfig(data=4, fsdp=2)
    model = dataclasses.replace(experiment.model, downs=(3, 2), multipliers=(1, 1))
    more = {"model": model, "samples": 2048, "train": settings, "mesh": mesh}
    experiment = dataclasses.replace(experiment, **more)
    run, lines, songs = tmp_path / "run", [], trained / "songs"
    suites = ("likelihood", "reconstruction")
    train(Training(songs, run, experiment, evaluate=suites, evaluate_every=2), lines.append)
    (line,) = [line for line in lines if "left out" in line]
    assert "likelihood" in line and "names no priors" in line
    (codes,) = (run / "evaluation" / "step_2").glob("codes_*")
    assert [song.id for song in prepared_songs(codes)] == ["c", "d"]  # no training songs
    found = json.loads((codes.parent / "reconstruction.json").read_text())["result"]
    for level, row in enumerate(found["levels"]):
        both = np.concatenate([read_song_codes(codes, song)[level] for song in ("c", "d")])
        assert row["used"] == len(set(both.tolist())) / 16

    write_model_dir(tmp_path / "model", run, {}, songs / "labels.json")
    encode.run(encode.Command(vqvae=run, data=songs, out=tmp_path / "codes", piece_seconds=0.5))
    paths = {"model": tmp_path / "model", "songs": songs, "codes": tmp_path / "codes"}
    asked = command.Evaluation(("reconstruction",), out=tmp_path / "after", **paths)
    after = command.run(asked)["reconstruction"]
    titles = [SUITES["reconstruction"].tables(x)[0].title for x in (found, after)]
    assert "are of the held-out songs alone." in titles[0]
    assert "are of all songs, training songs too." in titles[1]
    for song in ("c", "d"):
        pairs = zip(*(read_song_codes(x, song) for x in (codes, tmp_path / "codes")), strict=True)
        assert all(np.array_equal(one, other) for one, other in pairs)
    metrics = {k: v for row in read_metrics(run / "metrics.jsonl") for k, v in row.items()}
    for level, row in enumerate(after["levels"]):
        for name, key in (("SC_dB", "spectral_convergence_db"), ("SI_SDR_dB", "si_sdr_db")):
            score = metrics[f"reconstruction/level_{level}_{name}"]
            assert score == pytest.approx(row[key], rel=1e-6)


def test_what_cannot_be_compared_is_a_sentence(evaluated, tmp_path):
    with pytest.raises(ConfigError, match="two or more"):
        compare_directories((evaluated[0],), None)
    with pytest.raises(CheckpointError, match="No suite has a result"):
        compare_directories((evaluated[0], tmp_path), None)
    other = json.loads((evaluated[0] / "likelihood.json").read_text())
    other["source"]["vqvae"]["fingerprint"] = "another"
    (tmp_path / "likelihood.json").write_text(json.dumps(other))
    (row,) = compare_directories((evaluated[0], tmp_path), None)
    assert "another vqvae" in row["reason"]


def test_the_report_shows_every_table_and_picture(evaluated):
    page = (evaluated[0] / "index.html").read_text()
    for text in ("Reconstruction", "Likelihood", "bits along the window", "each condition is worth",
                 "run of level 1", "5-gram"):  # fmt: skip
        assert text in page
    results = {path.stem: json.loads(path.read_text()) for path in evaluated[0].glob("*.json")}
    figures = [SUITES[name].figures(found["result"]) for name, found in results.items()]
    shown = [figure for some in figures for figure in some]
    assert len(shown) >= 4 and page.count("<img ") == len(shown)
    for figure in shown:
        assert base64.b64encode(figure.image).decode() in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)


def test_scores_by_song_have_the_mean_that_the_table_shows(evaluated):
    for name in ("reconstruction", "likelihood"):
        result = json.loads((evaluated[0] / f"{name}.json").read_text())["result"]
        scores = SUITES[name].scores(result)
        if result.get("round_trip"):  # where its weights are at hand
            scores = [score for score in scores if score.name.endswith(" dB")]
        assert len(scores) == {"reconstruction": 6, "likelihood": 2}[name]
        for score in scores:
            values, weights = np.array(list(score.by_song.values())).T
            assert score.value == pytest.approx(np.average(values, weights=weights))


def test_two_evaluations_in_a_folder_are_refused(trained, tmp_path):
    with locks.writing(tmp_path), pytest.raises(SystemExit, match="is being written by process"):
        command.main(arguments(trained, "likelihood", tmp_path))
