"""Named experiments: the published models, the published small family and the demo's. Numbers only.

`get(name)` returns a preset. The small family is the published one for training from scratch on one
GPU; no weights of it were released. The demo presets keep the published hops, levels, labels
and lyrics and shrink widths, depths and windows.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace

from jukejax.config import (
    ConfigError,
    Experiment,
    LabelsConfig,
    LyricsConfig,
    OptimizerConfig,
    PriorConfig,
    PriorExperiment,
    ReconstructionLoss,
    RendererExperiment,
    TrainConfig,
    UpperConfig,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.song_presets import renderer_of, songs_prior, songs_renderer, songs_vqvae

_LABELS_V2 = LabelsConfig(artists=4111, genres=120)
_LABELS_V3 = LabelsConfig(artists=7898, genres=604, max_genres=1, timing_bins=64, min_seconds=17.84)
_LABELS_SMALL = LabelsConfig(artists=100, genres=10, max_genres=1, timing_bins=64)


def vqvae() -> VQVAEExperiment:
    """The published VQ-VAE: 1.49M parameters and three codebooks of 2048 x 64."""
    return VQVAEExperiment(
        train=TrainConfig(steps=384_618, batch=256),
        optimizer=OptimizerConfig(learning_rate=3e-4),
    )


def _upsampler(level: int, scale_residual: bool) -> PriorExperiment:
    return PriorExperiment(
        model=PriorConfig(
            level=level,
            hop=8 * 4**level,
            labels=_LABELS_V2,
            upper=UpperConfig(scale_residual=scale_residual),
            remat="layer",
            dtype="bfloat16",
            layers="tuned",
        ),
        optimizer=OptimizerConfig(learning_rate=3e-4, b2=0.95, weight_decay=0.01),
        train=TrainConfig(batch=192, steps=265_000),
    )


def upsampler_level_0() -> PriorExperiment:
    """Bottom upsampler (hop 8): 981M parameters, 1.5 s of context."""
    return _upsampler(0, scale_residual=False)


def upsampler_level_1() -> PriorExperiment:
    """Middle upsampler (hop 32): 981M parameters, 5.9 s of context."""
    return _upsampler(1, scale_residual=True)


def prior_5b() -> PriorExperiment:
    """Top prior without lyrics: 5.06B parameters, 23.8 s of context."""
    return PriorExperiment(
        model=PriorConfig(
            width=4800,
            heads=8,
            init_scale=0.1,
            tied_output=False,
            labels=_LABELS_V2,
            remat="layer",
            dtype="bfloat16",
            layers="tuned",
        ),
        optimizer=OptimizerConfig(learning_rate=1.5e-4, b2=0.925, weight_decay=0.002),
        train=TrainConfig(batch=512, steps=310_500),
    )


def prior_5b_lyrics() -> PriorExperiment:
    """Top prior with a lyrics encoder and seven cross-attention layers: 5.64B parameters."""
    base = prior_5b()
    labels = replace(_LABELS_V2, min_seconds=23.8)
    model = replace(base.model, depth=79, attn_order=10, labels=labels, lyrics=LyricsConfig())
    return replace(base, model=model)


def prior_1b_lyrics() -> PriorExperiment:
    """Top prior with the lyrics as a prefix of the same stack: 943M parameters."""
    return PriorExperiment(
        model=PriorConfig(
            n_ctx=6144,
            width=2048,
            heads=2,
            blocks=64,
            attn_order=12,
            init_scale=0.2,
            labels=_LABELS_V3,
            lyrics=LyricsConfig(tokens=384, alphabet="v3", prefix=True),
            remat="layer",
            dtype="bfloat16",
            layers="tuned",
        ),
        optimizer=OptimizerConfig(learning_rate=3e-4, weight_decay=0.01),
        train=TrainConfig(batch=512, steps=310_500),
    )


def small_vqvae() -> VQVAEExperiment:
    """Two levels (hops 32 and 256) of 1024 codes, for sound of 22,050 Hz: 586k parameters."""
    return VQVAEExperiment(
        model=VQVAEConfig(
            sample_rate=22_050,
            downs=(5, 3),
            multipliers=(1, 1),
            codes=1024,
            loss=ReconstructionLoss(linf=0.0),
        ),
        samples=262_144,
        optimizer=OptimizerConfig(learning_rate=3e-4),
        train=TrainConfig(batch=4),
    )


def renderer() -> RendererExperiment:
    """A renderer of the published top level (hop 128): 14.3M parameters."""
    return renderer_of(vqvae())


def _small(**model: object) -> PriorExperiment:
    config: dict[str, object] = {
        "level": 1,
        "hop": 256,
        "sample_rate": 22_050,
        "codes": 1024,
        "width": 1024,
        "depth": 48,
        "blocks": 64,
        "init_scale": 0.7,
        "remat": "layer",
        "layers": "tuned",
    }
    return PriorExperiment(
        model=PriorConfig(**(config | model)),  # type: ignore[arg-type]
        optimizer=OptimizerConfig(learning_rate=3e-4, weight_decay=0.01),
        train=TrainConfig(batch=4),
    )


def small_prior() -> PriorExperiment:
    """Top prior over `small_vqvae` without labels: 161M parameters, 95 s of context."""
    return _small()


def small_labelled_prior() -> PriorExperiment:
    """`small_prior` with one genre of 10, one artist of 100 and timing."""
    return _small(labels=_LABELS_SMALL)


def small_single_enc_dec_prior() -> PriorExperiment:
    """`small_labelled_prior` with the lyrics as a prefix of the same stack, 71 s of context."""
    lyrics = LyricsConfig(tokens=384, alphabet="v3", prefix=True)
    return _small(n_ctx=6144, heads=2, attn_order=12, labels=_LABELS_SMALL, lyrics=lyrics)


def small_sep_enc_dec_prior() -> PriorExperiment:
    """`small_labelled_prior` with a lyrics encoder and cross-attention, 71 s of context."""
    lyrics = LyricsConfig(tokens=384, alphabet="v3", width=256, depth=9, heads=2)
    return _small(n_ctx=6144, depth=50, heads=2, attn_order=8, labels=_LABELS_SMALL, lyrics=lyrics)


def small_upsampler() -> PriorExperiment:
    """Bottom upsampler over `small_vqvae`, without labels: 218M parameters, 12 s of context."""
    return _small(level=0, hop=32, upper=UpperConfig(ratio=8, width=512))


def demo_vqvae() -> VQVAEExperiment:
    """A VQ-VAE that two CPU cores train in minutes; the published hops, a quarter of the codes."""
    return VQVAEExperiment(
        model=VQVAEConfig(
            width=16,
            depth=2,
            multipliers=(1, 1, 1),
            emb_width=16,
            codes=512,
            codebook_decay=0.95,
            loss=ReconstructionLoss(linf_k=512),
        ),
        samples=8_192,
        optimizer=OptimizerConfig(
            learning_rate=1e-3, warmup_steps=20, decay="cosine", decay_steps=500
        ),
        train=TrainConfig(
            steps=500, batch=12, ema_decay=0.98, log_every=20, evaluate_every=250,
            evaluate_batches=4, checkpoint_every=100, keep=2,
        ),
    )  # fmt: skip


def demo_renderer() -> RendererExperiment:
    """A renderer of the demo's top level (hop 128)."""
    e = renderer_of(
        demo_vqvae(), width=64, depth=4, hop=64, synthesis=512, discriminators=(1024, 512),
        channels=8,
    )  # fmt: skip
    return replace(
        e,
        samples=16_384,
        optimizer=replace(e.optimizer, learning_rate=1e-3, decay_steps=500),
        train=replace(demo_vqvae().train, batch=8),
    )


def _demo_prior(level: int, **model: object) -> PriorExperiment:
    return PriorExperiment(
        model=PriorConfig(
            level=level,
            hop=8 * 4**level,
            codes=512,
            n_ctx=512,
            width=128,
            depth=6,
            heads=2,
            blocks=16,
            attn_ratio=0.5,
            init_scale=1.0,
            layers="tuned",
            labels=LabelsConfig(timing_bins=16, min_seconds=1.0, max_genres=2),
            **model,  # type: ignore[arg-type]
        ),
        optimizer=OptimizerConfig(
            learning_rate=2e-3, b2=0.95, warmup_steps=20, decay="cosine", decay_steps=220
        ),
        train=TrainConfig(
            steps=220, batch=8, ema_decay=0.98, log_every=20, evaluate_every=110,
            evaluate_batches=4, checkpoint_every=100, keep=2,
        ),
    )  # fmt: skip


def demo_prior() -> PriorExperiment:
    """The demo's top prior: labels, timing, and a lyrics encoder with cross-attention.

    It is trained longer than the upsamplers, with label dropout, until it makes use of the lyrics.
    """
    lyrics = LyricsConfig(tokens=64, width=64, depth=3, heads=2, blocks=8, init_scale=4.0)
    prior = _demo_prior(2, attn_order=6, lyrics=lyrics)
    return replace(
        prior,
        model=replace(prior.model, depth=8, init_scale=4.0),
        label_dropout=0.5,
        optimizer=replace(prior.optimizer, learning_rate=3e-3, decay_steps=1500),
        train=replace(
            prior.train, steps=1500, batch=4, log_every=50, evaluate_every=500, checkpoint_every=250
        ),
    )


def demo_upsampler_level_1() -> PriorExperiment:
    """The demo's middle upsampler."""
    return _demo_prior(1, upper=UpperConfig(width=64, depth=2, scale_residual=True))


def demo_upsampler_level_0() -> PriorExperiment:
    """The demo's bottom upsampler."""
    return _demo_prior(0, upper=UpperConfig(width=64, depth=2))


PRESETS: dict[str, Callable[[], Experiment]] = {
    f.__name__: f
    for f in (
        demo_vqvae,
        demo_prior,
        demo_upsampler_level_1,
        demo_upsampler_level_0,
        demo_renderer,
        vqvae,
        renderer,
        upsampler_level_0,
        upsampler_level_1,
        prior_5b,
        prior_5b_lyrics,
        prior_1b_lyrics,
        small_vqvae,
        songs_vqvae,
        songs_prior,
        songs_renderer,
        small_prior,
        small_labelled_prior,
        small_single_enc_dec_prior,
        small_sep_enc_dec_prior,
        small_upsampler,
    )
}


def get(name: str) -> Experiment:
    """The preset called `name`.

    Raises:
      ConfigError: no such preset; the message names the nearest.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(PRESETS)}."
        raise ConfigError(f"There is no preset {name!r}; {hint}")
    return PRESETS[name]()
