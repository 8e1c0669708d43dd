"""Cuts the recorded tracks of the demo set: `python -m data_pipeline.render.tracks --out DIR`.

Downloads three Debian packages with `apt-get download` (or takes them from --debs), checks their
SHA-256, reads them with plain Python, and writes levelled excerpts to DIR/audio/ID.ogg (44.1 kHz
stereo) and their rows to DIR/songs.jsonl. demo_music/recorded.json lists packages and excerpts;
the rows are those of demo_music/songs.jsonl. Licences: demo_music/LICENCES.md.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.render.sound import (
    MUSIC,
    RATE,
    MissingTool,
    fade,
    level,
    read_rows,
    update_manifest,
    write_ogg,
)
from jukejax import locks
from jukejax.errors import JukejaxError

COMPRESSION = 0.72  # Vorbis, about 100 kb/s
FADE_S = 0.5  # at a cut; the natural start of a track gets FADE_EDGE_S
FADE_EDGE_S = 0.005


@dataclass(frozen=True)
class Package:
    """A Debian package; its Ogg files are in `folder`."""

    name: str
    version: str
    sha256: str
    folder: str


@dataclass(frozen=True)
class Track:
    """An excerpt of `seconds` from `start_s` of the sum of some files of a package."""

    id: str
    package: Package
    files: Sequence[str]
    start_s: float
    seconds: float

    @property
    def paths(self) -> list[str]:
        return [f"{self.package.folder}/{name}" for name in self.files]


def load_tracks() -> list[Track]:
    """The excerpts that demo_music/recorded.json lists."""
    lists = json.loads((MUSIC / "recorded.json").read_text())
    packages = {name: Package(name, **fields) for name, fields in lists["packages"].items()}
    return [Track(**row | {"package": packages[row["package"]]}) for row in lists["tracks"]]


def ar_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and contents of the members of a Unix `ar` archive, which a .deb is."""
    if data[:8] != b"!<arch>\n":
        raise ValueError("not an ar archive")
    at = 8
    while at + 60 <= len(data):
        header = data[at : at + 60]
        size = int(header[48:58])
        yield header[:16].decode("ascii").strip().rstrip("/"), data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2


def deb_files(deb: bytes, paths: Sequence[str]) -> dict[str, bytes]:
    """The contents of the files at `paths` (without a leading "./") of a .deb."""
    for name, data in ar_members(deb):
        if not name.startswith("data.tar"):
            continue
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            files = {m.name.removeprefix("./"): m for m in tar.getmembers() if m.isfile()}
            missing = [path for path in paths if path not in files]
            if missing:
                raise ValueError(f"not in the package: {missing}")
            return {path: tar.extractfile(files[path]).read() for path in paths}  # type: ignore[union-attr]
    raise ValueError("the package has no data.tar")


def load_deb(package: Package, debs: Path) -> bytes:
    """A package's bytes from the folder `debs`, downloaded into it if absent, SHA-256 checked."""
    path = debs / f"{package.name}_{package.version}_all.deb"
    if not path.exists():
        command = ["apt-get", "-o", "APT::Sandbox::User=root", "download"]
        try:
            subprocess.run([*command, f"{package.name}={package.version}"], cwd=debs, check=True)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            raise MissingTool(
                f"cannot download {package.name} {package.version}: put {path.name} from "
                "snapshot.debian.org into a folder and name it with --debs."
            ) from error
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != package.sha256:
        raise MissingTool(f"{path}: sha256 is {digest}, not {package.sha256}")
    return data


def cut(track: Track, files: dict[str, bytes]) -> np.ndarray:
    """The track's excerpt (N, 2): files summed, cut, faded and levelled."""
    import soundfile

    start, n = round(track.start_s * RATE), round(track.seconds * RATE)
    total = np.zeros((n, 2))
    for path in track.paths:
        with soundfile.SoundFile(io.BytesIO(files[path])) as file:
            if file.samplerate != RATE or file.channels != 2 or file.frames < start + n:
                raise ValueError(f"{track.id}: {path} is not {RATE} Hz stereo or too short")
            file.seek(start)
            total += file.read(n, dtype="float64")
    return level(fade(total, FADE_S if start else FADE_EDGE_S, FADE_S))


def main() -> None:
    """Cuts every track."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for audio/ and songs.jsonl")
    parser.add_argument("--debs", type=Path, help="folder of .deb files, downloaded if absent")
    args = parser.parse_args()
    recorded = {track.id for track in load_tracks()}
    rows = [row for row in read_rows(MUSIC / "songs.jsonl") if row["id"] in recorded]
    with locks.writing(args.out), tempfile.TemporaryDirectory() as scratch:
        for track in load_tracks():
            deb = load_deb(track.package, args.debs or Path(scratch))
            sound = cut(track, deb_files(deb, track.paths))
            write_ogg(args.out / "audio" / f"{track.id}.ogg", sound, COMPRESSION)
            print(f"{track.id}: {track.seconds:.1f} s", file=sys.stderr)
        update_manifest(args.out / "songs.jsonl", rows)


if __name__ == "__main__":
    try:
        main()
    except JukejaxError as error:
        sys.exit(f"error: {error}")
