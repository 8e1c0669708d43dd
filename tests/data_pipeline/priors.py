"""Priors as far as their data goes."""

from jukejax.config import LabelsConfig, LyricsConfig, PriorConfig, UpperConfig


def prior(level, n_ctx, ratio=0, lyric_tokens=0, **labels):
    """Of a level, with n_ctx codes in a window; a ratio over 0: with the level above."""
    return PriorConfig(
        level=level, n_ctx=n_ctx, blocks=1, upper=UpperConfig(ratio=ratio) if ratio else None,
        labels=LabelsConfig(**labels),
        lyrics=LyricsConfig(tokens=lyric_tokens) if lyric_tokens else None,
    )  # fmt: skip
