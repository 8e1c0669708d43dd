"""Checks that several configs share. Standard library only."""

from __future__ import annotations

from typing import Any

from jukejax.errors import ConfigError

DTYPES = ("float32", "bfloat16")  # in float16 gradients vanish and decoding overflows


def require_positive(config: Any, *names: str) -> None:
    """Raises ConfigError unless the integers called `names` are all 1 or more."""
    for name in names:
        if getattr(config, name) < 1:
            raise ConfigError(f"{name} is {getattr(config, name)}; it must be 1 or more.")


def require_dtype(dtype: str) -> None:
    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}.")
