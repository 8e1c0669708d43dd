"""Configs: JSON round trip, sentences for what cannot be, attention orders, runs of layers."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jukejax import presets
from jukejax.config import (
    REMATS,
    ConfigError,
    FramesConfig,
    LabelsConfig,
    LyricsConfig,
    MeshConfig,
    OptimizerConfig,
    PriorConfig,
    PriorExperiment,
    ReconstructionLoss,
    RendererConfig,
    RendererExperiment,
    RendererLoss,
    TrainConfig,
    UpperConfig,
    VQVAEConfig,
    VQVAEExperiment,
    from_dict,
    to_dict,
)
from jukejax.patterns import layer_patterns, segments

R, C, P, D = "row", "column", "previous_row", "dense"
X, Y = "cross", "prime"

PRIORS = st.builds(
    PriorExperiment,
    model=st.builds(
        PriorConfig,
        level=st.integers(0, 2),
        hop=st.sampled_from([8, 32, 128]),
        n_ctx=st.sampled_from([128, 256, 8192]),
        width=st.sampled_from([32, 64]),
        depth=st.integers(1, 40),
        heads=st.sampled_from([1, 2, 4]),
        blocks=st.sampled_from([1, 8, 64]),
        attn_order=st.sampled_from([0, 1, 2, 9]),
        init_scale=st.floats(0, 2),
        scale_residual=st.booleans(),
        tied_output=st.booleans(),
        labels=st.none() | st.builds(LabelsConfig, min_seconds=st.floats(0, 60)),
        lyrics=st.none()
        | st.builds(LyricsConfig, tokens=st.sampled_from([64, 128]), prefix=st.booleans()),
        upper=st.none() | st.builds(UpperConfig, ratio=st.sampled_from([2, 4, 8])),
        remat=st.sampled_from(REMATS),
    ),
    label_dropout=st.floats(0, 1),
    optimizer=st.builds(OptimizerConfig, learning_rate=st.floats(1e-9, 1e3)),
)
VQVAES = st.builds(
    VQVAEExperiment,
    model=st.integers(1, 4).flatmap(
        lambda n: st.builds(
            VQVAEConfig,
            downs=st.tuples(*[st.integers(1, 3)] * n),
            multipliers=st.tuples(*[st.integers(1, 2)] * n),
        )
    ),
    samples=st.sampled_from([4096, 393_216]),
)


@given(PRIORS | VQVAES)
def test_json_round_trip(experiment):
    text = json.dumps(to_dict(experiment))
    assert from_dict(type(experiment), json.loads(text)) == experiment


@pytest.mark.parametrize("name", presets.PRESETS)
def test_json_round_trip_of_presets(name):
    experiment = presets.get(name)
    assert from_dict(type(experiment), json.loads(json.dumps(to_dict(experiment)))) == experiment


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("model", "widht"), 8, ["config.model", "'widht'", "'width'"]),
        (("model", "lyrics", "token"), 8, ["config.model.lyrics", "'token'", "'tokens'"]),
        (("zzz",), 8, ["'zzz'", "known:", "model", "optimizer"]),
        (("model", "width"), "64", ["config.model.width", "'64'", "int"]),
        (("model", "width"), 64.0, ["config.model.width", "64.0", "int"]),
        (("model", "width"), True, ["config.model.width", "True", "int"]),
        (("model", "width"), None, ["config.model.width", "None", "int"]),
        (("model", "tied_output"), 1, ["config.model.tied_output", "bool"]),
        (("model", "type"), "VQVAEConfig", ["VQVAEConfig", "PriorConfig"]),
        (("label_dropout",), "0.1", ["config.label_dropout", "float"]),
        (("label_dropout",), math.inf, ["config.label_dropout", "inf", "finite"]),
    ],
)
def test_wrong_field_is_named(path, value, words):
    data = to_dict(presets.get("prior_5b_lyrics"))
    place = data
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(ConfigError) as error:
        from_dict(PriorExperiment, data)
    for word in words:
        assert word in str(error.value)


def test_whole_numbers_are_floats_where_floats_are_meant():
    loaded = from_dict(OptimizerConfig, {"learning_rate": 1})
    assert type(loaded.learning_rate) is float
    assert loaded.learning_rate == 1.0


def test_priors_of_files_without_layers_are_tuned():
    written = to_dict(PriorExperiment())
    assert written["model"].pop("layers") == PriorConfig().layers == "plain"
    assert from_dict(PriorExperiment, written).model.layers == "tuned"
    written["model"]["layers"] = "plain"
    assert from_dict(PriorExperiment, written) == PriorExperiment()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VQVAEConfig(downs=(3, 2)), ["downs", "multipliers", "levels"]),
        (lambda: VQVAEConfig(unquantized=1.0), ["unquantized is 1.0", "[0, 1)"]),
        (lambda: VQVAEConfig(groups=3), ["groups 3", "8 samples"]),
        (lambda: PriorConfig(groups=3), ["n_ctx 8192", "groups 3"]),
        (lambda: FramesConfig(hop=0), ["hop is 0"]),
        (lambda: FramesConfig(hop=64, window=32), ["frames.window 32", "frames.hop 64"]),
        (lambda: FramesConfig(hop=32, synthesis=96), ["frames.synthesis is 96", "64"]),
        (lambda: VQVAEConfig(loss=ReconstructionLoss(frames=1.0)), ["loss.frames is 1.0"]),
        (lambda: VQVAEExperiment(samples=1000), ["samples 1000", "128"]),
        (lambda: RendererConfig(level=3), ["level is 3", "0 to 2"]),
        (lambda: RendererConfig(hop=48), ["hop is 48", "128"]),
        (lambda: RendererConfig(synthesis=384), ["synthesis is 384", "256"]),
        (lambda: RendererConfig(discriminators=(1000,)), ["discriminators has 1000", "powers"]),
        (lambda: RendererConfig(discriminators=()), ["discriminators is empty"]),
        (lambda: RendererLoss(adversarial=0.0), ["loss.features is 5.0", "loss.adversarial"]),
        (lambda: RendererExperiment(samples=1000), ["samples 1000", "128"]),
        (lambda: PriorConfig(n_ctx=100, blocks=64), ["blocks 64", "100"]),
        (
            lambda: PriorConfig(
                n_ctx=64, blocks=32, lyrics=LyricsConfig(tokens=8, prefix=True), attn_order=2
            ),
            ["blocks 32", "72"],
        ),
        (lambda: PriorConfig(width=64, heads=3), ["heads 3", "16"]),
        (lambda: PriorConfig(remat="some"), ["'some'", "'layer'"]),
        (lambda: PriorConfig(dtype="float16"), ["'float16'", "float32, bfloat16"]),
        (lambda: VQVAEConfig(dtype="float16"), ["'float16'", "float32, bfloat16"]),
        (lambda: PriorConfig(layers="fast"), ["'fast'", "plain, tuned"]),
        (lambda: PriorConfig(attn_order=10), ["'cross'", "lyrics", "attn_order 10"]),
        (lambda: PriorConfig(attn_order=12), ["'prime'", "lyrics", "attn_order 12"]),
        (
            lambda: PriorConfig(attn_order=12, lyrics=LyricsConfig()),
            ["'prime'", "a prefix for 'prime'"],
        ),
        (lambda: PriorConfig(attn_order=3), ["attn_order 3", "0, 1, 2, 6 to 12"]),
        (lambda: LyricsConfig(alphabet="v4"), ["'v4'", "'v2'"]),
        (lambda: OptimizerConfig(decay="sine"), ["'sine'", "cosine"]),
        (lambda: OptimizerConfig(decay="linear"), ["'linear'", "decay_steps"]),
    ],
)
def test_impossible_configs_are_sentences(make, words):
    with pytest.raises(ConfigError) as error:
        make()
    for word in words:
        assert word in str(error.value)


def test_derived_numbers_of_published_models():
    assert VQVAEConfig().hops == (8, 32, 128)
    frames = VQVAEConfig(downs=(1, 2), multipliers=(1, 1), frames=FramesConfig(hop=32))
    assert frames.hops == (64, 256)
    grouped = dataclasses.replace(frames, groups=4)
    assert (grouped.hops, grouped.block) == ((16, 64), 256)
    assert PriorConfig(groups=4, upper=UpperConfig(ratio=8)).step == 32
    one = presets.prior_1b_lyrics().model
    assert (one.prefix_len, one.seq_len, one.vocabulary) == (384, 6528, 79 + 2048)
    assert (one.attn_width, one.window_samples) == (512, 786_432)
    five = presets.prior_5b_lyrics().model
    assert (five.prefix_len, five.seq_len, five.vocabulary) == (0, 8192, 2048)
    assert (five.attn_width, five.window_samples) == (1200, 1_048_576)
    assert five.timing
    upsampler = presets.upsampler_level_0().model
    assert (upsampler.upper.stages, upsampler.window_samples) == (2, 65_536)
    assert not upsampler.timing


# --- attention orders -----------------------------------------------------------------------------

TEN = [R, C, P, R, C, P, R, C, P, X]
SIXTEEN = [R, C, P, R, C, P, R, C, P, R, C, P, R, C, P]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (0, [D, D, D]),
        (1, [R, C, R, C, R]),
        (2, [R, C, P, R, C, P, R]),
        (6, [R, C, P, X, R, C, P, X, R]),
        (7, [*SIXTEEN, X, *SIXTEEN, X, R]),
        (8, [*TEN, *TEN, R, C]),
        (9, [R, C, P, D, R, C, P, D]),
        (10, [R, C, P, R, C, P, R, C, P, *TEN, *TEN, *TEN, *TEN, *TEN, *TEN, *TEN, R, C, P, R]),
        (11, [*SIXTEEN, X, C, P, R, C, P, R, C, P, R, C, P, R, C, P, R, X, P, R, C, P, R, C, P]),
        (12, [*SIXTEEN, Y, C, P, R, C, P, R, C, P, R, C, P, R, C, P, R, Y, P, R, C, P, R, C, P]),
    ],
)
def test_layer_patterns(order, expected):
    assert list(layer_patterns(order, len(expected))) == expected
    assert list(layer_patterns(order, 2)) == expected[:2]


@pytest.mark.parametrize(
    ("name", "special"),
    [
        ("prior_5b", {}),
        ("prior_5b_lyrics", dict.fromkeys((18, 28, 38, 48, 58, 68, 78), X)),
        ("prior_1b_lyrics", {15: Y, 31: Y, 47: D, 63: Y}),
    ],
)
def test_special_layers_of_published_models(name, special):
    model = presets.get(name).model
    patterns = layer_patterns(model.attn_order, model.depth)
    assert {i: p for i, p in enumerate(patterns) if p not in (R, C, P)} == special


def test_layer_counts_of_prior_1b_lyrics():
    patterns = layer_patterns(12, 72)
    assert [patterns.count(p) for p in (R, C, P, Y, D)] == [22, 23, 23, 3, 1]


@given(st.lists(st.sampled_from([R, C, P, X]), max_size=14).map(tuple), st.integers(1, 3))
def test_segments_reproduce_the_stack(unit, times):
    patterns = unit * times
    runs = segments(patterns)
    assert sum((run * repeats for repeats, run in runs), ()) == patterns
    assert sum(len(run) for _, run in runs) <= len(unit)


@pytest.mark.parametrize(
    ("order", "depth", "layers"),
    # the fewest: a third; a third and a ten; thirds between the special layers
    [(2, 72, 3), (6, 48, 4), (8, 50, 10), (10, 79, 13), (12, 72, 21)],
)
def test_published_stacks_compile_few_layers(order, depth, layers):
    runs = segments(layer_patterns(order, depth))
    assert sum((run * repeats for repeats, run in runs), ()) == layer_patterns(order, depth)
    assert sum(len(run) for _, run in runs) <= layers


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PriorConfig().width = 8


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: TrainConfig(steps=0), "steps"),
        (lambda: TrainConfig(keep=0), "keep"),
        (lambda: TrainConfig(evaluate_batches=0), "evaluate_batches"),
        (lambda: MeshConfig(fsdp=0), "fsdp"),
        (lambda: PriorConfig(blocks=0), "blocks"),
        (lambda: PriorConfig(dtype="float99"), "dtype"),
        (lambda: VQVAEConfig(width=0), "width"),
    ],
)
def test_numbers_that_nothing_can_be_made_of_are_refused(make, field):
    with pytest.raises(ConfigError, match=field):
        make()
