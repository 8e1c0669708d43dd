"""What is to be sampled: enough to make it again. Standard library and configs only."""

from __future__ import annotations

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
        if self.seconds <= 0:
            raise ConfigError(f"seconds is {self.seconds}; it must be more than 0.")
        if 0 < self.total_seconds < self.seconds:
            raise ConfigError(
                f"total_seconds is {self.total_seconds}, less than seconds ({self.seconds}): a "
                "song cannot be shorter than its sample. Give 0 to take the sample for the song."
            )
        for temperature in self.temperature:
            if temperature <= 0:
                raise ConfigError(f"temperature is {temperature}; it must be more than 0.")

    def samples(self, sample_rate: int, top_hop: int) -> int:
        """Length in samples, rounded up to whole top-level codes."""
        return max(1, -(-round(self.seconds * sample_rate) // top_hop)) * top_hop
