"""Cut the recorded tracks of the demo set again: `python -m data_pipeline.render.tracks --out DIR`.

Downloads three Debian packages with `apt-get download` (or takes them from --debs), checks their
sha256, unpacks them with plain Python and writes levelled excerpts to DIR/audio/ID.ogg (44.1 kHz
stereo) and their rows to DIR/songs.jsonl. Licences: demo_music/LICENCES.md.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.render.sound import RATE, fade, level, update_manifest, write_ogg

COMPRESSION = 0.72  # Vorbis, about 100 kb/s
FADE_S = 0.5  # at a cut; the natural start of a track gets FADE_EDGE_S
FADE_EDGE_S = 0.005


@dataclass(frozen=True)
class Package:
    """A Debian package and what its tracks have in common; `folder` holds the Ogg files."""

    version: str
    sha256: str
    folder: str
    artist: str
    album: str
    year: int
    genres: tuple[str, ...]
    tags: tuple[str, ...]
    licence: str


@dataclass(frozen=True)
class Track:
    """An excerpt of `seconds` from `start_s` of the sum of some files of a package."""

    id: str
    package: str
    files: tuple[str, ...]
    start_s: float
    seconds: float
    split: str
    group: str


PACKAGES = {
    "noiz2sa-data": Package(
        "0.51a-13",
        "7e38af552d946eaaf06ab2789c921972bb2bd88f202d48113faf11a30a614223",
        "usr/share/games/noiz2sa/sounds",
        "Kenta Cho",
        "Noiz2sa",
        2002,
        ("techno",),
        ("game", "instrumental"),
        "BSD-2-Clause",
    ),
    "fretsonfire-songs-sectoid": Package(
        "1.dfsg-3.1",
        "14c1ed3e43c1a6a80eae7698f0469a0825cd1184e441968d62df89ca418aa0b4",
        "usr/share/games/fretsonfire/data/songs/sectoid",
        "Sectoid",
        "Sectoid Song Pack",
        2007,
        ("rock metal",),
        ("guitar", "instrumental"),
        "MIT",
    ),
    "pax-britannica-data": Package(
        "1.0.0-5",
        "c6749ebc6bb86548576f4082b97049d761f93fd1ae9d44c7728a59c6fb63fbdd",
        "usr/share/pax-britannica/audio",
        "Ben Abraham",
        "Pax Britannica",
        2010,
        ("ambient",),
        ("game", "instrumental"),
        "MIT",
    ),
}


def _techno(stage: int, seconds: float, split: str = "train") -> Track:
    name = f"kenta_cho_stage_{stage}"
    return Track(name, "noiz2sa-data", (f"stg{stage}.ogg",), 0.0, seconds, split, name)


def _metal(title: str, start_s: float, split: str = "train") -> Track:
    name = "sectoid_" + title.lower().replace(" ", "_")
    stems = (f"{title}/song.ogg", f"{title}/guitar.ogg")
    return Track(name, "fretsonfire-songs-sectoid", stems, start_s, 62.0, split, name)


def _ambient(part: int, start_s: float) -> Track:
    name = f"ben_abraham_pax_britannica_{part}"
    group = "ben_abraham_pax_britannica"  # two excerpts of one recording
    return Track(name, "pax-britannica-data", ("music.ogg",), start_s, 50.0, "train", group)


TRACKS = (
    _techno(0, 56.0),
    _techno(1, 56.0),
    _techno(2, 56.0),
    _techno(3, 56.0),
    _techno(4, 56.0, "test"),
    _techno(5, 56.0),
    _metal("Metal madness", 20.0),
    _metal("Escape from chaosland", 40.0),
    _metal("Feelings", 60.0),
    _metal("War of freedom", 30.0, "test"),
    _ambient(1, 20.0),
    _ambient(2, 150.0),
)


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


def deb_files(deb: bytes, wanted: Sequence[str]) -> dict[str, bytes]:
    """The contents of the `wanted` paths (without a leading "./") inside a .deb."""
    for name, data in ar_members(deb):
        if not name.startswith("data.tar"):
            continue
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            found = {m.name.removeprefix("./"): m for m in tar.getmembers() if m.isfile()}
            missing = [path for path in wanted if path not in found]
            if missing:
                raise ValueError(f"not in the package: {missing}")
            return {path: tar.extractfile(found[path]).read() for path in wanted}  # type: ignore[union-attr]
    raise ValueError("the package has no data.tar")


def load_deb(name: str, debs: Path) -> bytes:
    """A package's bytes from folder `debs`, downloaded into it if absent, sha256 checked."""
    package = PACKAGES[name]
    path = debs / f"{name}_{package.version}_all.deb"
    if not path.exists():
        command = ["apt-get", "-o", "APT::Sandbox::User=root", "download"]
        try:
            subprocess.run([*command, f"{name}={package.version}"], cwd=debs, check=True)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            raise SystemExit(
                f"cannot download {name} {package.version}: put {path.name} from "
                f"snapshot.debian.org into a folder and name it with --debs."
            ) from error
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != package.sha256:
        raise SystemExit(f"{path}: sha256 is {found}, not {package.sha256}")
    return data


def cut(track: Track, files: dict[str, bytes]) -> np.ndarray:
    """The track's excerpt (N, 2): files summed, cut, faded and levelled."""
    import soundfile

    package = PACKAGES[track.package]
    start, n = round(track.start_s * RATE), round(track.seconds * RATE)
    total = np.zeros((n, 2))
    for name in track.files:
        with soundfile.SoundFile(io.BytesIO(files[f"{package.folder}/{name}"])) as file:
            if file.samplerate != RATE or file.channels != 2 or file.frames < start + n:
                raise ValueError(f"{track.id}: {name} is not {RATE} Hz stereo or too short")
            file.seek(start)
            total += file.read(n, dtype="float64")
    faded = fade(total, FADE_S if start else FADE_EDGE_S, FADE_S)
    return level(faded)


def manifest_row(track: Track) -> dict[str, Any]:
    """The songs.jsonl row of a recorded track."""
    package = PACKAGES[track.package]
    return {
        "id": track.id,
        "audio": f"audio/{track.id}.ogg",
        "artist": package.artist,
        "album": package.album,
        "genres": list(package.genres),
        "year": package.year,
        "tags": list(package.tags),
        "licence": package.licence,
        "group": track.group,
        "split": track.split,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: cut every track of TRACKS."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for audio/ and songs.jsonl")
    parser.add_argument("--debs", type=Path, help="folder of .deb files, downloaded if absent")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        debs = args.debs or Path(scratch)
        for name, package in PACKAGES.items():
            tracks = [track for track in TRACKS if track.package == name]
            wanted = [f"{package.folder}/{file}" for track in tracks for file in track.files]
            files = deb_files(load_deb(name, debs), wanted)
            for track in tracks:
                write_ogg(args.out / "audio" / f"{track.id}.ogg", cut(track, files), COMPRESSION)
                print(f"{track.id}: {track.seconds:.1f} s", file=sys.stderr)
    update_manifest(args.out / "songs.jsonl", map(manifest_row, TRACKS))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
