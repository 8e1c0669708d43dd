"""Songs to records: scan a folder, build a data set, report on it.

jukejax prepare scan ~/Music --out songs.jsonl
jukejax prepare build --manifest songs.jsonl --out data/songs --workers 4
jukejax prepare build --manifest songs.jsonl --out data/songs --runner DirectRunner
jukejax prepare report --data data/songs --out data/report --workers 4
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from data_pipeline import prepare
from data_pipeline.manifest import write_manifest
from data_pipeline.plan import Options
from data_pipeline.scan import Counts, scan_folder
from experiments import cli
from jukejax import locks
from jukejax.errors import DataError


@dataclass(frozen=True)
class Scan:
    """List the sound files of a folder as a manifest.

    Example: jukejax prepare scan ~/Music --out songs.jsonl
    """

    folder: tyro.conf.Positional[Path]
    """Where the wav, flac, ogg, mp3 and opus files are; tags give the labels, .txt or .lrc files
    beside them, or tags, the lyrics."""
    out: Path
    """The manifest to write."""
    overwrite: bool = False
    """Replace an existing manifest, with every change made to it by hand."""


@dataclass(frozen=True)
class Build:
    """Decode songs into records; after an interruption, run it again to continue.

    Example: jukejax prepare build --manifest songs.jsonl --out data/songs --workers 4
    """

    manifest: Path
    """A songs.jsonl, or a folder of sound files."""
    out: Path
    """The data set to write."""
    workers: int = 1
    """Processes that decode."""
    data: tyro.conf.OmitArgPrefixes[Options] = field(default_factory=Options)
    min_count: int = 1
    """Artists, genres, decades and tags of fewer songs are left out of labels.json: unknown."""
    overwrite: bool = False
    """Replace a data set of another --sample-rate, --test-fraction or --seed."""
    verify: bool = False
    """Read all finished shards, and make those that are damaged again."""
    runner: str = ""
    """Apache Beam's, in place of workers: DirectRunner, PortableRunner, DataflowRunner ..."""
    beam_flags: str = ""
    """Beam's own flags in one text, such as
    --beam-flags="--direct_num_workers=2 --direct_running_mode=multi_processing"."""


@dataclass(frozen=True)
class Report:
    """Write a page and JSON about a data set; after an interruption, run it again to continue.

    Example: jukejax prepare report --data data/songs --out data/report
    """

    data: Path
    """Songs, as `build` wrote them."""
    out: Path
    """Gets index.html, report.json and the measures of each song."""
    workers: int = 1
    """Processes that measure."""
    json: bool = False
    """Print the report as one JSON object too."""


def scan(command: Scan) -> None:
    out, counts = command.out, Counts()
    with locks.replacing(out):
        if out.exists() and not command.overwrite:
            raise DataError(
                f"{out} exists already, and may hold labels mended by hand; give another --out, or "
                "--overwrite to replace it"
            )
        count = write_manifest(scan_folder(command.folder, counts), out)
    print("\n".join(counts.lines()))
    print(f"{count} songs listed in {out}; check that the labels are right, then build")


def build(command: Build) -> None:
    if not command.overwrite:
        prepare.check_same_options(command.out, command.data)
    beam = [command.runner, *shlex.split(command.beam_flags)] if command.runner else []
    report = prepare.build(
        command.manifest, command.out, workers=command.workers, options=command.data,
        min_count=command.min_count, pipeline=beam, verify=command.verify,
    )  # fmt: skip
    print("\n".join(report.lines()))


def report(command: Report) -> None:
    from data_pipeline.report import make

    figures = make.make_report(command.data, command.out, workers=command.workers)
    print("\n".join([*make.lines(figures), f"{command.out / 'index.html'}"]))
    if command.json:
        print(json.dumps(figures))


ACTIONS: dict[str, tuple[type, Callable[[Any], None], tuple[str, ...]]] = {
    "scan": (Scan, scan, ()),
    "build": (Build, build, ("manifest", "out", "workers", "min_count")),
    "report": (Report, report, ()),
}


@cli.command
def main(arguments: list[str]) -> None:
    about = {name: (kind.__doc__ or "").splitlines()[0] for name, (kind, *_) in ACTIONS.items()}
    name, rest = cli.choose(about, arguments, "jukejax prepare scan|build|report ...")
    kind, run, common = ACTIONS[name]
    run(cli.parse(kind, rest, f"jukejax prepare {name}", common))


if __name__ == "__main__":
    main(sys.argv[1:])
