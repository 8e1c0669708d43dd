"""Events of tracks on the grid of a song's codes. NumPy only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jukejax.errors import DataError
from jukejax.track_config import SongTrack, Track, TracksConfig

Event = tuple[str, float, float]  # what, start and end in seconds
Tracks = Mapping[str, Sequence[Event]]  # by name of the track
Ids = npt.NDArray[np.int32]

EMPTY, ABSENT = -1, -2  # no event in this place; the song has no such track
_FORM = 'a list of ["what", start_seconds, end_seconds] with 0 <= start <= end'


def checked(value: object, where: str) -> dict[str, tuple[Event, ...]]:
    """Tracks as decoded from JSON, checked.

    Raises:
      DataError: it is no object of lists of events; names `where`.
    """
    if not isinstance(value, dict):
        raise DataError(f'{where} must be an object such as {{"notes": [["60", 0.0, 0.5]]}}')
    return {name: tuple(_event(x, f"{where}, track {name!r}") for x in _list(events, name, where))
            for name, events in value.items()}  # fmt: skip


def _list(value: object, name: str, where: str) -> list[object]:
    if not isinstance(value, list):
        raise DataError(f"{where}, track {name!r} must be {_FORM}, but is {value!r:.80}")
    return value


def _event(value: object, where: str) -> Event:
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        times = value[1:]
        numbers = all(type(x) in (int, float) and math.isfinite(x) for x in times)
        if numbers and 0 <= times[0] <= times[1]:
            return value[0], float(times[0]), float(times[1])
    raise DataError(f"{where} must be {_FORM}, but has {value!r:.80}")


def read_tracks(path: str | Path) -> dict[str, tuple[Event, ...]]:
    """A track file: a JSON object of events by name of the track.

    Raises:
      DataError: it cannot be read, or is no such object.
    """
    try:
        value = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"the track file {path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"the track file {path} is not JSON ({error})") from error
    return checked(value, f"the track file {path}")


def song_tracks(tracks: Tracks) -> tuple[SongTrack, ...]:
    """Tracks by columns, as jobs store them."""
    columns = {name: tuple(zip(*events, strict=True)) or ((), (), ())
               for name, events in tracks.items()}  # fmt: skip
    return tuple(SongTrack(name, *columns[name]) for name in sorted(columns))


def require_known(config: TracksConfig, tracks: Tracks, where: str) -> None:
    """Raises DataError, naming `where`, if a track that the prior reads has an unknown event."""
    for track in config.tracks:
        unknown = {what for what, _, _ in tracks.get(track.name, ())} - set(track.events)
        if unknown:
            raise DataError(
                f"{where}: the track {track.name!r} has {min(unknown)!r}, but the prior knows "
                f"{', '.join(track.events[:8])}{' ...' if len(track.events) > 8 else ''}"
            )


def window(
    config: TracksConfig, tracks: Tracks, rate: int, first: int, hop: int, codes: int
) -> dict[str, Ids]:
    """The arrays (codes, places) int32 of a window, by name.

    An entry is `event * parts + part`: which of `Track.events` sounds, and how far it has come
    (part 0 is its first code, the others divide its length equally); EMPTY where none sounds. All
    of a track that the song does not have are ABSENT. Events have passed `require_known`.

    Args:
      tracks: of the song.
      rate: samples a second.
      first: the window's first sample, counted from the song's start.
      hop: samples a code.
      codes: of the window.
    """
    return {
        track.array: _grid(track, config.parts, tracks[track.name], rate, first, hop, codes)
        if track.name in tracks
        else absent(track, codes)
        for track in config.tracks
    }


def absent(track: Track, codes: int) -> Ids:
    """The array (codes, places) of a track that is not given."""
    return np.full((codes, track.places), ABSENT, np.int32)


def _grid(
    track: Track, parts: int, events: Sequence[Event], rate: int, first: int, hop: int, codes: int
) -> Ids:
    ids = {name: i for i, name in enumerate(track.events)}
    grid = np.full((codes, track.places), EMPTY, np.int32)
    for what, start, end in sorted(events, key=lambda event: event[1]):
        begin = (round(start * rate) - first) // hop
        stop = max(begin + 1, (round(end * rate) - first + hop // 2) // hop)
        steps = np.arange(max(begin, 0), min(stop, codes))
        if len(steps):
            part = 1 + (parts - 1) * (steps - begin) // (stop - begin)
            part[steps == begin] = 0
            grid[steps, 1:] = grid[steps, :-1]
            grid[steps, 0] = ids[what] * parts + part
    return grid
