"""Tracks: what else runs along with the codes of a song, as settings of a prior. Standard library.

A track is a list of events, each something between two times: a phone, a note, a chord, a section.
A prior that reads a track is conditioned, at every code, on the events that sound there and on how
far each has come. `jukejax.tracks` puts events on the grid of the codes.
"""

from __future__ import annotations

from dataclasses import dataclass

from jukejax.config_checks import require_positive
from jukejax.errors import ConfigError


@dataclass(frozen=True)
class Track:
    """One track that a prior reads.

    Attributes:
      name: of the track in the songs' track files: "phones", "notes" ...
      events: names of its kinds of events, such as ("aa", "ae") or ("60", "61"); none: those of
        the data.
      places: events that sound at once, at most; of more, those that began last are read.
    """

    name: str = ""
    events: tuple[str, ...] = ()
    places: int = 1

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ConfigError(f"a track's name is {self.name!r}; give letters, digits and _.")
        if self.places < 1:
            raise ConfigError(f"track {self.name}: places is {self.places}; give 1 or more.")
        if len(set(self.events)) < len(self.events):
            raise ConfigError(f"track {self.name}: events has a name twice; give each once.")

    @property
    def array(self) -> str:
        """Name of the batch's array."""
        return f"track_{self.name}"


@dataclass(frozen=True)
class SongTrack:
    """The events of a track of a song to sample, as columns; starts and ends in seconds."""

    name: str = ""
    what: tuple[str, ...] = ()
    start: tuple[float, ...] = ()
    end: tuple[float, ...] = ()

    @property
    def events(self) -> tuple[tuple[str, float, float], ...]:
        return tuple(zip(self.what, self.start, self.end, strict=True))


@dataclass(frozen=True)
class TracksConfig:
    """Conditioning of a prior on tracks: embeddings, dilated convolutions, a layer norm.

    Attributes:
      parts: positions within an event that are told apart: its first code, then equal parts.
      width, depth, dilation_growth, dilation_cycle: of the convolutions.
    """

    tracks: tuple[Track, ...] = ()
    parts: int = 8
    width: int = 128
    depth: int = 6
    dilation_growth: int = 3
    dilation_cycle: int = 6

    def __post_init__(self) -> None:
        require_positive(self, "width", "depth", "dilation_growth", "dilation_cycle")
        if self.parts < 2:
            raise ConfigError(f"tracks.parts is {self.parts}; give 2 or more.")
        names = [track.name for track in self.tracks]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"tracks.tracks names {names}; give at least one, and each once.")

    @property
    def arrays(self) -> tuple[str, ...]:
        """Arrays of a batch that the conditioning reads."""
        return tuple(track.array for track in self.tracks)
