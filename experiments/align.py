"""When each word is sung: a manifest with lyrics to one with word times.

jukejax align --manifest songs.jsonl --out songs_aligned.jsonl --workers 4
"""

from __future__ import annotations

import collections
import sys
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from data_pipeline.align.songs import LINEAR, Options, align_manifest
from experiments import cli
from jukejax import locks


@dataclass(frozen=True)
class Command:
    """Find the word times of songs; after an interruption, run it again to continue.

    Example: jukejax align --manifest songs.jsonl --out songs_aligned.jsonl --workers 4
    """

    manifest: Path
    """A songs.jsonl with lyrics."""
    out: Path
    """The manifest to write."""
    tool: tyro.conf.OmitArgPrefixes[Options] = field(default_factory=Options)
    workers: int = 1
    """Songs aligned at once, each in a process of its own."""
    replace: bool = False
    """Align songs that have word times too."""


@cli.command
def main(arguments: list[str]) -> None:
    command: Command = cli.parse(
        Command, arguments, "jukejax align", ("manifest", "out", "workers", "replace")
    )
    with locks.replacing(command.out):
        songs = align_manifest(
            command.manifest,
            command.out,
            command.tool,
            workers=command.workers,
            replace=command.replace,
        )
    for song in songs:
        if song.alignment and song.alignment["method"] == LINEAR:
            print(f"linear: {song.id}: {song.alignment['reason']}")
    methods = collections.Counter(song.alignment["method"] for song in songs if song.alignment)
    counts = ", ".join(f"{count} {method}" for method, count in sorted(methods.items()))
    print(f"{len(songs)} songs in {command.out}: {counts or 'none to align'}")


if __name__ == "__main__":
    main(sys.argv[1:])
