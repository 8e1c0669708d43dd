"""Suites on two processes of four devices, by the command and while training: what one finds."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from processes import environment, lines, pair, run

from data_pipeline import songs as prepared
from data_pipeline.codes import codes_info, read_song_codes
from experiments.evaluate import suites as command
from jukejax.config import LyricsConfig, PriorExperiment
from jukejax.evaluation import suites as evaluation_suites
from jukejax.model_dir import write_model_dir
from jukejax.sampling.job import Item, Job
from jukejax.sampling.sample_dir import SampleDir
from jukejax.text.labels import Vocabulary
from jukejax.training.checkpoint import load_experiment

pytestmark = pytest.mark.slow

NAMES = ("a", "b", "c", "d")
MESH = ("--mesh.fsdp=4", "--mesh.tensor=2")
SUITES = (
    "reconstruction", "likelihood", "cascade", "alignment", "labels", "memorisation", "features",
)  # fmt: skip
# of a result: what it cost, and where it was written
FREE = {"build_s", "lookup_s", "model", "folders"}


@pytest.fixture(scope="module")
def folder(trained, make_run, tell_songs, tmp_path_factory):
    """The trained models, the top prior with lyrics; sung songs of two genres, told by codes."""
    folder = tmp_path_factory.mktemp("processes")
    shutil.copytree(trained / "vqvae", folder / "vqvae")
    shutil.copytree(trained / "songs", folder / "songs")
    rows = [
        dataclasses.replace(
            song, genres=("low" if song.id in "ac" else "high",), lyrics=f"la la {song.id}",
            words=(("la", 0.1, 0.3), ("la", 0.3, 0.5), (song.id, 0.5, 0.8)),
        )
        for song in prepared.prepared_songs(folder / "songs")
    ]  # fmt: skip
    prepared.write_songs(folder / "songs", rows)
    info = codes_info(trained / "codes")
    tell_songs(folder / "songs", folder / "codes", info.hops, info.fingerprint)
    Vocabulary.build(NAMES, []).save(folder / "codes" / "labels.json")
    lyrics = LyricsConfig(tokens=8, width=8, depth=1, heads=1, blocks=2, attn_order=0)
    top = load_experiment(trained / "prior_2")[0].model
    top = dataclasses.replace(top, depth=4, heads=2, attn_order=6, lyrics=lyrics)
    note = {"fingerprint": info.fingerprint, "run": "a singer"}
    make_run(folder / "prior_2", PriorExperiment(model=top), note=note)
    runs = {1: trained / "prior_1", 2: folder / "prior_2"}
    labels = folder / "codes" / "labels.json"
    write_model_dir(folder / "model", folder / "vqvae", runs, labels)
    copied = read_song_codes(folder / "codes", "b")[2][40:100]
    made = np.stack([copied, np.random.default_rng(3).integers(0, 16, 60)])
    weights = f"VQ-VAE {info.fingerprint}, run a singer step 2"
    levels = [{"level": 2, "name": "top", "tokens": 60, "weights": weights}]
    items = (Item("a", lyrics="la la a"), Item("b", lyrics="la la b"))
    job = Job(items=items, seconds=60 * info.hops[2] / 44_100, levels=(2,))
    sample = SampleDir(folder / "sample", job, 44_100, levels)
    sample.save(2, made, np.array([60, 60]))
    return folder


def evaluate(folder, out, environments):
    paths = [f"--{name}={folder / name}" for name in ("model", "songs", "codes")]
    paths += [f"--samples={folder / 'sample'}", f"--out={out}"]
    return run([*SUITES, *paths, *MESH], environments, program=("-m", "experiments.evaluate"))


def assert_same(found, wanted, where):
    """Equal but for what was computed: that within rounding, which two processes do otherwise."""
    assert type(found) is type(wanted), where
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), where
        for name in wanted.keys() - FREE:
            assert_same(found[name], wanted[name], f"{where}.{name}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for i, pair_of in enumerate(zip(found, wanted, strict=True)):
            assert_same(*pair_of, f"{where}[{i}]")
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-4, abs=1e-5), where
    else:
        assert found == wanted, where


def results(out):
    return {s: json.loads((out / f"{s}.json").read_text())["result"] for s in SUITES}


def test_two_processes_find_what_one_finds(folder, tmp_path):
    outputs, codes = evaluate(folder, tmp_path / "two", pair())
    assert codes == [0, 0], outputs
    alone, codes = evaluate(folder, tmp_path / "one", [environment(8)])
    assert codes == [0], alone
    two, one = results(tmp_path / "two"), results(tmp_path / "one")
    for suite in SUITES:
        assert_same(two[suite], one[suite], suite)
        title = evaluation_suites.SUITES[suite].tables(one[suite])[0].title
        assert title in alone[0] and title in outputs[0] and title not in outputs[1]
    features = [np.load(tmp_path / name / "features.npy") for name in ("two", "one")]
    np.testing.assert_allclose(*features, rtol=1e-4, atol=1e-5)
    files = [sorted(p.name for p in (tmp_path / x).iterdir()) for x in ("two", "one")]
    assert files[0] == files[1] and not any(name.startswith(".") for name in files[0])
    # what two have measured, two find again, without a prior being loaded
    outputs, codes = evaluate(folder, tmp_path / "two", pair())
    assert codes == [0, 0] and outputs[0].count("not computed again") == len(SUITES)


INSIDE = ("likelihood", "alignment", "labels", "features")


def trained_with_suites(run_of, data, workdir, suites, environments, *more):
    settings = "--train.steps=2 --train.batch=8 --train.evaluate-every=2 --train.evaluate-batches=1"
    arguments = [run_of, f"--data={data}", f"--workdir={workdir}", *settings.split(), *MESH]
    arguments += ["--evaluate", *suites, "--evaluate-every=2", *more]
    outputs, codes = run(arguments, environments, program=("-m", "experiments.train"))
    assert set(codes) == {0} and "left out" not in outputs[0], outputs
    folder = workdir / "evaluation" / "step_2"
    return folder, {s: json.loads((folder / f"{s}.json").read_text())["result"] for s in suites}


def test_suites_of_a_prior_that_two_processes_train(folder, tmp_path):
    where = folder / "prior_2", folder / "codes"
    made, two = trained_with_suites(*where, tmp_path / "two", INSIDE, pair())
    _, one = trained_with_suites(*where, tmp_path / "one", INSIDE, [environment(8)])
    for suite in INSIDE:
        assert_same(two[suite], one[suite], suite)
    names = {path.name for path in made.iterdir()}
    assert {"labels.html", "features.npy", "features.ids.json", "index.html"} <= names
    assert not any(name.startswith(".") for name in names)
    # and what the finished run is found to be, with its VQ-VAE and by one process
    model = tmp_path / "model"
    write_model_dir(
        model, folder / "vqvae", {2: tmp_path / "one"}, folder / "codes" / "labels.json"
    )
    asked = command.Evaluation(INSIDE, model, tmp_path / "after", codes=folder / "codes")
    after = command.run(asked)
    rows = {}
    for line in lines(tmp_path / "one" / "metrics.jsonl"):
        rows |= line
    for suite in INSIDE:
        assert_same(one[suite], json.loads(json.dumps(after[suite])), suite)
        for score in evaluation_suites.SUITES[suite].scores(after[suite]):
            name = f"{suite}/{re.sub('[^0-9A-Za-z]+', '_', score.name)}"
            assert rows[name] == pytest.approx(score.value, rel=1e-4, abs=1e-5)


def test_reconstruction_of_a_vqvae_that_two_processes_train(folder, tmp_path):
    where = folder / "vqvae", folder / "songs"
    suites, short = ("reconstruction",), "--samples=2048"
    _, two = trained_with_suites(*where, tmp_path / "two", suites, pair(), short)
    _, one = trained_with_suites(*where, tmp_path / "one", suites, [environment(8)], short)
    levels = [found["reconstruction"]["levels"] for found in (two, one)]
    for a, b in zip(*levels, strict=True):
        for name in ("spectral_convergence_db", "si_sdr_db"):
            assert a[name] == pytest.approx(b[name], rel=1e-3), (b["level"], name)
