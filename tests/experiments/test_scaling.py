"""The ladder: its rules, the law, resumable rungs, the forecast before the largest."""

import dataclasses
import json

import numpy as np
import pytest
import tiny_codes

from experiments import scaling
from experiments.scaling import figure, ladder, law, training
from experiments.scaling.ladder import Ladder, Rung
from jukejax import costs
from jukejax.errors import ConfigError, DataError, Preempted
from jukejax.training import loop

TINY = tuple(Rung(f"{i}", 4 * i, 1, 1) for i in (1, 2, 3, 4))
TRACKS = {"phones": [["aa", 0.0, 0.5]], "notes": [["60", 0.0, 0.5], ["64", 0.5, 0.9]]}


@pytest.fixture(scope="module")
def codes(tmp_path_factory):
    """Codes of four songs of a second with tracks: 344 at the top level."""
    folder = tmp_path_factory.mktemp("songs")
    (folder / "tracks.json").write_text(json.dumps(TRACKS))
    song = {"artist": "a", "genres": ["g"], "tracks_file": "tracks.json"}
    return tiny_codes.write(folder, [song | {"split": x} for x in ("train", "test") * 2])


@pytest.fixture
def asked(codes, tmp_path, monkeypatch):
    """A ladder of tiny rungs with windows of 32 codes."""
    monkeypatch.setattr(ladder.presets, "songs_prior", _small_songs_prior)
    for module in (scaling, ladder, law, training, figure):
        monkeypatch.setattr(module, "RUNGS", TINY, raising=False)
    monkeypatch.setattr(training, "RATES", (1e-3, 2e-3))
    monkeypatch.setattr(ladder, "RATES", (1e-3, 2e-3))
    monkeypatch.setattr(training, "EVERY", 1)
    return Ladder(codes, tmp_path / "out", tmp_path / "record", 1.0, batch=8)


def _small_songs_prior(make=ladder.presets.songs_prior):
    base = make()
    tracks = dataclasses.replace(base.model.tracks, depth=1, parts=2)
    model = dataclasses.replace(base.model, n_ctx=32, blocks=4, tracks=tracks, layers="plain")
    train = dataclasses.replace(base.train, evaluate_batches=1, checkpoint_every=1000)
    return dataclasses.replace(base, model=model, train=train)


def test_every_rung_has_twenty_tokens_a_parameter_and_its_size(codes):
    asked = Ladder(codes)
    for rung in ladder.RUNGS:
        experiment = asked.experiment(rung)
        size, tokens = costs.parameters(experiment), experiment.train.steps * 4 * 2048
        assert abs(tokens / size - 20) < 0.5
        assert experiment.optimizer.decay_steps == experiment.train.steps
        # songs have 2048 codes in groups of four, each with a table; these data have 16 in one
        full = size + (4 * 2048 - 16 + rung.width) * rung.width
        assert abs(full / 1e6 / float(rung.name[:-1]) - 1) < 0.1, full
    assert asked.training_tokens() == 2 * 345


def test_the_fit_finds_a_law_and_keeps_its_floor_above_zero():
    sizes = np.array([0.4e6, 0.8e6, 1.6e6, 3.3e6])
    true = law.Law(4.2, 1.1, 0.31)
    found = law.fit(sizes, true(sizes))
    np.testing.assert_allclose(found, true, rtol=0.02)
    np.testing.assert_allclose(found(6.6e6), true(6.6e6), rtol=1e-3)
    assert law.fit(sizes, -0.05 + 5 * (sizes / 1e6) ** -0.2).floor == 0.0


def test_a_law_from_draws_of_songs_has_the_spread_of_songs():
    rng = np.random.default_rng(1)
    sizes, tokens = np.array([4e5, 8e5, 16e5]), np.full(30, 100.0)
    songs = law.Law(4.0, 1.0, 0.3)(sizes)[:, None] + rng.normal(size=30) * 0.5
    laws = law.drawn_laws(sizes, songs * tokens, tokens)
    spread = np.std([x(4e6) for x in laws])
    assert 0.5 * 0.5 / 30**0.5 < spread < 2 * 0.5 / 30**0.5


def test_a_run_that_is_stopped_continues_and_ends_alike(asked, tmp_path):
    with pytest.raises(Preempted):
        training.run(_swept(asked), TINY[1], training.Deadline(0.0))
    assert not asked.rows("results")
    training.run(asked, TINY[1], training.Deadline(None))
    (row,) = asked.rows("results")
    whole = dataclasses.replace(asked, out=tmp_path / "whole", record=tmp_path / "other")
    training.run(_swept(whole), TINY[1], training.Deadline(None))
    again = whole.result("2")
    assert (row["by_song"], row["steps"]) == (again["by_song"], again["steps"])
    experiment = whole.experiment(TINY[1])
    assert row["steps"] > 1 and row["flops"] == whole.flops(experiment)
    assert row["parameters"] == costs.parameters(experiment)
    assert row["learning_rate"] == pytest.approx(2e-3 * 0.5**0.5)


def _swept(asked):
    for rate in (1e-3, 2e-3):
        asked.add("sweep", {"learning_rate": rate, "bits_per_token": 5 - rate})
    return asked


@pytest.mark.slow
def test_the_largest_runs_after_its_forecast_and_the_page_shows_both(asked, tmp_path, monkeypatch):
    words = ["--data", asked.data, "--out", asked.out, "--record", asked.record, "--batch", 8]
    words = [str(x) for x in [*words, "--tokens-per-parameter", 1.0]]
    _swept(asked)
    with pytest.raises(SystemExit, match="nothing was forecast"):
        scaling.main(["run", "4", *words])
    scaling.main(["run", *words])
    forecast = json.loads((asked.record / "forecast.json").read_text())
    assert forecast["fitted_to"] == ["1", "2", "3"] and len(forecast["commit"]) >= 40
    assert list(forecast["forecast"]) == ["4"] and not asked.result("4")
    assert forecast["forecast"]["4"]["parameters"] == costs.parameters(asked.experiment(TINY[3]))
    trained = []
    monkeypatch.setattr(training.loop, "train", lambda r, f=loop.train: trained.append(r) or f(r))
    scaling.main(["run", "4", *words])
    scaling.main(["run", "3", "4", *words])  # nothing is trained twice
    assert len(trained) == 1
    with pytest.raises(SystemExit, match="measured already"):
        scaling.main(["fit", *words])
    scaling.main(["ngram", *words])
    monkeypatch.setattr(figure, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(figure, "PICTURE", tmp_path / "picture.png")
    (tmp_path / "page.md").write_text("a\n<!-- results -->\nold\n<!-- end of results -->\nb\n")
    scaling.main(["plot", *words])
    page, row = (tmp_path / "page.md").read_text(), asked.result("4")
    assert page.startswith("a\n<!-- results -->\n| rung |") and page.endswith("results -->\nb\n")
    assert f"{row['bits_per_token']:.4f}" in page and "old" not in page
    assert f"{forecast['forecast']['4']['bits_per_token']:.4f} [" in page
    assert f"{asked.result('5-gram')['bits_per_token']:.4f}" in page
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_mistakes_are_sentences(asked):
    with pytest.raises(ConfigError, match=r"has not tried the learning rate 0.001; run"):
        training.run(asked, TINY[0], training.Deadline(None))
    with pytest.raises(ConfigError, match="three numbers, but 0 rungs"):
        law.forecast(asked)
    asked.add("results", {"rung": "1"})
    other = json.loads((asked.record / "results.jsonl").read_text()) | {"data": "another"}
    (asked.record / "results.jsonl").write_text(json.dumps(other))
    with pytest.raises(DataError, match=r"has results on other codes than .*another --record"):
        asked.result("1")
    (asked.record / "results.jsonl").write_text("{")
    with pytest.raises(DataError, match="a line that is not JSON"):
        asked.result("1")


def test_the_sweep_tries_each_rate_once(asked, monkeypatch):
    rates = []
    monkeypatch.setattr(
        training, "_trained", lambda a, e, *_: rates.append(e) or {"learning_rate": 1, "x": 0}
    )
    asked.add("sweep", {"learning_rate": 1e-3, "bits_per_token": 4.0})
    training.sweep(asked, training.Deadline(None))
    (experiment,) = rates
    assert experiment.optimizer.learning_rate == 2e-3
    full = asked.experiment(TINY[0]).train.steps
    assert experiment.train.steps == max(1, round(full / 8)) or full < 8
