"""Likelihood figures against brute force, and the command from songs to results."""

import contextlib
import dataclasses
import functools
import io
import itertools
import json
import os
import shutil

import numpy as np
import pytest
import soundfile

from data_pipeline import prepare
from data_pipeline.code_loader import code_token_counts
from data_pipeline.codes import CodesWriter, codes_info, codes_length, read_song_codes
from data_pipeline.labels import Vocabulary
from data_pipeline.plan import Options
from experiments.evaluate import command, subject
from jukejax.checkpoint import CheckpointError, Checkpoints
from jukejax.config import (
    LabelsConfig,
    MeshConfig,
    PriorConfig,
    PriorExperiment,
    UpperConfig,
    VQVAEConfig,
    VQVAEExperiment,
    to_dict,
)
from jukejax.evaluation import likelihood, report
from jukejax.model_dir import load_vqvae, read_model_dir, write_model_dir
from jukejax.models import prior
from jukejax.parallel.mesh import make_mesh
from jukejax.training.step import abstract_state
from jukejax.training.tasks import make_task

TINY = PriorConfig(
    level=1, hop=32, codes=12, n_ctx=16, width=8, depth=3, heads=2, blocks=4, attn_ratio=0.5,
    upper=UpperConfig(width=4, depth=1),
)  # fmt: skip


def counted(sequences, codes=5):
    counts = likelihood.empty_counts(codes)
    for sequence in sequences:
        likelihood.count(counts, np.asarray(sequence, np.uint16))
    return counts


# --- models that count ----------------------------------------------------------------------------


def test_counts_do_not_cross_songs():
    counts = counted([[0, 1, 1, 1, 0], [2], [], [0, 1]])
    assert counts.tokens.tolist() == [3, 4, 1, 0, 0]
    pairs = {(a, b): int(n) for (a, b), n in np.ndenumerate(counts.pairs) if n}
    assert pairs == {(0, 1): 2, (1, 1): 2, (1, 0): 1}


def test_a_code_beyond_the_codebook_is_refused():
    with pytest.raises(CheckpointError, match="go up to 5"):
        counted([[0, 5]])


def test_unigram_and_bigram_bits_by_brute_force():
    rng = np.random.default_rng(0)
    songs = [rng.integers(0, 4, n).tolist() for n in (30, 17, 1)]
    model = likelihood.fit(counted(songs))._replace(alpha=2.5)
    windows = rng.integers(0, 5, (3, 7))  # code 4 never occurs in training
    tokens = [b for song in songs for b in song]
    pairs = [pair for song in songs for pair in itertools.pairwise(song)]

    def unigram(b):
        return (tokens.count(b) + 1) / (len(tokens) + 5)

    def bigram(a, b):
        after = sum(first == a for first, _ in pairs)
        return (pairs.count((a, b)) + 2.5 * unigram(b)) / (after + 2.5)

    assert sum(unigram(b) for b in range(5)) == pytest.approx(1)
    for a in range(5):
        assert sum(bigram(a, b) for b in range(5)) == pytest.approx(1)
    for window, single, double in zip(
        windows, model.unigram_bits(windows), model.bigram_bits(windows), strict=True
    ):
        wanted = [-np.log2(unigram(b)) for b in window]
        np.testing.assert_allclose(single, wanted, rtol=1e-12)
        pairwise = [-np.log2(bigram(a, b)) for a, b in itertools.pairwise(window)]
        np.testing.assert_allclose(double, [wanted[0], *pairwise], rtol=1e-12)


def test_alpha_is_the_best_when_pairs_are_left_out_in_turn():
    rng = np.random.default_rng(1)
    song = np.cumsum(rng.choice([0, 0, 1], 60)) % 5
    counts = counted([song])

    def bits(alpha):
        total = 0.0
        for t in range(1, len(song)):
            others = [(song[i - 1], song[i]) for i in range(1, len(song)) if i != t]
            a, b = song[t - 1], song[t]
            unigram = ((song == b).sum() - 1 + 1) / (len(song) - 1 + 5)
            after = sum(first == a for first, _ in others)
            total -= np.log2((others.count((a, b)) + alpha * unigram) / (after + alpha))
        return total

    assert likelihood.choose_alpha(counts) == min(likelihood.ALPHAS, key=bits)


def test_alpha_is_large_where_neighbours_say_nothing_and_small_where_they_say_all():
    rng = np.random.default_rng(2)
    assert likelihood.choose_alpha(counted([rng.integers(0, 5, 4000)])) > 50
    assert likelihood.choose_alpha(counted([np.arange(4000) % 5])) == likelihood.ALPHAS[0]


# --- the prior ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def params(oracle):
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
    bits = -np.take_along_axis(log_p, whole["codes"][..., None], -1) / np.log(2)
    model = likelihood.fit(counted([[0, 1, 2, 3]], codes=12))
    scorer = likelihood.make_scorer(TINY, params, make_mesh(mesh))
    found = likelihood.evaluate(TINY, scorer, model, windows_of(11, 8))
    assert found["bits_per_token"] == pytest.approx(bits.mean(), rel=1e-5)
    assert found["bits_per_second"] == pytest.approx(bits.mean() * 44_100 / 32, rel=1e-5)
    assert found["unigram_bits_per_token"] == pytest.approx(
        model.unigram_bits(whole["codes"]).mean()
    )
    assert found["bigram_bits_per_token"] == pytest.approx(model.bigram_bits(whole["codes"]).mean())
    assert (found["tokens"], found["windows"], found["songs"]) == (11 * 16, 11, 3)
    assert found["uniform_bits_per_token"] == pytest.approx(np.log2(12))


def test_bits_that_are_not_finite_are_a_sentence():
    model = likelihood.fit(counted([[0, 1]], codes=12))

    def scorer(batch):
        bits = np.zeros(batch["codes"].shape)
        bits[-1, 3] = np.nan
        return bits

    with pytest.raises(CheckpointError, match=r"level 1 .* window 7"):
        likelihood.evaluate(TINY, scorer, model, windows_of(16, 8))
    last_row_is_filling = windows_of(7, 8)
    assert likelihood.evaluate(TINY, scorer, model, last_row_is_filling)["windows"] == 7
    with pytest.raises(CheckpointError, match="no held-out window"):
        likelihood.evaluate(TINY, scorer, model, [])


# --- the command ----------------------------------------------------------------------------------


def write_songs(folder):
    """Two songs to train on and two to test on."""
    rng, entries = np.random.default_rng(0), []
    splits = {"a": "train", "b": "train", "c": "test", "d": "test"}
    for name, split in splits.items():
        t = np.arange(40_001)[:, None] / 44_100
        x = 0.3 * np.sin(2 * np.pi * 440 * t) + 0.05 * rng.normal(size=(len(t), 2))
        soundfile.write(folder / f"{name}.wav", x, 44_100, subtype="PCM_16")
        entries.append({"id": name, "audio": f"{name}.wav", "artist": name, "split": split})
    manifest = folder / "songs.jsonl"
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return manifest


def save_run(workdir, experiment, oracle, note=None):
    """A checkpoint of random weights, as training for 2 steps would leave it."""
    abstract = abstract_state(make_task(experiment), experiment, make_mesh(experiment.mesh))
    trees = abstract._asdict()
    trees.pop("step")
    weights = oracle.random_params(lambda key: abstract.ema, scale=0.1)
    extra = oracle.random_params(lambda key: abstract.extra)
    trees |= {"params": weights, "ema": weights, "opt_state": {}, "extra": extra}
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(2, trees, {"experiment": to_dict(experiment), **(note or {})})


def write_codes(folder):
    """Random codes, some likelier than others, as codes of the VQ-VAE in `folder`."""
    vqvae = load_vqvae(folder / "vqvae", make_mesh(MeshConfig()))
    hops, rng = vqvae.config.hops, np.random.default_rng(7)
    writer = CodesWriter(folder / "songs", folder / "codes", hops, vqvae.fingerprint, codes=16)
    for shard in writer.pending_shards():
        encoded = []
        for song in shard.songs:
            lengths = [codes_length(song.n_samples, hop, hops[-1]) for hop in hops]
            encoded.append((song, [rng.binomial(15, 0.2, length) for length in lengths]))
        writer.write_shard(shard, encoded)
    writer.finish()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, oracle):
    """A folder with songs, a random VQ-VAE, codes, two random priors, model directories."""
    folder = tmp_path_factory.mktemp("trained")
    options = Options(min_seconds=0.5)
    prepare.build(write_songs(folder), folder / "songs", options=options, show_progress=False)
    model = VQVAEConfig(width=4, depth=1, multipliers=(1, 1, 1), emb_width=4, codes=16)
    save_run(folder / "vqvae", VQVAEExperiment(model=model), oracle)
    write_codes(folder)
    small = PriorConfig(codes=16, n_ctx=16, width=8, depth=1, blocks=4, attn_ratio=1.0)
    labels = LabelsConfig(artists=3, genres=1, timing_bins=4, min_seconds=0.1)
    top = dataclasses.replace(small, labels=labels)
    middle = dataclasses.replace(small, level=1, hop=32, upper=UpperConfig(width=4, depth=1))
    fingerprint = codes_info(folder / "codes").fingerprint
    for config in (top, middle):
        run = folder / f"prior_{config.level}"
        note = {"fingerprint": fingerprint, "run": f"run of level {config.level}"}
        save_run(run, PriorExperiment(model=config), oracle, note)
    labels_file = folder / "songs" / "labels.json"
    runs = {level: folder / f"prior_{level}" for level in (1, 2)}
    write_model_dir(folder / "model", folder / "vqvae", runs, labels_file)
    write_model_dir(folder / "no_priors", folder / "vqvae", {}, labels_file)
    return folder


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
    assert "reconstruction, likelihood, all" in exits(arguments(trained, "x", tmp_path), capsys)
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
