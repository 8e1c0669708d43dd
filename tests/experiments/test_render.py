"""A renderer in the place of upsamplers and decoder: from `model make` to the sample directory."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny_model
from tiny_model import HOPS, RATE, VQVAE

import jukejax
from experiments import model as command
from experiments.sample import Command, run
from jukejax.config import MeshConfig, RendererConfig, RendererExperiment
from jukejax.errors import CheckpointError, ConfigError, InteropError
from jukejax.interop import exporting
from jukejax.model_dir import NAME, load_vqvae, read_model_dir
from jukejax.models import renderer
from jukejax.parallel.mesh import make_mesh

CONFIG = RendererConfig(
    vqvae=VQVAE, level=2, width=4, depth=2, dilation_growth=2, dilation_cycle=2, hop=8,
    synthesis=32, discriminators=(128,), channels=2,
)  # fmt: skip
SECONDS = 0.0751
OPTIONS = {"artist": "Ella", "genre": "Jazz", "seconds": SECONDS, "seed": 5}


@pytest.fixture(scope="module")
def parts(tiny_folder, tmp_path_factory):
    """A folder with a renderer's run, and a model directory that names it."""
    folder, tiny = tmp_path_factory.mktemp("render"), tiny_folder.parent
    mark = load_vqvae(tiny / "vqvae", make_mesh(MeshConfig())).fingerprint
    tiny_model.save(folder / "run", RendererExperiment(CONFIG), {"fingerprint": mark})
    priors = [str(tiny / f"prior_{level}") for level in (2, 1, 0)]
    command.main(
        ["make", "--vqvae", str(tiny / "vqvae"), "--renderer", str(folder / "run"), "--priors",
         *priors, "--labels", str(tiny / "labels.json"), "--out", str(folder / "model")]
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def model(parts):
    with pytest.MonkeyPatch.context() as patch:
        tiny_model.read_once(patch)
        yield jukejax.load(parts / "model")


@pytest.fixture(scope="module")
def song(model, tmp_path_factory):
    return model.sample(folder=tmp_path_factory.mktemp("song") / "out", render=True, **OPTIONS)


def refused(error, match, call, *arguments, **options):
    with pytest.raises(error, match=match):
        call(*arguments, **options)


def test_the_top_level_alone_is_sampled_and_its_sound_is_rendered(model, song):
    assert [len(z) for z in song.codes] == [0, 0, 38]
    config, weights = model.loaded.renderer.config, model.loaded.renderer
    book = model.loaded.vqvae.books[2].codes
    render = jax.jit(renderer.render, static_argnums=0)
    whole = render(config, weights.params, book, song.codes[2][None])[0, :, 0]
    expected = np.clip(whole, -1, 1)[: round(SECONDS * RATE)]
    np.testing.assert_allclose(song.audio, expected, atol=1e-4)  # 16 bits
    np.testing.assert_allclose(model.render(song.codes[2]), np.clip(whole, -1, 1), atol=1e-5)
    plain = model.decode(song.codes[2], level=2)[: len(expected)]
    assert np.abs(plain - expected).max() > 0.01 and np.std(expected) > 0.01
    assert [path.parent.name for path in song.folder.glob("level_*/*.wav")] == ["level_2"]


def test_the_job_says_so_and_the_same_job_samples_it_again(parts, song, tmp_path):
    record = json.loads((song.folder / "job.json").read_text())
    assert record["request"]["render"] is True and record["request"]["levels"] == [2]
    assert record["levels"][0]["name"] == "top, rendered"
    assert record["levels"][0]["renderer"].endswith("run unnamed step 2")
    run(Command(out=tmp_path / "again", job=song.folder / "job.json"))
    tiny_model.assert_same(song.folder, tmp_path / "again", levels=(2,))


def test_streamed_pieces_are_the_sound(model, song):
    pieces = list(model.stream(render=True, **OPTIONS))
    np.testing.assert_allclose(np.concatenate(pieces), song.audio, atol=1e-4)


def test_a_lost_sound_is_rendered_again_and_another_renderer_is_refused(model, song):
    sound = song.folder / "level_2" / "item_0.wav"
    before = sound.read_bytes()
    sound.unlink()
    model.sample(folder=song.folder, render=True, **OPTIONS)
    assert sound.read_bytes() == before
    loaded = dataclasses.replace(model.loaded)
    loaded.__dict__["renderer"] = dataclasses.replace(model.loaded.renderer, weights="others")
    changed = dataclasses.replace(model, loaded=loaded)
    ask = dict(folder=song.folder, render=True, **OPTIONS)
    refused(ConfigError, "begun with other weights .*now others", changed.sample, **ask)


def test_a_rendered_sample_is_continued_and_upsampled(model, song, tmp_path):
    longer = model.sample(
        folder=tmp_path / "longer", continue_from=song.folder, seconds=0.1, render=True
    )
    np.testing.assert_array_equal(longer.codes[2][:38], song.codes[2])
    np.testing.assert_allclose(model.render(longer.codes[2])[:800], longer.audio, atol=1e-4)
    up = model.sample(folder=tmp_path / "up", upsample=song.folder)
    assert [len(z) for z in up.codes] == [-(-608 // hop) for hop in HOPS]
    np.testing.assert_allclose(model.decode(up.codes[0], 0)[: len(up.audio)], up.audio, atol=1e-4)


def test_a_sample_is_rendered_afterwards(model, song, tmp_path):
    plain = model.sample(folder=tmp_path / "plain", levels=2, **OPTIONS)
    rendered = model.sample(
        folder=tmp_path / "rendered", continue_from=plain.folder, seconds=SECONDS, render=True
    )
    np.testing.assert_array_equal(rendered.codes[2], song.codes[2])
    np.testing.assert_array_equal(rendered.audio, song.audio)
    assert np.abs(plain.audio - song.audio).max() > 0.01


def test_requests_that_cannot_be_rendered(parts, model, song, tiny_folder):
    refused(ConfigError, "lowest, but the renderer", model.request, render=True, levels=(1, 2))
    refused(
        ConfigError, "render samples no lower levels", model.request, render=True,
        upsample=song.folder,
    )  # fmt: skip
    without = jukejax.load(tiny_folder)
    refused(CheckpointError, "names no renderer", without.request, render=True)
    refused(CheckpointError, "names no renderer", without.render, song.codes[2])
    refused(ConfigError, "codes are from", model.render, np.array([11]))


def test_a_renderer_of_other_codes_makes_no_model(parts, tiny_folder, capsys):
    tiny = tiny_folder.parent
    tiny_model.save(parts / "other", RendererExperiment(CONFIG), {"fingerprint": "abc"})
    line = ["make", "--vqvae", str(tiny / "vqvae"), "--out", str(parts / "x"), "--renderer"]
    for wrong, message in (("other", "learned codes of VQ-VAE abc"), ("model", "not a train")):
        with pytest.raises(SystemExit) as stop:
            command.main([*line, str(parts / wrong)])
        assert message in str(stop.value.code)
    with pytest.raises(SystemExit) as stop:
        command.main([*line, str(tiny / "prior_2")])
    assert "is not the run of a renderer" in str(stop.value.code)
    with pytest.raises(SystemExit) as stop:
        command.main([*line[:-1], "--priors", str(parts / "run")])
    assert "is the run of a renderer; give it as --renderer" in str(stop.value.code)


def test_a_packed_model_renders_without_the_discriminators(parts, model, song):
    (parts / "card.md").write_text("# Tiny\n")
    packed = parts / "packed"
    command.main(
        ["ship", str(parts / "model"), "--card", str(parts / "card.md"), "--out", str(packed)]
    )
    loaded = jukejax.load(packed).loaded.renderer
    assert not loaded.config.loss.adversarial and loaded.weights == model.loaded.renderer.weights
    rounded = jax.tree.map(
        lambda x: np.asarray(x.astype("bfloat16").astype("float32")), model.loaded.renderer.params
    )
    jax.tree.map(np.testing.assert_array_equal, loaded.params, rounded)
    np.testing.assert_array_equal(loaded.book, model.loaded.renderer.book)
    assert "renderer.safetensors" in json.loads((packed / NAME).read_text())["files"]
    assert read_model_dir(packed).renderer == packed / "renderer.safetensors"


def test_a_renderer_is_not_exported(parts):
    def export():
        with exporting.open_run(parts / "run"):
            pass

    refused(InteropError, "is a renderer, which formats of other projects do not", export)
