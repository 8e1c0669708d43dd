"""Likelihood figures of a prior against brute force, and the replacing of conditions."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import jax
import numpy as np
import oracle
import pytest

from jukejax.config import (
    LabelsConfig,
    LyricsConfig,
    MeshConfig,
    PriorConfig,
    Track,
    TracksConfig,
    UpperConfig,
)
from jukejax.errors import CheckpointError
from jukejax.evaluation import conditions, likelihood, scoring
from jukejax.evaluation.subject import Lacking
from jukejax.models import prior
from jukejax.parallel.mesh import make_mesh

TINY = PriorConfig(
    level=1, hop=32, codes=12, n_ctx=16, width=8, depth=3, heads=2, blocks=4, attn_ratio=0.5,
    upper=UpperConfig(width=4, depth=1),
)  # fmt: skip


@pytest.fixture(scope="module")
def params():
    return oracle.random_params(functools.partial(prior.init_params, TINY))


def windows_of(count, size, seed=0):
    """Batches of `size` windows, `count` of them valid, as the code loader gives them."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 12, (count, 16)).astype(np.int32)
    upper = rng.integers(0, 12, (count, 4)).astype(np.int32)
    for first in range(0, count, size):
        rows = np.arange(first, first + size)
        valid = rows < count
        rows = np.where(valid, rows, 0)
        song = np.where(valid, rows // 5, -1).astype(np.int32)
        yield {"codes": codes[rows], "upper": upper[rows], "valid": valid, "song": song}


@pytest.mark.parametrize("mesh", [MeshConfig(), MeshConfig(fsdp=2, tensor=2)])
def test_bits_of_a_prior_are_those_computed_directly(params, mesh):
    whole = next(windows_of(11, 11))
    logits, _ = prior.Prior(TINY).apply(
        {"params": params}, {k: whole[k] for k in ("codes", "upper")}
    )
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    bits = -np.take_along_axis(log_p, whole["codes"][..., None], -1)[..., 0] / np.log(2)
    scorer = scoring.make_scorer(TINY, params, make_mesh(mesh))
    parts = [scoring.sums(scorer, codes_as_bits, [b]) for b in windows_of(11, 8)]
    kept = json.loads(json.dumps(parts))  # as an interrupted run finds them
    found = scoring.add(*kept)
    assert found == scoring.sums(scorer, codes_as_bits, windows_of(11, 8))
    songs = found["models"]["prior"]["songs"]
    assert found["windows"] == 11
    assert {name: tokens for name, (_, tokens) in songs.items()} == {"0": 80, "1": 80, "2": 16}
    assert songs["1"][0] == pytest.approx(bits[5:10].sum(), rel=1e-5)
    assert scoring.mean(songs) == pytest.approx(bits.mean(), rel=1e-5)
    positions = found["models"]["prior"]["positions"]
    np.testing.assert_allclose(scoring.curve(positions, 11)["bits"], bits.mean(0), rtol=1e-5)
    assert scoring.mean(found["models"]["counted"]["songs"]) == whole["codes"].mean()
    all_at_once = scoring.score_all(scorer, {k: whole[k] for k in ("codes", "upper")}, 8)
    np.testing.assert_allclose(all_at_once, bits, rtol=1e-5)


def test_counting_models_know_a_code_s_place_in_its_group():
    rng = np.random.default_rng(0)
    songs = [rng.integers(0, 3, 2 * n) + 3 * (np.arange(2 * n) % 2) for n in (40, 31)]
    source = SimpleNamespace(
        split=lambda name: [
            SimpleNamespace(id=str(i), codes=codes) for i, codes in enumerate(songs)
        ],
        length=lambda song, level: len(song.codes),
        read=lambda song: [song.codes],
    )
    config = dataclasses.replace(TINY, level=0, hop=8, groups=2, upper=None)
    counted = likelihood.Counted(source, [0], config)
    np.testing.assert_array_equal(
        counted.tokens(0), np.bincount(np.concatenate(songs), minlength=12)
    )
    windows = rng.integers(0, 3, (2, 16)) + 3 * (np.arange(16) % 2)
    found = counted.bits(0)(windows)
    assert found.keys() == {"unigram", "bigram", "kn3", "kn5"}
    for place in range(2):
        codes = np.concatenate([song[place::2] for song in songs])
        p = (np.bincount(codes, minlength=12) + 1) / (len(codes) + 12)
        np.testing.assert_allclose(
            found["unigram"][:, place::2], -np.log2(p[windows[:, place::2]]), rtol=1e-12
        )
    for bits in found.values():  # three codes of twelve are possible at each place
        assert bits[:, 1:].mean() < np.log2(12) - 1


def codes_as_bits(codes):
    """A counting model whose bits are the codes."""
    return {"counted": codes.astype(float)}


def test_a_curve_has_the_means_of_its_stretches():
    found = scoring.curve([float(i) for i in range(200)], windows=2)
    assert len(found["bits"]) == 64 and found["until"][-1] == 200
    assert found["bits"][0] == np.arange(found["until"][0]).mean() / 2


def test_bits_that_are_not_finite_are_a_sentence(params):
    broken = jax.tree.map(lambda x: x * np.nan, params)
    scorer = scoring.make_scorer(TINY, broken, make_mesh(MeshConfig()))
    with pytest.raises(CheckpointError, match=r"level 1 .*not finite"):
        scoring.sums(scorer, codes_as_bits, windows_of(8, 8))


# --- conditions -----------------------------------------------------------------------------------


def test_another_songs_condition_is_the_next_songs_that_differs_at_the_nearest_place():
    windows = {
        "song": np.array([0, 0, 1, 1, 4, 4]),
        "place": np.array([0.0, 0.5, 0.1, 0.6, 0.2, 0.9]),
        "artist": np.array([1, 1, 1, 1, 2, 2]),
    }
    rows = np.arange(6)
    anything = conditions.donors(windows, rows, lambda i, j: True)
    assert anything.tolist() == [2, 3, 4, 5, 0, 1]
    artists = windows["artist"]
    other = conditions.donors(windows, rows, lambda i, j: artists[i] != artists[j])
    assert other.tolist() == [4, 4, 4, 5, 0, 1]
    assert conditions.donors(windows, rows, lambda i, j: False).tolist() == [-1] * 6


def test_a_replacement_changes_one_condition_alone():
    lyrics = LyricsConfig(tokens=4, width=4, depth=1, heads=1, blocks=2)
    labels = LabelsConfig(artists=4, genres=4, max_genres=2)
    along = TracksConfig((Track("notes", ("60", "61")),), parts=2)
    config = dataclasses.replace(TINY, lyrics=lyrics, labels=labels, tracks=along)
    rng = np.random.default_rng(0)
    windows = {
        "codes": rng.integers(0, 12, (6, 16)),
        "upper": rng.integers(0, 12, (6, 4)),
        "artist": np.array([0, 0, 2, 2, 3, 3]),
        "genres": np.array([[0, -1]] * 2 + [[1, 2]] * 4),
        "lyrics": np.array([[0] * 4] * 2 + [[5] * 4] * 2 + [[6, 7, 0, 0]] * 2),
        "track_notes": np.repeat([-2, -2, 0, 1, 2, 3], 16).reshape(6, 16, 1),
        "song": np.array([0, 0, 1, 1, 2, 2]),
        "place": np.array([0.0, 0.5] * 3),
    }
    drawn_by = np.eye(12)[7]  # one code alone occurs
    found = {one.name: one for one in conditions.replacements(config, windows, 4, drawn_by)}
    changed = {
        name: {k for k, v in one.windows.items() if not np.array_equal(v, windows[k][one.rows])}
        for name, one in found.items()
    }
    assert changed == {
        "shuffled codes": {"codes"},
        "another song's upper codes": {"upper"},
        "shuffled upper codes": {"upper"},
        "random upper codes": {"upper"},
        "another song's labels": {"artist", "genres"},
        "unknown labels": {"artist", "genres"},
        "another song's lyrics": {"lyrics"},
        "no lyrics": {"lyrics"},
        "another song's notes": {"track_notes"},
        "no notes": {"track_notes"},
    }
    for name, key in (("shuffled codes", "codes"), ("shuffled upper codes", "upper")):
        assert np.array_equal(np.sort(found[name].windows[key]), np.sort(windows[key][:4]))
    assert (found["random upper codes"].windows["upper"] == 7).all()
    assert found["another song's upper codes"].windows["upper"].tolist() == (
        windows["upper"][2:6].tolist()
    )
    assert found["unknown labels"].rows.tolist() == [2, 3]  # the others are unknown already
    assert found["another song's lyrics"].rows.tolist() == [2, 3]  # song 0 is not sung
    assert (found["another song's lyrics"].windows["lyrics"] == [6, 7, 0, 0]).all()
    assert not found["no lyrics"].windows["lyrics"].any()
    assert found["another song's notes"].rows.tolist() == [2, 3]  # song 0 has no such track
    assert found["another song's notes"].windows["track_notes"][:, 0, 0].tolist() == [2, 3]
    assert (found["no notes"].windows["track_notes"] == -2).all()


def test_no_song_that_fills_a_window_is_said():
    codes = SimpleNamespace(split=lambda name: [None, None], length=lambda song, level: 15)
    with pytest.raises(Lacking, match="No held-out song fills a window of the prior of level 1"):
        likelihood.score_test_split(SimpleNamespace(codes=codes), TINY, None, None)


def test_no_sung_song_that_fills_a_window_lends_nothing():
    lyrics = LyricsConfig(tokens=4, width=4, depth=1, heads=1, blocks=2)
    songs = [SimpleNamespace(lyrics=text) for text in ("", "short and sung")]
    window = {"codes": np.zeros((1, 16)), "song": np.array([0]), "valid": np.array([True])}
    codes = SimpleNamespace(
        listed=lambda: songs, split=lambda name: songs, windows=lambda *_: iter([dict(window)])
    )
    subject = SimpleNamespace(codes=codes, batch=1, label_names=lambda config: None)
    config = dataclasses.replace(TINY, lyrics=lyrics)
    assert likelihood.lender_windows(subject, config) is None
    assert likelihood.lender_windows(subject, TINY)["song"].tolist() == [0]


def test_what_a_prior_saves_against_the_5gram_is_over_all_tokens():
    models = {
        "prior": {"songs": {"0": [300.0, 100], "1": [80.0, 20]}},
        "kn5": {"songs": {"0": [400.0, 100], "1": [100.0, 20]}},
    }
    found = likelihood.of_5gram(models)
    assert found["ratio"] == pytest.approx(380 / 500)
    assert found["interval"] == pytest.approx((0.75, 0.8))  # one song twice, or the other
    assert likelihood._fewer(found) == "24.0 % [20.0, 25.0]"
    del models["kn5"]
    assert likelihood._fewer(likelihood.of_5gram(models)) == "–"
