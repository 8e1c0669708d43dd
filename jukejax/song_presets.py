"""The presets of songs, which two CPU cores train: a tokenizer, a prior and a renderer.

They are among those of `jukejax.presets`.
"""

from __future__ import annotations

from dataclasses import replace

from jukejax.config import (
    FramesConfig,
    LabelsConfig,
    OptimizerConfig,
    PriorConfig,
    PriorExperiment,
    ReconstructionLoss,
    RendererConfig,
    RendererExperiment,
    Track,
    TracksConfig,
    TrainConfig,
    VQVAEConfig,
    VQVAEExperiment,
)


def renderer_of(vqvae: VQVAEExperiment, **model: object) -> RendererExperiment:
    """A renderer of a VQ-VAE's top level, trained with the decay of rates of EnCodec's recipe."""
    config = {"vqvae": vqvae.model, "level": vqvae.model.levels - 1, **model}
    return RendererExperiment(
        model=RendererConfig(**config),  # type: ignore[arg-type]
        optimizer=OptimizerConfig(
            learning_rate=3e-4, b1=0.5, b2=0.9, warmup_steps=100, decay="cosine",
            decay_steps=100_000,
        ),
    )  # fmt: skip


def songs_vqvae() -> VQVAEExperiment:
    """A tokenizer for sung words, of sound of 22,050 Hz: one level, 344.5 codes a second.

    The published top level's rate (3.8 kb/s). It reads and emits short-time spectra, so that codes
    need not describe phase; two CPU cores train it. Losses on samples are off.
    """
    return VQVAEExperiment(
        model=VQVAEConfig(
            sample_rate=22_050,
            downs=(1,),
            multipliers=(1,),
            width=192,
            depth=4,
            dilation_growth=2,
            emb_width=64,
            groups=4,
            codebook_decay=0.9,
            restart_threshold=0.1,
            unquantized=0.5,
            frames=FramesConfig(hop=128, synthesis=512),
            loss=ReconstructionLoss(
                l2=0.0, linf=0.0, linf_k=1, multispectral=0.0, mel=0.02, frames=1.0, commit=0.25
            ),
        ),
        samples=33_024,
        optimizer=OptimizerConfig(
            learning_rate=1e-3, b2=0.99, warmup_steps=100, decay="cosine", decay_steps=4000
        ),
        train=TrainConfig(
            steps=4000, batch=16, ema_decay=0.995, log_every=20, evaluate_every=500,
            evaluate_batches=4, checkpoint_every=100, keep=2,
        ),
    )  # fmt: skip


def songs_prior() -> PriorExperiment:
    """A prior over `songs_vqvae`, of artist, genre, timing, phones and notes; 5.9 s of context.

    The largest of the ladder of `experiments.scaling`, which makes it narrower and shallower and
    says how long to train; 132M tokens here. About 6.5M parameters, by the names of the data.
    """
    steps = 16_000
    return PriorExperiment(
        model=PriorConfig(
            level=0,
            hop=64,
            sample_rate=22_050,
            groups=4,
            n_ctx=2048,
            width=272,
            depth=8,
            heads=4,
            blocks=32,
            attn_ratio=0.5,
            mlp_ratio=2.0,
            init_scale=3.03,  # standard deviations of 1 / sqrt(width)
            layers="tuned",
            labels=LabelsConfig(timing_bins=16, min_seconds=1.0, max_seconds=150.0, max_genres=1),
            tracks=TracksConfig((Track("phones"), Track("notes", places=2)), width=68),
        ),
        label_dropout=0.1,
        track_dropout=0.1,
        context_noise=0.25,
        optimizer=OptimizerConfig(
            learning_rate=2e-3, b2=0.95, warmup_steps=steps // 20, decay="linear",
            decay_steps=steps,
        ),
        train=TrainConfig(
            steps=steps, batch=4, ema_decay=0.99, log_every=50, evaluate_every=1000,
            evaluate_batches=8, checkpoint_every=250, keep=2,
        ),
    )  # fmt: skip


def songs_renderer() -> RendererExperiment:
    """A renderer of `songs_vqvae`: 4.0M parameters, all layers at 86 Hz.

    With narrow discriminators, so that two CPU cores can train it, and a receptive field (0.4 s on
    either side) shorter than a training chunk.
    """
    e = renderer_of(
        songs_vqvae(), width=256, dilation_growth=2, dilation_cycle=3, hop=256, synthesis=1024,
        channels=16,
    )  # fmt: skip
    return replace(
        e,
        samples=22_016,
        optimizer=replace(e.optimizer, decay_steps=20_000),
        train=TrainConfig(
            steps=20_000, batch=8, ema_decay=0.995, log_every=20, evaluate_every=500,
            evaluate_batches=8, checkpoint_every=100, keep=2,
        ),
    )  # fmt: skip
