"""A report on a prepared data set: `index.html` and `report.json`."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from data_pipeline import songs
from data_pipeline.report import collect, fingerprint, page, summary
from jukejax import files, locks, stored
from jukejax.errors import DataError


def make_report(
    data_dir: str | Path, out: str | Path, *, workers: int = 1, show_progress: bool = True
) -> dict[str, Any]:
    """Measures the songs of `data_dir` that are new to `out`, and writes the report.

    Raises:
      DataError: there are no prepared songs, `out` is the data set itself, or a worker died.
      FolderInUse: another process writes to `out`.
    """
    data_dir, out = Path(data_dir).resolve(), Path(out).resolve()
    songs.require_audio(data_dir)
    listed = songs.prepared_songs(data_dir)
    if out == data_dir:
        raise DataError(f"{out} holds the songs; give another --out for the report")
    if not len(listed):
        raise DataError(f"{data_dir} has no songs; prepare some first")
    rate = listed[0].sample_rate
    with locks.writing(out), collect.opened(out) as database:
        measured = collect.collect(data_dir, database, workers, show_progress)
        figures = summary.summarise(database)
    hop = max(1, round(rate / fingerprint.RATE)) * fingerprint.HOP / rate
    for pair in figures["duplicates"]["near"]:
        pair["shift_seconds"] = round(pair.pop("shift_frames") * hop, 3)
    now = datetime.datetime.now().astimezone()
    made = f"{now.day} {now:%B %Y, %H:%M}"
    left_out = stored.read_object(
        data_dir / "report.json", {"skipped": list, "remarks": list}, "build the data set again"
    )
    report = {
        **{"data": data_dir.name, "made": made, "measured_now": measured},
        **{name: left_out[name] for name in ("skipped", "remarks")},
        **figures,
    }
    files.write_json(out / "report.json", report)
    files.write_text(out / "index.html", page.render(report))
    return report


def lines(report: dict[str, Any]) -> list[str]:
    """The report in a few lines."""
    twins = report["duplicates"]
    loudness, aligned = report["loudness_lufs"], report["alignment"]
    out = [
        f"{report['songs']:,} songs, {report['hours']:.2f} hours, {report['artists']['count']:,} "
        f"artists, {report['genres']['count']:,} genres ({report['measured_now']:,} measured now)",
        f"lyrics for {report['lyrics']['songs']:,} songs, word times for {aligned['songs']:,}",
        f"{len(twins['exact'])} groups of equal songs, {len(twins['near'])} pairs nearly equal; "
        f"{report['clipping']['songs']:,} clipped, "
        f"{report['silence_percent']['songs_mostly_silent']:,} mostly silent",
    ]
    if report["skipped"]:
        out.append(f"{len(report['skipped'])} songs were left out when the data were built")
    if twins["across_splits"]:
        first = " and ".join(twins["across_splits"][0])
        out.append(
            f"{len(twins['across_splits'])} of these are in train and in test, such as {first}; "
            "give them one 'group' in the manifest and build again"
        )
    if loudness["songs"]:
        out.append(f"loudness {loudness['median']:.1f} LUFS (median)")
    return out
