"""Jukebox in JAX: `load` a model directory, then encode, decode and sample music with it.

    model = jukejax.load("runs/model")
    song = model.sample(artist="...", genre="...", lyrics="...", seconds=20)
    song.save("my_song")

Importing this package is cheap: JAX is imported when a name below is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jukejax.model import Alignment, Model, Song, load

__all__ = ["Alignment", "Model", "Song", "load"]


def __getattr__(name: str) -> Any:
    """Imports the library when one of its names is first used (PEP 562)."""
    if name in __all__:
        return getattr(importlib.import_module("jukejax.model"), name)
    raise AttributeError(f"module 'jukejax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
