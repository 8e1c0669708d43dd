"""Costs: parameters against the models' shapes, FLOPs against XLA's and the program's own count."""

import math
from dataclasses import replace

import flax.linen as nn
import jax
import numpy as np
import pytest

from jukejax import costs, presets
from jukejax.config import (
    FramesConfig,
    LabelsConfig,
    LyricsConfig,
    PriorConfig,
    PriorExperiment,
    ReconstructionLoss,
    RendererConfig,
    RendererExperiment,
    RendererLoss,
    Track,
    TracksConfig,
    UpperConfig,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.models import spectral, transformer
from jukejax.patterns import layer_patterns
from jukejax.planning import hlo_counts
from jukejax.sampling import decode
from jukejax.training.tasks import make_task

LABELS = LabelsConfig(artists=7, genres=5)
# Wide and short, so that matrix products outweigh what the count leaves out.
PRIOR = PriorExperiment(
    model=PriorConfig(n_ctx=128, width=1024, depth=6, heads=2, blocks=8, codes=512, labels=LABELS)
)
ENCODER = LyricsConfig(tokens=64, width=768, depth=3, heads=2, blocks=4)
NOTES = TracksConfig((Track("notes", ("60", "61")),), width=256, dilation_growth=1)
FAMILIES = {
    "prior_5b": {"tied_output": False},
    "upsampler": {"upper": UpperConfig(width=512, depth=3), "level": 1},
    "prior_5b_lyrics": {"depth": 19, "attn_order": 10, "lyrics": ENCODER, "tied_output": False},
    "prior_1b_lyrics": {
        "depth": 16, "attn_order": 12, "lyrics": LyricsConfig(tokens=32, prefix=True),
    },
    "dense": {"depth": 2, "attn_order": 0},
    "tracks": {"depth": 2, "tracks": NOTES},
}  # fmt: skip
VQVAE = VQVAEExperiment(
    model=VQVAEConfig(
        downs=(2, 1), multipliers=(2, 1), width=64, depth=2, emb_width=32, codes=256,
        loss=ReconstructionLoss(multispectral=0.0),
    ),
    samples=4096,
)  # fmt: skip


def family(name):
    return replace(PRIOR, model=replace(PRIOR.model, **FAMILIES[name]))


def gradient(experiment):
    """The lowered gradient of one example's loss, on one device."""
    task = make_task(experiment)
    batch = jax.eval_shape(lambda: task.example(1))
    params = nn.unbox(jax.eval_shape(task.init, jax.random.key(0)))
    extra = jax.eval_shape(task.extra, jax.random.key(0), params, batch)
    return jax.jit(jax.grad(lambda p, e, b: task.loss(p, e, b)[0])).lower(params, extra, batch)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_parameters_are_those_of_the_model(name):
    experiment = presets.get(name)
    if name.startswith(("demo", "songs")) and isinstance(experiment, PriorExperiment):
        labels = replace(experiment.model.labels, artists=7, genres=5)
        experiment = replace(experiment, model=replace(experiment.model, labels=labels))
    tree = nn.unbox(jax.eval_shape(make_task(experiment).init, jax.random.key(0)))
    found = sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
    assert costs.parameters(experiment) == found


@pytest.mark.parametrize("name", ["demo_prior", "prior_5b"])
def test_parameters_without_labels(name):
    experiment = presets.get(name)
    experiment = replace(experiment, model=replace(experiment.model, labels=None))
    tree = nn.unbox(jax.eval_shape(make_task(experiment).init, jax.random.key(0)))
    found = sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
    assert costs.parameters(experiment) == found


@pytest.mark.parametrize("layers", ["plain", "tuned"])
@pytest.mark.parametrize("name", FAMILIES)
def test_flops_are_those_of_the_lowered_program(name, layers):
    # every matrix product and convolution of the program before XLA touches it, loops and all
    experiment = family(name)
    experiment = replace(experiment, model=replace(experiment.model, layers=layers))
    total, trip = hlo_counts.count(gradient(experiment).as_text("hlo"), 1)
    assert trip is None
    # a convolution's padding is not multiplied; without convolutions the numbers are equal
    slack = 0.01 if experiment.model.upper or experiment.model.tracks else 0
    wanted = costs.train_flops(experiment) + _zeros(experiment) + _beside(experiment)
    assert wanted == pytest.approx(total.flops, rel=slack, abs=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_flops_are_within_2_percent_of_xlas_count_on_an_unrolled_toy(name, monkeypatch):
    scan = nn.scan

    def unrolled(*args, **kwargs):
        return scan(*args, unroll=kwargs["length"], **kwargs)

    monkeypatch.setattr(transformer.nn, "scan", unrolled)
    experiment = family(name)
    found = gradient(experiment).cost_analysis()["flops"]
    assert costs.train_flops(experiment) + _zeros(experiment) == pytest.approx(found, rel=0.02)


def _beside(experiment):
    """FLOPs of products that are no part of the model, less those of rows with none above them.

    Of tuned layers, sums over tokens and absorbed norms: the gradient of a bias multiplies by eight
    rows of ones (`dense_tuned`); what `dense_tuned.absorb` adds to a bias is a product of one row,
    and has two gradients.
    """
    config, total = experiment.model, 0
    stacks = [config]
    if config.lyric_encoder:
        stacks.append(config.encoder)
        if config.layers == "tuned":
            total += 2 * 8 * config.lyrics.tokens * config.width  # the projection of its states
    for stack in stacks:
        tokens = stack.seq_len
        for pattern in layer_patterns(stack.attn_order, stack.depth):
            if pattern == "previous_row":  # of which the first row sees nothing
                total -= 3 * 4 * (tokens // stack.blocks) ** 2 * stack.attn_width
            if config.layers == "plain":
                continue
            cross = pattern == "cross"
            attend = (1 if cross else 3) * stack.attn_width
            total += 2 * 8 * tokens * (attend + 2 * stack.width + stack.mlp_width)
            total += 3 * 2 * stack.width * (attend + stack.mlp_width)
            if cross:
                total += 2 * 8 * config.lyrics.tokens * 2 * stack.attn_width
    return total


def _zeros(experiment):
    """FLOPs of multiplications with the zeros in `conv_up`'s kernel, three times (with gradients).

    Each of its outputs is made of three taps, one of which is zero.
    """
    if isinstance(experiment, RendererExperiment):
        convolutions = costs.renderer(experiment.model, experiment.samples)
    elif isinstance(experiment, VQVAEExperiment):
        convolutions = [
            c
            for level in range(experiment.model.levels)
            for c in costs.decoder(experiment.model, level, experiment.samples)
        ]
    else:
        convolutions = costs._upper(experiment.model)
    return 3 * sum(c.flops // 2 for c in convolutions if c.transposed)


def test_flops_of_a_vqvae():
    total, _ = hlo_counts.count(gradient(VQVAE).as_text("hlo"), 1)
    assert costs.train_flops(VQVAE) + _zeros(VQVAE) == pytest.approx(total.flops, rel=0.02)
    found = gradient(VQVAE).cost_analysis()["flops"]
    assert costs.train_flops(VQVAE) + _zeros(VQVAE) == pytest.approx(found, rel=0.05)


def test_flops_of_a_vqvae_of_frames():
    weights = ReconstructionLoss(multispectral=0.0, mel=0.0, frames=1.0)
    frames = FramesConfig(hop=16, bands=40, window=512, synthesis=64)
    model = replace(VQVAE.model, downs=(1, 1), frames=frames, loss=weights)
    experiment = replace(VQVAE, model=model, samples=16 * VQVAE.samples)
    total, _ = hlo_counts.count(gradient(experiment).as_text("hlo"), 1)
    wanted = costs.train_flops(experiment) + _zeros(experiment)
    # each level's loss computes the frames that the encoder read once more
    wanted += costs.mel_flops(model, experiment.samples)
    assert wanted == pytest.approx(total.flops, rel=0.005)


def test_flops_of_a_renderer():
    model = RendererConfig(
        vqvae=VQVAE.model, level=1, width=64, depth=2, hop=4, synthesis=128,
        discriminators=(512, 256), channels=8,
    )  # fmt: skip
    experiment = RendererExperiment(model=model, samples=16 * 4096)
    total, _ = hlo_counts.count(gradient(experiment).as_text("hlo"), 1)
    wanted = costs.train_flops(experiment) + _zeros(experiment)
    # the rendered sound's third pass, which XLA shares with the second
    wanted += costs.forward_flops(experiment)["discriminators"] // 2
    wanted += _mel_loss(experiment.samples)
    assert wanted == pytest.approx(total.flops, rel=0.02)
    alone = replace(model, loss=RendererLoss(adversarial=0.0, features=0.0))
    experiment = replace(experiment, model=alone)
    total, _ = hlo_counts.count(gradient(experiment).as_text("hlo"), 1)
    wanted = costs.train_flops(experiment) + _zeros(experiment)
    wanted += _mel_loss(experiment.samples)
    assert wanted == pytest.approx(total.flops, rel=0.01)


def _mel_loss(samples):
    """FLOPs of the products with mel filters: of two sounds, and of one's gradient."""
    return sum(
        3 * 2 * (samples // hop) * (window // 2 + 1) * bands
        for window, hop, bands in spectral.MEL_RESOLUTIONS
    )


def test_figures_of_the_5b_model():
    # 6 N tokens and 0.3 % for attention
    experiment = presets.get("prior_5b")
    per_token = costs.train_flops(experiment) / costs.tokens(experiment)
    assert per_token == pytest.approx(3.001e10, rel=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_caches_are_those_of_the_decoder(name):
    config = family(name).model
    task = make_task(family(name))
    params = nn.unbox(jax.eval_shape(task.init, jax.random.key(0)))
    batch = jax.eval_shape(lambda: task.example(3))
    given = jax.ShapeDtypeStruct((), np.int32)
    stream = jax.eval_shape(lambda p, b, g: decode.prefill(config, p, b, g), params, batch, given)
    found = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(stream.caches))
    assert costs.cache_bytes(config, 3, 4) == found


def test_decoding_reads_every_weight_of_the_stack_once():
    # 3 width^2 weights a layer, 10 GB of bfloat16 in all; 29.5 MB of caches a window
    config = presets.get("prior_5b").model
    one, two = (costs.decode_bytes(config, n, 2, 2) for n in (1, 2))
    assert two - one == 24 * 2 * (64 + 128 + 64) * 1200 * 2
    weights = costs.decode_bytes(config, 0, 2, 2)
    layers = len(layer_patterns(config.attn_order, config.depth))
    assert weights == pytest.approx(2 * layers * 3 * 4800**2, rel=0.01)


def test_chips_by_what_jax_calls_them():
    assert costs.chip_of("TPU v5 lite") is costs.CHIPS["v5e"]
    assert costs.chip_of("TPU v5") is costs.CHIPS["v5p"]
    assert costs.chip_of("NVIDIA H100 80GB HBM3") is costs.GPUS["H100"]
    assert costs.chip_of("cpu") is None
