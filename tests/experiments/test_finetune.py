"""`jukejax finetune`: from a folder of sounds to a model that has learned a new artist."""

import dataclasses
import json
import math

import commands
import pytest
import tiny_codes
import tiny_model

import jukejax
from experiments import cli, finetune
from jukejax.model_dir import read_model_dir
from jukejax.text.labels import Vocabulary

OPTIONS = ["--steps=24", "--learning-rate=0.03"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sounds, prepared songs of other artists, and the tiny model; their codes are encoded."""
    path = tmp_path_factory.mktemp("finetune")
    commands.write_inputs(path)
    encode = ["--vqvae", path / "vqvae", "--data", path / "songs", "--out", path / "codes"]
    cli.run_command("encode", *map(str, encode))
    return path


def run(folder, out, *options, songs="sounds", model="model"):
    line = [f"--model={folder / model}", f"--songs={folder / songs}", f"--out={out}", *options]
    finetune.main([str(word) for word in line])


@pytest.fixture(scope="module")
def tuned(folder):
    """The run that all tests look at, on eight devices: interrupted before the model is made."""
    out = folder / "tuned"
    options = ["--artist=Nina Simone", f"--keep-songs={folder / 'codes'}", *OPTIONS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "model_step", lambda *_: pytest.fail("here it is interrupted"))
        with pytest.raises(pytest.fail.Exception):
            run(folder, out, *options)
    assert not (out / "model").exists()
    lines = (out / "prior_2" / "metrics.jsonl").read_text()
    before = (out / "before.json").read_text()
    run(folder, out, *options)
    assert (out / "prior_2" / "metrics.jsonl").read_text() == lines  # nothing is trained again
    assert (out / "before.json").read_text() == before
    return out


@pytest.mark.slow
def test_all_priors_learn_the_new_songs(tuned):
    before, after = (
        json.loads((tuned / f"{name}.json").read_text()) for name in ("before", "after")
    )
    assert set(before) == set(after) == {"new", "kept"}
    assert set(after["new"]) == {"0", "1", "2"} == set(before["kept"])
    assert all(after["new"][level] < before["new"][level] - 0.3 for level in after["new"])


@pytest.mark.slow
def test_the_model_knows_the_new_name_after_the_old_ones(tuned, folder):
    model = read_model_dir(tuned / "model")
    assert set(model.priors) == {0, 1, 2} and model.vqvae.resolve() == folder / "vqvae"
    old, new = Vocabulary.load(folder / "labels.json"), Vocabulary.load(model.labels(2))
    assert (
        new.artists == (*old.artists, "nina simone")
        and model.prior_config(2)[0].labels.artists == 4
    )
    song = jukejax.load(tuned / "model").sample(artist="Nina Simone", genre="Jazz", seconds=0.02)
    assert len(song.codes[2])


@pytest.mark.slow
def test_a_level_alone_from_a_packed_model_and_a_manifest(folder, tmp_path, capsys):
    from experiments import model as command

    packed = tmp_path / "packed"
    card = folder / "card.md"
    command.main(["ship", str(folder / "model"), "--card", str(card), "--out", str(packed)])
    run(
        folder, tmp_path / "out", "--levels=2", "--steps=2", "--learning-rate=1e-3",
        model=packed, songs="songs.jsonl",
    )  # fmt: skip
    model = read_model_dir(tmp_path / "out" / "model")
    assert model.priors[2].resolve() == tmp_path / "out" / "prior_2"
    assert model.priors[1].resolve() == packed / "prior_1.safetensors"
    names = Vocabulary.load(model.labels(2)).artists
    assert names[3:] == tuple(f"artist {i}" for i in range(6))
    assert "new songs, level 2" in capsys.readouterr().out


def test_by_default_the_songs_are_read_four_times(tiny_folder, tmp_path):
    base = read_model_dir(tiny_folder)
    config = base.prior_config(2)[0]
    tiny_codes.write(tmp_path, [{}] * 5, seconds=2)
    command = finetune.Finetune(tiny_folder, tmp_path, tmp_path, batch=8)
    words = finetune.training_step(command, base, config)
    windows = 5 * round(2 * tiny_codes.RATE / config.window_samples)
    assert f"--train.steps={math.ceil(4 * windows / 8)}" in words and "--mix" not in words

    old = tmp_path / "old"
    words = finetune.training_step(dataclasses.replace(command, keep_songs=old), base, config)
    assert words[words.index("--mix") + 1] == f"2:{old}"  # a quarter of each batch
    assert f"--train.steps={math.ceil(4 * windows / 6)}" in words
    words = finetune.training_step(dataclasses.replace(command, steps=7), base, config)
    assert "--train.steps=7" in words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"songs": "nothing"}, "there is no such folder"),
        ({"songs": "model"}, "holds no sound file"),
        ({"model": "codes"}, "is not a model directory"),
        ({}, "have no artist"),
        (["--artist=x", "--levels", "5"], "names no prior for level 5"),
        (["--artist=x", "--steps=0"], "--steps is 0"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(folder, tmp_path, options, words):
    more, changed = (options, {}) if isinstance(options, list) else ([], options)
    with pytest.raises(SystemExit, match=words):
        run(folder, tmp_path / "out", *more, **changed)
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert left in ([], ["songs.jsonl"])


def test_codes_of_another_vqvae_and_songs_shorter_than_a_window(folder, tmp_path, capfd):
    text = (folder / "codes" / "codes.json").read_text()
    other = tmp_path / "other"
    other.mkdir()
    for path in (folder / "codes").iterdir():
        if path.is_file():
            (other / path.name).write_bytes(path.read_bytes())
    mark = json.loads(text)["fingerprint"]
    (other / "codes.json").write_text(text.replace(mark, "0" * 16))
    with pytest.raises(SystemExit, match="0000000000000000"):
        run(folder, tmp_path / "out", "--artist=x", f"--keep-songs={other}")
    larger = tiny_model.write(tmp_path / "larger", n_ctx=4096)
    with pytest.raises(SystemExit, match="no song could be prepared"):
        run(folder, tmp_path / "out", "--artist=x", model=larger)


def test_every_step_is_a_command_that_is_printed(capfd, monkeypatch):
    steps = []
    monkeypatch.setattr(cli, "run_command", lambda *words: steps.append(words))
    finetune.run(["train", "a b", 3])
    assert steps == [("train", "a b", "3")]
    assert capfd.readouterr().out == "\n$ jukejax train 'a b' 3\n"


@pytest.mark.slow
def test_adapters_learn_and_are_a_small_file_beside_the_base(folder, tmp_path):
    out = tmp_path / "out"
    run(folder, out, "--artist=Nina", "--levels=2", "--lora=2", *OPTIONS)
    before, after = (json.loads((out / f"{name}.json").read_text()) for name in ("before", "after"))
    assert after["new"]["2"] < before["new"]["2"] - 0.1
    file = out / "prior_2" / "adapter.safetensors"
    model = read_model_dir(out / "model")
    assert model.priors[2].resolve() == file and file.stat().st_size < 30_000
    assert model.priors[1].resolve() == folder / "prior_1"
    song = jukejax.load(out / "model").sample(artist="Nina", genre="Jazz", seconds=0.02)
    assert len(song.codes[2])


@pytest.mark.parametrize(("new", "said"), [(5.9, False), (6.1, True)])
def test_a_model_that_got_worse_on_new_songs_is_said_to(new, said, tmp_path):
    (tmp_path / "before.json").write_text(json.dumps({"new": {"0": 6.0}, "kept": {"0": 5.0}}))
    (tmp_path / "after.json").write_text(json.dumps({"new": {"0": new}, "kept": {"0": 5.1}}))
    text = finetune.summary(tmp_path)
    assert "6.000" in text and f"{new - 6:+.3f}" in text and "+0.100" in text
    assert ("got worse" in text) == said
