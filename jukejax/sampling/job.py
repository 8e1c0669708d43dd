"""What is to be sampled: enough to make it again. Standard library and configs only."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jukejax.config import ConfigError


@dataclass(frozen=True)
class Item:
    """One song: who, what kind, and the words."""

    artist: str = ""
    genres: tuple[str, ...] = ()
    lyrics: str = ""


@dataclass(frozen=True)
class Job:
    """A request for samples; `job.json` keeps it under "request"."""

    model: str = ""
    items: tuple[Item, ...] = ()
    seconds: float = 20.0
    total_seconds: float = 0.0  # length of the song that the sample begins; 0: the sample's own
    seed: int = 0
    temperature: tuple[float, ...] = (0.98, 0.98, 0.98)  # a level each, bottom first
    hop_fraction: tuple[float, ...] = (0.5, 0.5, 0.125)  # a level each, bottom first

    def __post_init__(self) -> None:
        positive = {"seconds": (self.seconds,), "temperature": self.temperature}
        for name, values in positive.items():
            for value in values:
                if not 0 < value < math.inf:
                    raise ConfigError(f"{name} is {value}; it must be a number over 0.")
        for fraction in self.hop_fraction:
            if not 0 < fraction <= 1:
                raise ConfigError(f"hop_fraction is {fraction}; it must be over 0 and at most 1.")
        if not (self.total_seconds == 0 or self.seconds <= self.total_seconds < math.inf):
            raise ConfigError(
                f"total_seconds is {self.total_seconds} and seconds {self.seconds}: a song cannot "
                "be shorter than its sample. Give 0 to take the sample for the song."
            )
        longest = 48_000.0  # positions in samples are 32-bit
        if max(self.seconds, self.total_seconds) > longest:
            raise ConfigError(f"A song of more than {longest:.0f} seconds cannot be asked for.")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"seed is {self.seed}; it must be from 0 to {2**31 - 1}.")

    def samples(self, sample_rate: int, top_hop: int) -> int:
        """Length in samples, rounded up to whole top-level codes."""
        return max(1, -(-round(self.seconds * sample_rate) // top_hop)) * top_hop
