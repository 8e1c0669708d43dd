"""The loaders' batches, of experiments that differ from the defaults in a few numbers."""

from data_pipeline import code_loader, loader
from jukejax.config import (
    LabelsConfig,
    LyricsConfig,
    PriorConfig,
    PriorExperiment,
    TrainConfig,
    UpperConfig,
    VQVAEConfig,
    VQVAEExperiment,
)


def prior(level, n_ctx, ratio=0, lyric_tokens=0, **labels):
    """Of a level, with n_ctx codes in a window; a ratio over 0: with the level above."""
    return PriorConfig(
        level=level, n_ctx=n_ctx, blocks=1, upper=UpperConfig(ratio=ratio) if ratio else None,
        labels=LabelsConfig(**labels),
        lyrics=LyricsConfig(tokens=lyric_tokens) if lyric_tokens else None,
    )  # fmt: skip


def audio_batches(data, *, samples, batch_size, seed, downmix="random", **place):
    """Batches of chunks of any number of samples."""
    vqvae = VQVAEConfig(downs=(0,), multipliers=(1,))
    train = TrainConfig(batch=batch_size, seed=seed)
    return loader.audio_batches(
        data, VQVAEExperiment(vqvae, samples, downmix, train=train), **place
    )


def code_batches(
    folder, config, vocabulary, *, batch_size, seed, split, start_step=0, rows=None, **drawn
):
    """Batches of windows of codes that a prior of this config reads; `drawn` at random."""
    experiment = PriorExperiment(config, train=TrainConfig(batch=batch_size, seed=seed), **drawn)
    return code_loader.code_batches(
        folder, experiment, vocabulary, split=split, start_step=start_step, rows=rows
    )
