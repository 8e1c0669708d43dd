"""Presets: parameter counts, hops and windows of the published models; names."""

import math

import flax.linen as nn
import jax
import pytest

from jukejax import presets
from jukejax.config import ConfigError, PriorExperiment, RendererExperiment
from jukejax.training.tasks import make_task


def test_priors_of_presets_have_tuned_layers():
    experiments = [make() for make in presets.PRESETS.values()]
    priors = [e.model for e in experiments if isinstance(e, PriorExperiment)]
    assert len(priors) == 14
    assert {prior.layers for prior in priors} == {"tuned"}


def parameters(name):
    boxed = jax.eval_shape(make_task(presets.get(name)).init, jax.random.key(0))
    return nn.unbox(boxed)


def count(tree):
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "upsampler_level_0",
            {
                (): 981_298_176,
                ("stack",): 797_333_760,
                ("upper",): 156_180_096,
                ("labels", "genre"): 230_400,
                ("labels", "artist"): 7_893_120,
                ("token",): 3_932_160,
                ("position",): 15_728_640,
            },
        ),
        ("upsampler_level_1", {(): 981_298_176}),
        ("prior_5b", {(): 5_060_452_800}),
        (
            "prior_5b_lyrics",
            {
                (): 5_640_506_800,
                ("stack",): 5_463_418_800,
                ("lyric_encoder", "stack"): 88_652_160,
            },
        ),
        ("prior_1b_lyrics", {(): 942_643_200, ("stack",): 907_112_448}),
        ("small_vqvae", {(): 586_050}),
        ("songs_vqvae", {(): 1_482_194}),
        ("renderer", {("renderer",): 14_270_978, ("discriminators",): 311_142}),
        ("songs_renderer", {("renderer",): 3_990_274, ("discriminators",): 79_542}),
        ("small_prior", {(): 160_814_080}),
        ("small_labelled_prior", {(): 161_122_304}),
        ("small_single_enc_dec_prior", {(): 159_499_264}),
        ("small_sep_enc_dec_prior", {(): 167_584_704}),
        ("small_upsampler", {(): 218_015_232}),
        (
            "vqvae",
            {
                (): 1_485_763,
                ("encoders_0",): 441_856,
                ("encoders_1",): 116_384,
                ("encoders_2",): 168_224,
                ("decoders_0",): 458_177,
                ("decoders_1",): 124_641,
                ("decoders_2",): 176_481,
            },
        ),
    ],
)
def test_parameter_counts(name, parts):
    tree = parameters(name)
    found = {}
    for path in parts:
        node = tree
        for key in path:
            node = node[key]
        found[path] = count(node)
    assert found == parts


def test_tensors_of_the_vqvae():
    # 669 of the published file, three of which are codebooks
    assert len(jax.tree.leaves(parameters("vqvae"))) == 666


@pytest.mark.parametrize(
    ("name", "level", "hop", "window"),
    [
        ("upsampler_level_0", 0, 8, 65_536),
        ("upsampler_level_1", 1, 32, 262_144),
        ("prior_5b", 2, 128, 1_048_576),
        ("prior_5b_lyrics", 2, 128, 1_048_576),
        ("prior_1b_lyrics", 2, 128, 786_432),
        ("small_prior", 1, 256, 2_097_152),
        ("small_sep_enc_dec_prior", 1, 256, 1_572_864),
        ("small_upsampler", 0, 32, 262_144),
        ("demo_upsampler_level_0", 0, 8, 4_096),
        ("demo_upsampler_level_1", 1, 32, 16_384),
        ("demo_prior", 2, 128, 65_536),
    ],
)
def test_hops_and_windows(name, level, hop, window):
    model = presets.get(name).model
    assert (model.level, model.hop, model.window_samples) == (level, hop, window)


@pytest.mark.parametrize(
    ("name", "hops"),
    [
        ("vqvae", (8, 32, 128)),
        ("demo_vqvae", (8, 32, 128)),
        ("small_vqvae", (32, 256)),
        ("songs_vqvae", (64,)),
    ],
)
def test_hops_of_vqvaes(name, hops):
    experiment = presets.get(name)
    assert experiment.model.hops == hops
    assert experiment.samples % experiment.model.block == 0


@pytest.mark.parametrize(
    "name", [n for n in presets.PRESETS if isinstance(presets.get(n), PriorExperiment)]
)
def test_priors_read_codes_of_their_vqvae(name):
    family = name.split("_")[0]
    vqvae = presets.get(
        f"{family}_vqvae" if family in ("demo", "small", "songs") else "vqvae"
    ).model
    model, top = presets.get(name).model, vqvae.levels - 1
    assert (model.codes, model.sample_rate) == (vqvae.codes, vqvae.sample_rate)
    assert model.groups == vqvae.groups
    assert model.hop == vqvae.hops[model.level]
    assert (model.upper is None) == (model.level == top)
    if model.upper:
        assert model.upper.ratio * model.hop == vqvae.hops[model.level + 1]


@pytest.mark.parametrize("name", ["demo", "songs", ""])
def test_renderers_read_the_top_level_of_their_vqvae(name):
    experiment = presets.get(f"{name}_renderer".removeprefix("_"))
    vqvae = presets.get(f"{name}_vqvae".removeprefix("_")).model
    assert isinstance(experiment, RendererExperiment)
    assert experiment.model.vqvae == vqvae
    assert experiment.model.level == vqvae.levels - 1


def test_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'prior_5b_lyric'.*'prior_5b_lyrics'"):
        presets.get("prior_5b_lyric")
    with pytest.raises(ConfigError, match="known: demo_vqvae"):
        presets.get("x")
