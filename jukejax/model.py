"""The library: load a model directory, then encode, decode and sample music with it.

N songs, S samples of a sound, T codes of a level. Level 0 is the bottom (finest), the last the top.
"""

from __future__ import annotations

import base64
import html
import io
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from jukejax import files
from jukejax.config import ConfigError, MeshConfig
from jukejax.evaluation.pages.player import Alignment, read_alignment
from jukejax.model_dir import LoadedModel, load_model
from jukejax.parallel.mesh import make_mesh
from jukejax.sampling import sound
from jukejax.sampling.job import Item, options_from
from jukejax.sampling.request import Request, make_request
from jukejax.sampling.run import plan, sample_into
from jukejax.sampling.sample_dir import SampleDir, read_job
from jukejax.tracks import Tracks

__all__ = ["Alignment", "Model", "Song", "load"]


def load(path: str | Path, mesh: MeshConfig | None = None) -> Model:
    """A model from its directory (the folder of a `model.json`).

    Args:
      mesh: how models and batches are split over devices; None: one song per device.

    Raises:
      CheckpointError: there is no model directory, or its VQ-VAE is missing or damaged.
    """
    return Model(load_model(path, make_mesh(mesh or MeshConfig())))


Each = float | Sequence[float]
"""A number for every level, or one per level, bottom first."""


class Keywords(TypedDict, total=False):
    """What may be asked of `Model.sample`: the fields of `jukejax.sampling.job.Options`, and more.

    Some are a single name or number where `Options` has a tuple.
    """

    artist: str
    genre: str | Sequence[str]
    year: int
    tags: str | Sequence[str]
    lyrics: str
    tracks: Tracks | None  # of the whole song: {"notes": [("60", 0.0, 0.5)]}, in seconds
    prompt: np.ndarray | None  # a sound that the songs begin with, as for `Model.encode`
    prompt_rate: int | None  # Hz
    seconds: float
    total_seconds: float
    count: int
    seed: int
    temperature: Each
    top_k: int | Sequence[int]
    top_p: Each
    hop_fraction: Each
    weights: str
    guidance: float
    render: bool
    levels: int | Sequence[int]
    max_batch: int
    parallel_segments: int
    continue_from: str | Path | None
    at: float
    upsample: str | Path | None
    span: tuple[float, float]
    item: int | Sequence[int]


@dataclass(frozen=True, eq=False)
class Song:
    """A sampled song; a notebook shows it as a player.

    Attributes:
      item: artist, genres and lyrics that it was sampled with.
      sample_rate: of `audio`, in Hz.
      level: the lowest level that was sampled, which `audio` is decoded from.
      audio: (S,) float32 in [-1, 1].
      codes: (T,) int32 per level, bottom first; empty for levels that were not sampled.
      alignment: of lyrics and music, for models with lyrics attention; else None. `weights`
        (frames, characters), `starts` (frames,) in seconds, `words` (text, start_s, end_s,
        first_char, end_char).
      folder: its sample directory, where it is song `number`.
    """

    item: Item
    sample_rate: int
    level: int
    audio: np.ndarray
    codes: list[np.ndarray]
    alignment: Alignment | None
    folder: Path
    number: int = 0
    temporary: Any = field(default=None, repr=False)  # removes the folder with the last song of it

    def save(self, folder: str | Path) -> Path:
        """Copies the song's sample directory, with a page to listen to; returns the page's path.

        Raises:
          ConfigError: `folder` exists and is not empty.
        """
        from jukejax.evaluation.pages.sample_page import write_page

        target = Path(folder)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ConfigError(f"{target} exists already; choose another folder for the song.")
        with files.atomic_folder(target) as new:
            shutil.copytree(self.folder, new, dirs_exist_ok=True)
            write_page(new)
        return target / "index.html"

    def _repr_html_(self) -> str:
        """A player with the sound inside, for notebooks."""
        import soundfile

        wav = io.BytesIO()
        soundfile.write(wav, self.audio, self.sample_rate, format="WAV")
        data = base64.b64encode(wav.getvalue()).decode()
        title = ", ".join(filter(None, (self.item.artist, *self.item.genres)))
        seconds = len(self.audio) / self.sample_rate
        return (
            f"<p>{html.escape(title)} ({seconds:.1f} s)</p>"
            f'<audio controls src="data:audio/wav;base64,{data}"></audio>'
        )


@dataclass(frozen=True, repr=False)
class Model:
    """A VQ-VAE in memory with its priors on disk; `load` makes one.

    Attributes:
      loaded: the model directory, its VQ-VAE and the mesh.
    """

    loaded: LoadedModel

    @property
    def sample_rate(self) -> int:
        """Of its sound, in Hz."""
        return self.loaded.vqvae.config.sample_rate

    @property
    def levels(self) -> int:
        """How many levels of codes it has."""
        return self.loaded.vqvae.config.levels

    def __repr__(self) -> str:
        path, priors = self.loaded.directory.path, sorted(self.loaded.directory.priors)
        return f"Model({str(path)!r}, {self.sample_rate} Hz, priors of levels {priors})"

    def encode(self, audio: np.ndarray, sample_rate: int | None = None) -> list[np.ndarray]:
        """Sound to codes: (T,) int32 per level, bottom first.

        The end that does not fill a top-level code is left out, so that the levels end together.

        Args:
          audio: (S,) or (S, channels) floats in [-1, 1]; channels are averaged.
          sample_rate: of `audio`, in Hz; it is resampled (soxr) to the model's. None: the model's.

        Raises:
          ConfigError: it is not such an array, or shorter than one top-level code.
        """
        mono = sound.to_mono(audio, sample_rate or self.sample_rate, self.sample_rate)
        return [z.astype(np.int32) for z in sound.encode(self.loaded.vqvae, mono)]

    def decode(self, codes: np.ndarray, level: int = 0) -> np.ndarray:
        """Codes (T,) of a level to sound (S,) float32 in [-1, 1] at the model's sample rate.

        Raises:
          ConfigError: there is no such level, or the codes are not of it.
        """
        return sound.decode(self.loaded.vqvae, codes, level)

    def render(self, codes: np.ndarray) -> np.ndarray:
        """Codes (T,) of the renderer's level to sound (S,), as by `decode`.

        Raises:
          ConfigError: the codes are not of this model.
          CheckpointError: the model has no renderer.
        """
        renderer = self.loaded.renderer
        return sound.decode(self.loaded.vqvae, codes, renderer.config.level, renderer)

    def sample(
        self,
        *,
        folder: str | Path | None = None,
        progress: bool = False,
        **options: Unpack[Keywords],
    ) -> Song:
        """Samples one song: the same codes as `jukejax sample` with these options.

            model.sample(artist="...", genre="...", lyrics="...", seconds=20, seed=0, progress=True)

        Args:
          folder, progress: as of `samples`.
          options: `Keywords`, except `count`.

        Raises:
          ConfigError, DataError, CheckpointError: as of `samples`.
        """
        if options.get("count", 1) != 1:
            raise ConfigError("sample makes one song; for several use samples(count=...).")
        return self.samples(folder=folder, progress=progress, **options)[0]

    def samples(
        self,
        *,
        folder: str | Path | None = None,
        progress: bool = False,
        **options: Unpack[Keywords],
    ) -> list[Song]:
        """Samples songs as one batch.

        Args:
          folder: gets what the command writes, page included, and is continued from where an
            interrupted call with the same options stopped; None: a temporary folder.
          progress: show the memory needed and a progress bar per level.
          options: `Keywords`; `jukejax.sampling.job.Options` says what each does.

        Raises:
          ConfigError: an option is not possible, or `folder` has samples of another request.
          DataError: the model does not know the artist, a genre, the year or a tag.
          CheckpointError: a prior is missing or does not belong to this model.
        """
        request = self.request(**options)
        out, temporary = _folder(folder)
        if folder is None:
            for _ in sample_into(out, self.loaded, request, progress=progress):
                pass
        else:
            self.make(request, out, progress=progress)
        return _songs(out, self.levels, temporary)

    def stream(
        self,
        *,
        folder: str | Path | None = None,
        progress: bool = False,
        **options: Unpack[Keywords],
    ) -> Iterator[np.ndarray]:
        """Samples one song and yields its sound while it is being made: pieces (n,) float32.

        The codes are those of `sample`. Lower levels begin as soon as the codes above them are
        sampled, so all priors are in memory. Joined, the pieces are the sound of the lowest level.

        Args and Raises: as of `sample`.
        """
        request = self.request(**options)
        if len(request.job.items) != 1:
            raise ConfigError("stream yields the sound of one song; leave out count.")
        lowest = min(request.job.levels or range(self.levels))
        out, _temporary = _folder(folder)
        done = 0
        for step in sample_into(out, self.loaded, request, stream=True, progress=progress):
            if step.level == lowest and step.sound.shape[1]:
                done += step.sound.shape[1]
                yield step.sound[0]
        if not done:  # a finished folder: its sound is there already
            yield _songs(out, self.levels, None)[0].audio

    def request(self, **options: Unpack[Keywords]) -> Request:
        """What `samples` with these options samples, checked as far as no prior is needed."""
        rest: dict[str, Any] = dict(options)
        lyrics, tracks = rest.pop("lyrics", ""), rest.pop("tracks", None)
        prompt, rate = rest.pop("prompt", None), rest.pop("prompt_rate", None)
        if prompt is not None:
            prompt = sound.to_mono(prompt, rate or self.sample_rate, self.sample_rate)
        return make_request(self.loaded, options_from(self.levels, rest), lyrics, prompt, tracks)

    def make(
        self, request: Request, folder: Path, stream: bool = False, progress: bool = False
    ) -> Path:
        """Samples a request into a folder, with a page to listen to; returns the page's path.

        The page is written whenever a level is finished. See `sample_into`.
        """
        from jukejax.evaluation.pages.sample_page import write_page

        page = folder / "index.html"
        for step in sample_into(folder, self.loaded, request, stream, progress):
            if step.finished:
                page = write_page(folder)
        return page

    def plan(self, request: Request, folder: Path, stream: bool = False) -> str:
        """Windows, memory and a time estimate of a request, as text; nothing is sampled."""
        return plan(self.loaded, request, folder, stream)


def _folder(folder: str | Path | None) -> tuple[Path, tempfile.TemporaryDirectory | None]:
    """Where to sample, and what removes it when nothing refers to it any more."""
    if folder is not None:
        return Path(folder), None
    temporary = tempfile.TemporaryDirectory(prefix="jukejax-")
    return Path(temporary.name), temporary


def _songs(out: Path, levels: int, temporary: Any) -> list[Song]:
    """The songs of a finished sample directory."""
    import soundfile

    sample, (record, job) = SampleDir.open(out), read_job(out / "job.json")
    made = sorted(entry["level"] for entry in record["levels"])
    codes = [sample.codes(level) for level in range(levels)]
    songs = []
    for number, item in enumerate(job.items):
        audio, rate = soundfile.read(sample.sounds(made[0])[number], dtype="float32")
        alignment = read_alignment(out / f"level_{made[-1]}", number)
        own = [z[number] for z in codes]
        songs.append(Song(item, rate, made[0], audio, own, alignment, out, number, temporary))
    return songs
