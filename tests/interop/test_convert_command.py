"""The convert command on small random files: in, out again bit for bit, and what it refuses."""

import functools
import json
import os
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from openai_files import write, write_release

from experiments import convert as command
from jukejax import presets
from jukejax.config import (
    LabelsConfig,
    LyricsConfig,
    MeshConfig,
    PriorConfig,
    PriorExperiment,
    UpperConfig,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.interop import importing, openai_settings, torch_files
from jukejax.label_kinds import ARTIST, GENRE
from jukejax.model_dir import load_vqvae, read_model_dir
from jukejax.models.prior import Prior, example_batch
from jukejax.parallel.mesh import make_mesh
from jukejax.text.labels import Vocabulary
from jukejax.training.checkpoint import load_experiment, open_existing

VQVAE = VQVAEConfig(downs=(1, 1, 1), multipliers=(2, 1, 1), width=4, depth=1, emb_width=4, codes=16)
LABELS = LabelsConfig(artists=5, genres=3, max_genres=2)
SMALL = dict(  # imported priors have the tuned layers
    codes=16, n_ctx=16, width=8, heads=2, blocks=4, depth=3, labels=LABELS, layers="tuned"
)  # fmt: skip
UPPER = UpperConfig(ratio=2, width=4, depth=2)
PRIORS = {
    2: PriorConfig(
        **(SMALL | {"depth": 4}), level=2, hop=8, attn_order=6, tied_output=False,
        lyrics=LyricsConfig(tokens=8, width=8, depth=3, heads=1, blocks=2),
    ),
    1: PriorConfig(**SMALL, level=1, hop=4, upper=UPPER),
    0: PriorConfig(**SMALL, level=0, hop=2, upper=UPPER),
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_release(tmp_path_factory.mktemp("files"), VQVAE, PRIORS)


def import_arguments(files, out, *more):
    priors = [str(p) for name, p in files.items() if name != "vqvae"]
    return [
        "import",
        "--format",
        "openai",
        "--vqvae",
        str(files["vqvae"]),
        "--prior",
        *priors,
        "--out",
        str(out),
        *more,
    ]


@pytest.fixture(scope="module")
def model(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "m"
    command.main(import_arguments(files, out))
    return out


def test_everything_comes_back_bit_for_bit(files, model, tmp_path):
    command.main(["export", "--format=openai", "--model", str(model), "--out", str(tmp_path)])
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in files.values()}
    for name, path in files.items():
        before, after = torch_files.read(path), torch_files.read(tmp_path / f"{name}.pth.tar")
        assert (before.hps, before.step) == (after.hps, after.step)
        assert before.tensors.keys() == after.tensors.keys()
        for key, tensor in before.tensors.items():
            assert tensor.dtype == after.tensors[key].dtype
            np.testing.assert_array_equal(tensor.read(), after.tensors[key].read(), key)


def test_the_model_directory_loads(files, model):
    folder, mesh = read_model_dir(model), make_mesh(MeshConfig())
    vqvae = load_vqvae(folder.vqvae, mesh)
    assert vqvae.config == VQVAE and vqvae.step == 49
    priors = {level: folder.load_prior(mesh, vqvae, level) for level in (0, 1, 2)}
    for level, prior in priors.items():
        assert prior.config == PRIORS[level]
        run = functools.partial(Prior(prior.config).apply, {"params": prior.params})
        logits, _ = jax.eval_shape(run, example_batch(prior.config))
        assert logits.shape == (1, 16, 16)
    names = json.loads(folder.labels(2).read_text())
    assert names["artists"] == ["unknown", "artist 1", "artist 2", "artist 3", "artist 4"]
    assert names["genres"] == ["unknown", "genre 1", "genre 2"]
    with open_existing(folder.priors[1]) as checkpoints:
        note = checkpoints.config()
    assert note["origin"]["sha256"] == torch_files.sha256(files["prior_level_1"])


def test_names_from_id_files(files, tmp_path):
    (tmp_path / "artists").write_text(";0\nvarious;0\nabba;2\nbj_rk;1\nabba_again;2\nx;3\ny;4\n")
    (tmp_path / "genres").write_text("unknown;0\nrock;1\npop;2\n")
    out = tmp_path / "m"
    only = {"vqvae": files["vqvae"], "p": files["prior_level_1"]}
    ids = [str(tmp_path / "artists"), str(tmp_path / "genres")]
    assert_refused(
        import_arguments(only, out, "--v3-ids", *ids), out, r"names of v2; give --v2-ids"
    )
    command.main(import_arguments(only, out, "--v2-ids", *ids))
    names = Vocabulary.load(read_model_dir(out).labels(1))
    assert [names.ids(ARTIST, n) for n in ("Björk", "ABBA", "Abba again", "Nobody")] == [1, 2, 2, 0]
    assert names.ids(GENRE, ["Pop Rock"], 2).tolist() == [2, 1]


def test_the_rule_of_names_is_the_files_own(files):
    opened = importing.open_prior(
        torch_files.read(files["prior_level_1"]), VQVAEExperiment(VQVAE, 64)
    )
    assert importing.rule_of(opened) == "v2"  # two genres a song
    told = replace(opened.file, hps=opened.file.hps | {"labels_v3": True})
    assert importing.rule_of(replace(opened, file=told)) == "v3"


def test_a_preset_names_what_a_file_does_not(files, tmp_path, monkeypatch, capsys):
    known = {"v": lambda: VQVAEExperiment(VQVAE, 64), "p0": lambda: PriorExperiment(PRIORS[0])}
    monkeypatch.setattr(presets, "PRESETS", known)
    bare = {
        "vqvae": write(tmp_path / "v", VQVAE, None, 1),
        "p": write(tmp_path / "p", PRIORS[0], None, 2),
    }
    out = tmp_path / "m"
    with pytest.raises(SystemExit, match=r"has no settings.*match v"):
        command.main(import_arguments(bare, out))
    more = ("--vqvae-preset", "v", "--prior-preset", "p0")
    command.main(import_arguments(bare, out, *more))
    assert "so level 0 is not verified" in capsys.readouterr().out
    # what is given back says of itself what it is
    command.main(["export", "--format=openai", "--model", str(out), "--out", str(tmp_path / "f")])
    again = {"vqvae": tmp_path / "f/vqvae.pth.tar", "p": tmp_path / "f/prior_level_0.pth.tar"}
    command.main(import_arguments(again, tmp_path / "again"))
    assert load_experiment(tmp_path / "again/prior_level_0")[0].model == PRIORS[0]
    assert load_experiment(tmp_path / "again/vqvae")[0].model == VQVAE
    # a file that knows its level is not taken for another
    wrong = {"vqvae": files["vqvae"], "p": files["prior_level_1"]}
    with pytest.raises(SystemExit, match="says that it is of level 1"):
        command.main(import_arguments(wrong, tmp_path / "n", "--prior-preset", "p0"))


def assert_refused(arguments, out, match):
    with pytest.raises(SystemExit, match=match):
        command.main(arguments)
    assert not out.exists()


def test_nothing_is_written_when_a_file_does_not_fit(files, tmp_path):
    hps = openai_settings.prior_settings(PRIORS[0])
    bad = write(
        tmp_path / "bad", PRIORS[0], hps, 0, drop=["prior.pos_emb.pos_emb"],
        add=[("prior.more", (3,)), ("prior.x_emb.weight", (16, 9))],
    )  # fmt: skip
    out = tmp_path / "m"
    both = files | {"prior_level_0": bad}
    assert_refused(
        import_arguments(both, out), out,
        r"(?s)4 tensors differ.*missing  prior.pos_emb.*extra    prior.more.*x_emb.*x_out",
    )  # fmt: skip
    twice = files | {"again": files["prior_level_0"]}
    assert_refused(import_arguments(twice, out), out, "second prior of level 0")
    assert_refused(import_arguments({**files, "vqvae": bad}, out), out, "lack")
    swapped = {"vqvae": files["prior_level_0"], "p": files["vqvae"]}
    assert_refused(import_arguments(swapped, out), out, "lack")


def test_digests_are_checked(files, tmp_path):
    out = tmp_path / "m"
    right = [torch_files.sha256(p) for p in files.values()]
    assert_refused(
        import_arguments(files, out, "--sha256", *right[:-1], "0" * 64), out, "download it"
    )
    assert_refused(import_arguments(files, out, "--sha256", right[0]), out, "1 digests for 4 files")
    only = {"vqvae": files["vqvae"], "p": files["prior_level_2"]}
    command.main(import_arguments(only, out, "--sha256", right[0], right[1]))


def test_a_model_is_not_written_over(files, model):
    with pytest.raises(SystemExit, match="not empty"):
        command.main(import_arguments(files, model))


@pytest.mark.parametrize("action", ["import", "export"])
def test_help_of_an_action_ends_well_and_a_missing_format_does_not(action, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main([action, "--help"])
    assert stopped.value.code == 0 and "--format openai|huggingface" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=f"{action} needs --format, one of: openai"):
        command.main([action, "--model", "m"])


def test_an_interrupted_export_runs_again_and_gives_the_same_bytes(model, tmp_path, monkeypatch):
    def export(out):
        command.main(["export", "--format", "openai", "--model", str(model), "--out", str(out)])
        return {path.name: path.read_bytes() for path in out.iterdir()}

    real, written = torch_files.write, []

    def stops_late(path, *rest):
        real(path, *rest)
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(torch_files, "write", stops_late)
        patch.setattr("os._exit", sys.exit)  # as Ctrl-C ends a command
        export(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".out.partial").mkdir()  # as a killed run leaves it
    (tmp_path / ".out.partial" / "vqvae.pth.tar").touch()
    first = export(tmp_path / "out")
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert export(tmp_path / "again") == first
    assert sorted(os.listdir(tmp_path)) == ["again", "out"]
    with pytest.raises(SystemExit, match="is not empty; choose another --out"):
        export(tmp_path / "out")
