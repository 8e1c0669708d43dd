"""`jukejax model`: parts that belong together become a model directory, others are named."""

import dataclasses
import json
import shutil

import pytest
import tiny_model

from experiments import model as command
from experiments import sample
from jukejax.config import PriorExperiment
from jukejax.model_dir import NAME, read_model_dir
from jukejax.text.labels import Vocabulary


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    tiny_model.write(folder)
    return folder


def make(parts, *more, priors=(0, 2, 1), labels=("labels.json",), out="made"):
    words = [parts / f"prior_{p}" if isinstance(p, int) else p for p in priors]
    files = [f"{a}{b}{parts / c}" for a, b, c in (word.rpartition("=") for word in labels)]
    named = ["--labels", *files] if files else []
    line = ["make", "--vqvae", parts / "vqvae", "--priors", *words, "--out", parts / out, *named]
    command.main([str(word) for word in (*line, *more)])
    return parts / out


def refused(parts, **arguments):
    with pytest.raises(SystemExit) as stop:
        make(parts, out="refused", **arguments)
    assert not (parts / "refused").exists()
    return stop.value.code


def test_a_model_directory_from_runs_in_any_order(parts, capsys):
    made = make(parts)
    text = (parts / "model" / NAME).read_text()
    assert json.loads((made / NAME).read_text()) == json.loads(text)
    command.main(["show", str(made)])
    first, second = capsys.readouterr().out.split(f"{made}\n")[1:]
    assert [line.split(",")[0] for line in first.splitlines()[1:]] == [
        f"  level {level}: {(parts / f'prior_{level}')}" for level in (2, 1, 0)
    ]
    assert "conditioned on labels\n" in first and "windows of 0.0 s, conditioned on upper" in first
    assert second.replace("/made/..", "") == first


def test_a_level_less_and_a_file_a_level(parts, capsys):
    made = make(parts, priors=(2, 1), labels=("2=labels.json",), out="two")
    assert read_model_dir(made).labels(2).resolve() == parts / "labels.json"
    assert set(read_model_dir(made).label_files) == {2}
    assert "no prior for level 0" in capsys.readouterr().out


def test_two_priors_of_a_level_and_a_vqvae_among_them(parts):
    shutil.copytree(parts / "prior_1", parts / "twin", dirs_exist_ok=True)
    assert "are both priors of level 1" in refused(parts, priors=(1, 2, parts / "twin"))
    assert "is the run of a VQ-VAE" in refused(parts, priors=(parts / "vqvae",))


def test_a_vqvae_alone_can_be_evaluated_and_not_sampled(parts, capsys):
    made = make(parts, priors=(), labels=(), out="alone")
    assert "no prior for levels 0, 1, 2" in capsys.readouterr().out
    assert (read_model_dir(made).priors, read_model_dir(made).label_files) == ({}, {})
    with pytest.raises(SystemExit) as stop:
        sample.main([f"--model={made}", f"--out={parts / 'song'}", "--seconds=1"])
    assert "no prior" in stop.value.code


def test_every_part_that_does_not_fit_has_its_sentence(parts):
    others = parts / "others"
    for config, mark in ((tiny_model.TOP, "0123"), (tiny_model.MIDDLE, "4567")):
        experiment = PriorExperiment(model=dataclasses.replace(config, depth=1, attn_order=0))
        tiny_model.save(others / f"{config.level}", experiment, {"fingerprint": mark})
    words = refused(parts, priors=(others / "2", others / "1", 0))
    assert "does not fit together" in words
    assert "VQ-VAE 0123" in words and "VQ-VAE 4567" in words and len(words.splitlines()) == 3


def test_label_names_must_be_those_of_the_priors(parts):
    assert "give its --labels" in refused(parts, labels=())
    Vocabulary.build(["Ella", "Elvis", "Etta"], ["Jazz", "Soul"]).save(parts / "more.json")
    assert "4 artists, but the prior of level 2 has 3" in refused(parts, labels=("more.json",))
    assert "3=" in refused(parts, labels=("3=labels.json",))
    assert "LEVEL=FILE for levels that have a prior (0, 1, 2)" in refused(
        parts, labels=("labels.json", "more.json")
    )


def test_a_folder_that_is_no_run(parts):
    assert "error: " in refused(parts, priors=(parts / "nothing",))
