"""Songs to records.

python -m experiments.prepare scan FOLDER --out songs.jsonl
python -m experiments.prepare build --manifest songs.jsonl --out data/songs --workers 4
python -m experiments.prepare build --manifest songs.jsonl --out data/songs --runner DirectRunner
python -m experiments.prepare report --data data/songs --out data/report --workers 4
"""

import shlex
import sys
from json import dumps
from pathlib import Path

import tyro

from data_pipeline import prepare
from data_pipeline.manifest import write_manifest
from data_pipeline.plan import Options
from data_pipeline.scan import other_kinds, scan_folder
from data_pipeline.songs import SAMPLE_RATE
from experiments import cli
from jukejax.errors import DataError

app = tyro.extras.SubcommandApp()


@app.command
def scan(folder: tyro.conf.Positional[Path], out: Path, overwrite: bool = False) -> None:
    """List the sound files of a folder as a manifest.

    Example: python -m experiments.prepare scan ~/Music --out songs.jsonl

    Args:
        folder: where the wav, flac, ogg, mp3 and opus files are; tags give the labels, .txt or
            .lrc files beside them the lyrics.
        out: the manifest to write.
        overwrite: replace a manifest that is there already, with every change made to it by hand.
    """
    if out.exists() and not overwrite:
        raise DataError(
            f"{out} exists already, and may hold labels mended by hand; give another --out, or "
            "--overwrite to replace it"
        )
    count = write_manifest(scan_folder(folder), out)
    others = other_kinds(folder)
    if others:
        counts = ", ".join(f"{suffix} {count}" for suffix, count in others.items())
        print(f"{sum(others.values())} files of other kinds left out: {counts}; convert them")
    print(f"{count} songs listed in {out}; see that the labels are right, then build")


@app.command
def build(
    manifest: Path,
    out: Path,
    workers: int = 1,
    min_seconds: float = 1.0,
    test_fraction: float = 0.1,
    seed: int = 0,
    sample_rate: int = SAMPLE_RATE,
    min_count: int = 1,
    runner: str = "",
    beam_flags: str = "",
) -> None:
    """Decode songs into records; run it again to go on after an interruption.

    Example: python -m experiments.prepare build --manifest songs.jsonl --out data/songs

    Args:
        manifest: a songs.jsonl, or a folder of sound files.
        out: the data set to write.
        workers: processes that decode.
        min_seconds: shorter songs are skipped.
        test_fraction: part of the songs without a given split that goes to the test split.
        seed: of the split.
        sample_rate: of the records, in Hz; that of the VQ-VAE to train.
        min_count: artists, genres, decades and tags of fewer songs are left out of labels.json,
            and so are unknown.
        runner: Apache Beam's, in place of workers: DirectRunner, PortableRunner, DataflowRunner ...
        beam_flags: Beam's own flags in one text, such as
            --beam-flags="--direct_num_workers=2 --direct_running_mode=multi_processing".
    """
    options = Options(min_seconds, test_fraction, seed, sample_rate)
    report = prepare.build(
        manifest,
        out,
        workers=workers,
        options=options,
        min_count=min_count,
        runner=runner,
        beam_flags=shlex.split(beam_flags),
    )
    print("\n".join(report.lines()))


@app.command
def report(data: Path, out: Path, workers: int = 1, json: bool = False) -> None:
    """Say what is in a data set: a page and JSON; run it again to go on after an interruption.

    Example: python -m experiments.prepare report --data data/songs --out data/report

    Args:
        data: songs, as `build` wrote them.
        out: gets index.html, report.json and what was measured of each song.
        workers: processes that measure.
        json: print the report as one JSON object too.
    """
    from data_pipeline.report import make

    found = make.make_report(data, out, workers=workers)
    print("\n".join([*make.lines(found), f"{out / 'index.html'}"]))
    if json:
        print(dumps(found))


@cli.command
def main(arguments: list[str]) -> None:
    app.cli(args=arguments, description=__doc__, prog="python -m experiments.prepare")


if __name__ == "__main__":
    main(sys.argv[1:])
