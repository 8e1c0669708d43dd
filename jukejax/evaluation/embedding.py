"""The protocol of networks that embed music: what can take the place of `musicnn`."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Embedded(NamedTuple):
    """Consecutive windows of a sound: vectors (n, D) and probabilities of tags (n, K)."""

    vectors: NDArray[np.float32]
    tags: NDArray[np.float32]


class Embedder(Protocol):
    """A network that embeds windows of sound."""

    name: str
    tags: tuple[str, ...]  # K names; empty for a network without tags
    seconds: float  # length of a window

    def __call__(self, sound: NDArray[Any], sample_rate: int) -> Embedded:
        """The complete windows of a mono sound (S,) in [-1, 1]; none of a shorter sound."""
        ...
