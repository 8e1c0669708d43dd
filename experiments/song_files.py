"""The text and sound files that the sampling commands take; importing it is cheap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jukejax.errors import ConfigError, DataError
from jukejax.sampling.job import Options

if TYPE_CHECKING:
    import numpy as np

    from jukejax.config import VQVAEConfig
    from jukejax.model_dir import LoadedModel
    from jukejax.sampling.request import Request
    from jukejax.tracks import Event


@dataclass(frozen=True, kw_only=True)
class SongFiles:
    """Options of a command that name files."""

    lyrics: Path | None = None
    """A text file with the lyrics of the whole song."""
    tracks: Path | None = None
    """A JSON file with the tracks of the whole song: {"notes": [["60", start_s, end_s], ...]}."""
    tune: Path | None = None
    """A MIDI file with the melody that the lyrics are sung to, a syllable a note ("-" among the
    words holds the syllable before it for one more note). For models with phones and notes."""
    prompt: Path | None = None
    """A sound file that the songs continue."""
    prompt_seconds: float = 0.0
    """Use only this many seconds of it; 0: all."""


def check_files(paths: SongFiles) -> None:
    """ConfigError or DataError where a file is missing, before a model is loaded."""
    if paths.prompt_seconds and paths.prompt is None:
        raise ConfigError("--prompt-seconds needs --prompt.")
    if paths.tune and (paths.tracks or not paths.lyrics):
        raise ConfigError("--tune needs --lyrics, and takes the place of --tracks.")
    for name in ("lyrics", "tracks", "tune", "prompt"):
        path = getattr(paths, name)
        if path is not None and not path.is_file():
            raise DataError(f"--{name} {path}: there is no such file; correct the path.")


def song_request(model: LoadedModel, options: Options, paths: SongFiles) -> Request:
    """The request of a command, with its files read.

    Raises:
      ConfigError, DataError: the options are not possible, or a file cannot be used.
    """
    from jukejax.sampling.request import make_request
    from jukejax.text.lyric_files import read_lyrics
    from jukejax.tracks import read_tracks

    lyrics = read_lyrics(paths.lyrics).text if paths.lyrics else ""
    tracks = read_tracks(paths.tracks) if paths.tracks else None
    if paths.tune:
        tracks = tune_tracks(lyrics, paths.tune)
    if paths.prompt is None:
        return make_request(model, options, lyrics, tracks=tracks)
    sound = read_prompt(paths.prompt, paths.prompt_seconds, model.vqvae.config)
    request = make_request(model, options, lyrics, sound, tracks)
    return request._replace(notes={"origin": {"prompt": str(paths.prompt.resolve())}})


def tune_tracks(lyrics: str, path: Path) -> dict[str, tuple[Event, ...]]:
    """The tracks of lyrics sung to the melody of a MIDI file; says how many notes they take."""
    from jukejax.tunes import read_midi, sung

    tune = read_midi(path)
    tracks = sung(lyrics, tune)
    print(f"The words take {len(tracks['notes'])} of the {len(tune)} notes of {path}.")
    return tracks


def read_prompt(path: Path, seconds: float, config: VQVAEConfig) -> np.ndarray:
    """The first seconds of a sound file (0: all of it): (S,) float32 at the model's sample rate.

    The mean of the channels.

    Raises:
      DataError: the file is not a sound, or is silent or shorter than asked for.
      ConfigError: `seconds` is not possible, or shorter than one block of the model.
    """
    import numpy as np

    from data_pipeline import audio

    rate, block = config.sample_rate, config.block
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"prompt_seconds is {seconds}; it must be 0 (all) or more.")
    wanted = round(seconds * rate)
    if seconds and wanted < block:
        raise ConfigError(
            f"prompt_seconds is {seconds}; the top level reads {block} samples at a time."
        )
    blocks = audio.decode(path, min_seconds=max(seconds, block / rate), sample_rate=rate)
    sound = np.concatenate([block.mean(1, dtype=np.float32) / 32768.0 for block in blocks])
    return sound[:wanted] if seconds else sound
