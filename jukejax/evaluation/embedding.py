"""What turns sound into vectors whose distribution says something about music."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Embedded(NamedTuple):
    """Of consecutive windows of a sound: vectors (n, D) and probabilities of tags (n, K)."""

    vectors: NDArray[np.float32]
    tags: NDArray[np.float32]


class Embedder(Protocol):
    """Another network than musicnn needs this much to take its place."""

    name: str
    tags: tuple[str, ...]  # K names; none where it has no tags
    seconds: float  # length of a window

    def __call__(self, sound: NDArray[Any], sample_rate: int) -> Embedded:
        """The whole windows of a mono sound (S,) in [-1, 1]; none where it is shorter than one."""
        ...
