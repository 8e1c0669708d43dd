"""What suites say of a prior's inside: maps, probes, features; and alignments beside samples."""

import dataclasses
import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import oracle
import pytest
import tiny_model

from experiments import sample
from jukejax.config import LyricsConfig, MeshConfig
from jukejax.evaluation import alignment as of_suite
from jukejax.evaluation import features, labels, memorisation
from jukejax.evaluation.pages import player, sample_page, templates
from jukejax.evaluation.subject import Lacking
from jukejax.models.prior import collected, init_params
from jukejax.parallel.mesh import make_mesh
from jukejax.sampling import alignment
from jukejax.sampling.alignment import Found, Head
from jukejax.sampling.inside import make_reader
from jukejax.sampling.sample_dir import SampleDir
from jukejax.sampling.words import is_aligned, most_monotone, of_text
from jukejax.text import lyrics as text

pytest.importorskip("sklearn")
LYRICS = LyricsConfig(tokens=8, width=8, depth=1, heads=1, blocks=2, attn_order=0)
SINGING = dataclasses.replace(tiny_model.TOP, depth=4, attn_order=6, lyrics=LYRICS)


# --- alignments beside samples --------------------------------------------------------------------


@pytest.mark.slow
def test_samples_of_a_prior_with_lyrics_get_alignments(tmp_path, monkeypatch):
    pytest.importorskip("soundfile")
    monkeypatch.setattr(tiny_model, "TOP", SINGING)
    monkeypatch.setattr(sample_page, "write_page", lambda out: out)
    model = tiny_model.write(tmp_path)
    words = "Oh — wé all live\nin a yellow submarine"
    (tmp_path / "words.txt").write_text(words)
    command = sample.Command(
        out=tmp_path / "out", model=model, artist="Ella", lyrics=tmp_path / "words.txt",
        seconds=0.1, levels=(2,), count=2, hop_fraction=(0.5, 0.5, 0.5),
    )  # fmt: skip
    sample.run(command)
    folder, seconds = command.out / "level_2", 50 * 16 / 8000
    for item in range(2):
        found = player.read_alignment(folder, item)
        assert found is not None
        assert found.weights.dtype == np.float16 and found.weights.shape == (4, len(words))
        np.testing.assert_allclose(found.starts, np.arange(4) * 16 * 16 / 8000)
        assert found.weights.sum(1).min() > 0 and found.weights.sum(1).max() <= 1.01
        assert [words[first:last] for *_, first, last in found.words] == [w[0] for w in found.words]
        assert all(0 <= start <= end <= seconds for _, start, end, *_ in found.words)
        with np.load(folder / f"item_{item}.alignment.npz") as arrays:
            assert int(arrays["layer"]) == 3 and int(arrays["head"]) in (0, 1)
    # what is lacking of a finished sample is made, and the same
    made, second = SampleDir.open(command.out), folder / "item_1.words.json"
    assert is_aligned(made, 2, range(2))
    before = second.read_bytes()
    second.unlink()
    assert not is_aligned(made, 2, range(2))
    sample.run(command)
    assert second.read_bytes() == before


def test_of_text_gives_characters_the_weights_of_their_tokens():
    lyrics = "aé½—b"  # the dash is two tokens, the fraction five
    spelt = [len(text.encode(c, "v2")) for c in lyrics]
    count = len(text.encode(lyrics, "v2"))
    assert sum(spelt) == count and max(spelt) > 1
    weights = np.arange(2.0 * count, dtype=np.float32).reshape(2, count)
    found = of_text(weights, lyrics, "v2")
    at = 0
    for i, size in enumerate(spelt):
        np.testing.assert_allclose(found[:, i], weights[:, at : at + size].sum(1))
        at += size


def test_most_monotone_weighs_songs_by_windows():
    none = np.zeros((1, 1), np.float32)
    a, b = Head(3, 0), Head(3, 1)
    songs = [
        {a: Found(none, 0.9, 1), b: Found(none, 0.5, 1)},
        {a: Found(none, 0.1, 3), b: Found(none, 0.5, 3)},
    ]
    assert most_monotone(songs) == pytest.approx({b: 0.5, a: 0.3})
    assert list(most_monotone(songs)) == [b, a]


def test_errors_of_word_onsets_are_mir_evals():
    mir_eval = pytest.importorskip("mir_eval")
    lyrics, rate = "Oh my darling, oh my dear", 8000
    firsts = [m.start() for m in re.finditer(r"\S+", lyrics)]
    read = np.array([0, 5, 6, 20, 31, 40])  # frames in which the reading comes to each word
    frame = alignment.frame_seconds(SINGING, 2)[1]
    known = read * frame + np.array([0.01, -0.02, 0.2, 0.0, -0.3, 0.03])
    weights = np.zeros((48, len(lyrics)), np.float32)
    weights[np.arange(48), np.array(firsts)[np.searchsorted(read, np.arange(48), "right") - 1]] = 1
    words = tuple(
        (word, start, start + 0.1) for word, start in zip(lyrics.split(), known, strict=True)
    )
    song = SimpleNamespace(lyrics=lyrics, words=words, n_samples=10_000, sample_rate=rate)
    errors = of_suite.word_errors(SINGING, song, weights)
    np.testing.assert_allclose(errors, np.abs(known - read * frame), atol=1e-6)
    median, _ = mir_eval.alignment.absolute_error(known, read * frame)
    assert np.median(errors) == pytest.approx(median, abs=1e-6)
    evenly = np.array(firsts) / len(lyrics) * 10_000 / rate
    median, _ = mir_eval.alignment.absolute_error(known, evenly)
    assert np.median(of_suite.linear_errors(song)) == pytest.approx(median, abs=1e-6)


# --- maps of labels -------------------------------------------------------------------------------


def test_neighbours_and_maps_find_groups():
    rng = np.random.default_rng(0)
    centres = 5 * rng.normal(size=(3, 16))
    rows = np.repeat(centres, 4, 0) + 0.1 * rng.normal(size=(12, 16))
    names = [f"{group}{i}" for group in "abc" for i in range(4)]
    found = labels.describe(names, rows)
    for kind in ("pca", "tsne"):
        places = np.array(found[kind])
        assert places.shape == (12, 2)
        apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
        np.fill_diagonal(apart, np.inf)
        assert [names[i][0] for i in apart.argmin(1)] == [name[0] for name in names]
    for i, near in enumerate(found["neighbours"]):
        assert [names[j][0] for j, _ in near[:3]] == [names[i][0]] * 3
        for j, cosine in near:
            wanted = rows[i] @ rows[j] / np.linalg.norm(rows[i]) / np.linalg.norm(rows[j])
            assert cosine == pytest.approx(wanted, abs=1e-4)
    assert sum(found["explained"]) > 0.9
    few = labels.describe(["a", "b", "c"], np.eye(3))
    assert few["tsne"] is None and len(few["pca"]) == 3
    json.dumps(few, allow_nan=False)


def test_the_map_page_holds_names_safely():
    found = labels.describe(["</script><b>", "b", "c"], np.eye(3))
    page = templates.templates().get_template("labels.html.j2").render(kinds={"artists": found})
    assert "</script><b>" not in page and page.count("</script>") == 2
    data = page.split('type="application/json">')[1].split("</script>")[0]
    assert json.loads(data)["artists"]["names"][0] == "</script><b>"


# --- features -------------------------------------------------------------------------------------


def test_features_are_means_over_complete_windows_without_conditions():
    config = SINGING
    params = oracle.random_params(lambda key: init_params(config, key), scale=0.3)
    read = make_reader(config, params, make_mesh(MeshConfig()), "mean")
    rng = np.random.default_rng(0)
    songs = [rng.integers(0, config.codes, n) for n in (16, 40, 48)]
    found = features.pooled(config, read, songs, 2, batch=8)
    assert found.shape == (3, config.width) and found.dtype == np.float32
    one = jax.jit(collected, static_argnums=(0, 3))
    for song, row in zip(songs, found, strict=True):
        windows = song[: len(song) // 16 * 16].reshape(-1, 16)
        layers = [
            one(config, params, features.unconditioned(config, w[None]), "mean") for w in windows
        ]
        np.testing.assert_allclose(row, np.mean([x[1][0] for x in layers], 0), rtol=1e-4, atol=1e-5)
    told = features.unconditioned(config, songs[0][None])
    assert set(told) == {"codes", "artist", "genres", "total_length", "offset", "lyrics"}
    assert not told["artist"].any() and not told["lyrics"].any()


def test_export_and_ids(tmp_path):
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    features.export(tmp_path, rows, ["a", "b"], 2, 4)
    np.testing.assert_array_equal(np.load(tmp_path / "features.npy"), rows)
    assert json.loads((tmp_path / "features.ids.json").read_text())["songs"] == ["a", "b"]
    parquet = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "features.parquet")
    assert parquet["song"].to_pylist() == ["a", "b"]
    assert parquet["features"].to_pylist() == rows.tolist()


def test_probe_tells_what_can_be_told_and_no_more():
    rng = np.random.default_rng(0)
    genres = ["x", "y", "z"] * 20 + ["alone"]
    groups = [str(i) for i in range(61)]
    rows = rng.normal(size=(61, 8))
    chance = features.probe(rows, genres, groups)
    assert chance["songs"] == 60 and chance["genres"] == ["x", "y", "z"]
    assert chance["interval"][0] < 1 / 3 < chance["interval"][1]
    told = rows.copy()
    told[:, 0] += 6 * np.array([" xyz".find(g[0]) for g in genres])
    good = features.probe(told, genres, groups)
    assert good["accuracy"] > 0.9 > good["majority"]
    assert sum(map(sum, good["confusion"])) == 60
    with pytest.raises(Lacking, match="2 genres"):
        features.probe(rows[:3], ["x", "x", "y"], ["1", "2", "3"])


def test_probe_keeps_versions_of_a_song_on_one_side():
    rng = np.random.default_rng(0)
    songs = rng.normal(size=(12, 400))  # noise that could be learned by heart
    rows, genres = np.repeat(songs, 4, 0), np.repeat(["x", "y"] * 6, 4).tolist()
    together = features.probe(rows, genres, np.repeat(np.arange(12), 4).astype(str).tolist())
    apart = features.probe(rows, genres, [str(i) for i in range(48)])
    assert apart["accuracy"] == 1.0 > together["accuracy"] + 0.2


def test_wilson_interval():
    # 10 of 20: (0.5 +- ...) by the published formula, worked out by hand
    assert features.wilson(10, 20) == pytest.approx((0.2993, 0.7007), abs=1e-4)
    assert features.wilson(0, 10)[0] == pytest.approx(0, abs=1e-12)


# --- making or copying ----------------------------------------------------------------------------


def test_likelier_is_the_share_of_pairs():
    a, b = np.array([3.0, 1.0, 2.0]), np.array([1.0, 2.0])
    pairs = [(x > y) + 0.5 * (x == y) for x in a for y in b]
    assert memorisation.likelier(a, b) == (pytest.approx(np.mean(pairs)), None)
    value, interval = memorisation.likelier(np.repeat(a, 9), np.repeat(b, 9))
    assert interval is not None and interval[0] < value < interval[1]


def test_a_copy_is_found_out(tmp_path):
    from jukejax.evaluation.code_index import CodeIndex

    rng = np.random.default_rng(0)
    song = rng.integers(0, 512, 3000)
    index = CodeIndex(tmp_path, "x")
    index.add([("song", lambda: song)])
    windows = memorisation.cut([("copy", song[100:1100]), ("new", rng.integers(0, 512, 1000))], 500)
    assert [(name, start) for name, start, _ in windows] == [
        ("copy", 0), ("copy", 500), ("new", 0), ("new", 500)
    ]  # fmt: skip
    rows = memorisation.look(index, windows, 100.0, "windows")["windows"]
    assert [row["run"] for row in rows[:2]] == [500, 500]
    assert [row["share"] for row in rows[:2]] == [1.0, 1.0]
    assert [row["song_at_s"] for row in rows[:2]] == [1.0, 6.0]
    assert max(row["run"] for row in rows[2:]) < 5 and max(row["share"] for row in rows[2:]) < 0.1
