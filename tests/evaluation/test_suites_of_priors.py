"""The suites labels, features, memorisation and generation by the command, on tiny models."""

import contextlib
import dataclasses
import functools
import io
import json
import re
import shutil

import numpy as np
import pytest
import scipy.linalg
import soundfile

from data_pipeline import songs as prepared
from data_pipeline.codes import codes_info, read_song_codes
from data_pipeline.records import read_audio
from experiments.evaluate import suites as command
from experiments.training import Training, train
from jukejax.config import MeshConfig, TrainConfig
from jukejax.evaluation import generation, melody, subject
from jukejax.evaluation.embedding import Embedded
from jukejax.evaluation.suites import SUITES
from jukejax.model_dir import load_prior, load_vqvae, write_model_dir
from jukejax.models.spectral import mel_filters
from jukejax.parallel.mesh import make_mesh
from jukejax.sampling.job import Item, Job
from jukejax.sampling.sample_dir import SampleDir
from jukejax.text.labels import Vocabulary
from jukejax.training.checkpoint import load_experiment
from jukejax.training.metrics import read_metrics

NAMES = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def folder(trained, tell_songs, tmp_path_factory):
    """The trained models; songs of two genres; codes that tell them; label names for all."""
    folder = tmp_path_factory.mktemp("suites")
    shutil.copytree(trained / "songs", folder / "songs")
    rows = [
        dataclasses.replace(song, genres=("low" if song.id in "ac" else "high",))
        for song in prepared.prepared_songs(folder / "songs")
    ]
    prepared.write_songs(folder / "songs", rows)
    vqvae = load_vqvae(trained / "vqvae", make_mesh(MeshConfig()))
    tell_songs(folder / "songs", folder / "codes", vqvae.config.hops, vqvae.fingerprint)
    Vocabulary.build(NAMES, []).save(folder / "labels.json")
    runs = {level: trained / f"prior_{level}" for level in (1, 2)}
    write_model_dir(folder / "model", trained / "vqvae", runs, folder / "labels.json")
    return folder


def evaluate(folder, out, suite, *more):
    """(result, what was printed); the result and the report are written."""
    paths = [f"--{name}={folder / name}" for name in ("model", "songs", "codes")]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        command.main([suite, *paths, f"--out={out}", *more])
    result = json.loads((out / f"{suite}.json").read_text())["result"]
    page = (out / "index.html").read_text()
    assert SUITES[suite].title in page and page.count("<img ") == len(SUITES[suite].figures(result))
    for table in SUITES[suite].tables(result):
        assert table.rows and str(table) in printed.getvalue()
    return result, printed.getvalue()


def test_labels(trained, folder, tmp_path):
    result, printed = evaluate(folder, tmp_path, "labels")
    assert (result["level"], list(result["kinds"])) == (2, ["artists"])  # no genres are named
    assert result["kinds"]["artists"]["names"] == NAMES
    table = load_prior(trained / "prior_2", make_mesh(MeshConfig())).params["labels"]["artist"]
    rows = np.asarray(table, np.float64)[1:]  # after "unknown"
    for i, name in enumerate(NAMES):
        cosine = [
            rows[i] @ row / np.linalg.norm(rows[i]) / np.linalg.norm(row) if j != i else -2
            for j, row in enumerate(rows)
        ]
        nearest = int(np.argmax(cosine))
        line = next(x for x in printed.splitlines() if x.startswith(f"{name} "))
        assert line.split()[1:3] == [NAMES[nearest], f"{cosine[nearest]:.2f},"]
    assert "c" in (tmp_path / "labels.html").read_text()


def test_features(folder, tmp_path):
    result, printed = evaluate(folder, tmp_path, "features")
    found = result["probe"]
    assert (result["exported"], result["short"], result["width"]) == (4, 0, 8)
    # the genres' codes have nothing in common, so a probe of what was read cannot miss
    assert (found["accuracy"], found["majority"], found["folds"]) == (1.0, 0.5, 2)
    assert found["confusion"] == [[2, 0], [0, 2]] and found["genres"] == ["high", "low"]
    assert "100.0 %" in printed
    (score,) = SUITES["features"].scores(result)
    assert score.value == 1.0 and set(score.by_song) == set(NAMES)
    rows = np.load(tmp_path / "features.npy")
    ids = json.loads((tmp_path / "features.ids.json").read_text())
    assert ids["songs"] == NAMES and rows.shape == (4, 8)


def longest_run(window, songs):
    """(length, song) of the longest stretch of a window that songs hold, by brute force."""
    best = (0, "")
    text = bytes(window.tolist())
    for i in range(len(text)):
        for name, codes in songs.items():
            while text[i : i + best[0] + 1] in bytes(codes.tolist()) and i + best[0] < len(text):
                best = (best[0] + 1, name)
    return best


def test_memorisation(folder, tmp_path):
    fingerprint = codes_info(folder / "codes").fingerprint
    songs = {name: read_song_codes(folder / "codes", name)[2] for name in NAMES}
    made = np.stack([songs["b"][40:100], np.random.default_rng(0).integers(0, 16, 60)])
    weights = f"VQ-VAE {fingerprint}, run of level 2 step 2"
    levels = [{"level": 2, "name": "top", "tokens": 60, "weights": weights}]
    sample = SampleDir(tmp_path / "sample", Job(items=(Item(), Item())), 44_100, levels)
    sample.save(2, made, np.array([60, 60]))
    out = tmp_path / "out"
    result, printed = evaluate(folder, out, "memorisation", f"--samples={sample.path}")
    training = {name: songs[name] for name in ("a", "b")}
    copied, drawn = result["samples"]
    assert (copied["run"], copied["run_song"], copied["share"]) == (60, "b", 1.0)
    assert copied["run_at_s"] == pytest.approx(40 * 128 / 44_100)
    assert drawn["run"] == longest_run(made[1], training)[0]
    unheard = [songs[x][i : i + 60] for x in ("c", "d") for i in range(0, 313 - 59, 60)]
    runs = [longest_run(window, training)[0] for window in unheard]
    assert [row["run"] for row in result["held_out"]] == runs
    pairs = [(a > b) + (a == b) / 2 for a in (60, drawn["run"]) for b in runs]
    (score,) = SUITES["memorisation"].scores(result)
    assert score.value == pytest.approx(np.mean(pairs)) and score.interval is None
    assert "sample item 0 at 0.0 s" in printed


class Bands:
    """An embedder that needs no weights: levels of four mel bands, a window every 0.1 s."""

    name, tags, seconds = "bands", ("loud", "soft"), 0.1

    def __call__(self, sound, sample_rate):
        size = round(self.seconds * sample_rate)
        windows = np.asarray(sound)[: len(sound) // size * size].reshape(-1, size)
        power = np.abs(np.fft.rfft(windows, axis=1)) ** 2
        vectors = np.log10(power @ mel_filters(sample_rate, size, 4).T + 1e-6)
        loud = np.sqrt(np.mean(windows**2, axis=1))
        return Embedded(vectors, np.stack([loud, 1 - loud], axis=1))


@pytest.fixture
def bands(monkeypatch):
    """`Bands` in the place of musicnn; no notes, whose network lies in a wheel as well."""
    monkeypatch.setitem(generation.EMBEDDERS, "bands", Bands)
    none = (np.zeros((9, 88)), np.zeros((9, 88)))
    monkeypatch.setattr(melody, "activations", lambda sound, rate: none)


@pytest.mark.slow
def test_generation_samples_and_compares(trained, tmp_path, bands):
    asked = ("--embedder=bands", "--generate=3", "--generate-seconds=0.5")
    result, printed = evaluate(trained, tmp_path, "generation", *asked)
    (made,) = (tmp_path / "samples").iterdir()
    assert result["folders"] == [str(made)] and result["level"] == 2
    assert len(list((made / "level_2").glob("item_*.wav"))) == 3
    names = ["held-out songs", "held-out, rebuilt from level 2", "samples"]
    assert [*result["sets"]] == names
    assert [row["n"] for row in result["sets"].values()] == [2 * 9, 2 * 9, 3 * 5]
    assert (result["embedder"], result["real_n"]) == ("bands", 2 * 9)
    sounds = [soundfile.read(path)[0] for path in sorted((made / "level_2").glob("*.wav"))]
    read = [prepared.find_song(trained / "songs", name) for name in ("a", "b")]
    real = [read_audio(trained / "songs", x, 0, x.n_samples).mean(axis=1) / 32768 for x in read]
    a, b = (np.concatenate([Bands()(x, 44_100).vectors for x in some]) for some in (real, sounds))
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    gap = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
    fad = gap + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert result["sets"]["samples"]["fad"]["value"] == pytest.approx(fad, rel=1e-3)
    scores = {score.name: score.value for score in SUITES["generation"].scores(result)}
    assert scores["FAD of samples"] == result["sets"]["samples"]["fad"]["value"]
    assert "held-out, rebuilt from level 2" in printed


@pytest.mark.slow
def test_samples_are_judged_while_a_prior_trains(trained, folder, tmp_path, bands, monkeypatch):
    """On songs of genres that the prior's label names lack, which are then not asked for."""
    short = functools.partial(subject.Generate, 3, 0.5, "bands")
    experiment, _ = load_experiment(trained / "prior_2")
    settings = TrainConfig(steps=2, batch=8, evaluate_every=2, evaluate_batches=1)
    experiment = dataclasses.replace(experiment, train=settings, mesh=MeshConfig(data=4, fsdp=2))
    suites, lines = ("generation", "cascade", "memorisation"), []

    def trains(where, **beside):
        training = Training(
            folder / "codes", tmp_path / where, experiment, evaluate=suites,
            labels=folder / "labels.json", evaluate_every=2, **beside,
        )  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(subject, "Generate", short)
            train(training, lines.append)

    trains("alone")
    left = [line for line in lines if "left out" in line]
    assert len(left) == 3 and "--evaluate-songs" in left[0] and "--evaluate-vqvae" in left[2]
    trains("run", evaluate_vqvae=trained / "vqvae", evaluate_songs=folder / "songs")
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    metrics = {key: value for row in rows for key, value in row.items()}
    write_model_dir(
        tmp_path / "model", trained / "vqvae", {2: tmp_path / "run"}, folder / "labels.json"
    )
    asked = command.Evaluation(
        suites, tmp_path / "model", songs=folder / "songs", codes=folder / "codes",
        out=tmp_path / "after", generate=3, generate_seconds=0.5, embedder="bands",
    )  # fmt: skip
    after = command.run(asked)
    for suite in suites:
        for score in SUITES[suite].scores(after[suite]):
            name = f"{suite}/{re.sub('[^0-9A-Za-z]+', '_', score.name)}"
            assert metrics.pop(name, None) == pytest.approx(score.value, rel=1e-6), name
    drawn = [np.load(next(x.glob("samples/*/level_2/codes.npz")))["codes"]
             for x in (tmp_path / "run/evaluation/step_2", tmp_path / "after")]  # fmt: skip
    np.testing.assert_array_equal(*drawn)
