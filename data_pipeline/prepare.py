"""Songs to records: `build` decodes a manifest or a folder into shards; it can be interrupted.

The next run keeps finished shards; with the same input it does nothing. The data set also has
`songs.jsonl`, `labels.json`, `report.json` and `plan.json`.
"""

import contextlib
import dataclasses
import json
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_pipeline import beam, records, songs
from data_pipeline.manifest import Manifest, Song, read_manifest, write_manifest
from data_pipeline.plan import Options, Plan, ShardTask, make_plan
from data_pipeline.scan import Counts, scan_folder
from data_pipeline.shards import build_shard
from data_pipeline.songs import PreparedSong
from data_pipeline.splits import conflicts
from data_pipeline.workers import results
from jukejax import files, locks
from jukejax.errors import DataError
from jukejax.text.labels import Vocabulary, song_labels

_LOG = logging.getLogger(__name__)
SCANNED = "scanned.jsonl"  # the manifest of a folder, written before it is prepared
# Fields of a prepared song that are those of the manifest.
_AS_LISTED = {x.name for x in dataclasses.fields(Song)} - {"audio", "split"}
_AS_LISTED &= {x.name for x in dataclasses.fields(PreparedSong)}


@dataclasses.dataclass(frozen=True)
class Report:
    """What a run did; `up_to_date`: there was nothing to do."""

    songs: int
    seconds: float
    train_songs: int
    test_songs: int
    skipped: tuple[dict[str, str], ...]
    remarks: tuple[str, ...]
    up_to_date: bool = False

    def lines(self) -> list[str]:
        """The report as lines to print."""
        lines = [f"skipped {item['id'] or 'a line'}: {item['reason']}" for item in self.skipped]
        lines += [f"note: {remark}" for remark in self.remarks]
        lines.append(
            f"{self.songs} songs, {self.seconds / 60:.1f} minutes "
            f"({self.train_songs} train, {self.test_songs} test), {len(self.skipped)} skipped"
        )
        if self.up_to_date:
            lines.append("nothing to do: the records are up to date with these songs and options")
        return lines


def build(
    manifest: str | Path,
    out: str | Path,
    *,
    workers: int = 1,
    options: Options | None = None,
    min_count: int = 1,
    show_progress: bool = True,
    pipeline: Sequence[str] = (),
    verify: bool = False,
) -> Report:
    """Prepares every good song of a manifest, or of a folder of sound files.

    Args:
      manifest: a `songs.jsonl`, or a folder to scan.
      out: folder of the data set.
      workers: processes that decode; the result does not depend on their number.
      options: shortest song, test split, seed and sample rate.
      min_count: labels of fewer songs are left out of `labels.json`.
      show_progress: whether to show a progress bar.
      pipeline: an Apache Beam runner and its flags; it writes the shards in place of `workers`.
      verify: read all finished shards, and make the damaged ones and the metadata again.

    Raises:
      DataError: nothing could be prepared, a worker died, or `out` is not free for a data set.
      FolderInUse: another process writes to `out`.
    """
    options = options or Options()
    _check(options, workers, min_count)
    _check_out(Path(manifest), Path(out))
    out = Path(out).resolve()
    with locks.writing(out):
        listed = load_songs(manifest, out)
        plan = make_plan(listed, out, options)
        if verify:
            _forget_damaged(plan)
        elif (report := _finished_report(out, plan, min_count)) is not None:
            return report
        (out / "plan.json").unlink(missing_ok=True)  # incomplete until it is written again
        (out / "dataset_info.json").unlink(missing_ok=True)
        (out / "shards").mkdir(exist_ok=True)
        if pipeline:
            beam.run_tasks(plan, *pipeline)
        else:
            run_tasks(plan, workers, show_progress)
        return finish(out, plan, listed, min_count)


def load_songs(manifest: str | Path, out: Path) -> Manifest:
    """The songs of a manifest, or of a folder, whose manifest is written to `out`.

    Raises:
      DataError: there are none.
    """
    path = Path(manifest)
    if path.is_dir():
        counts = Counts()
        scanned = scan_folder(path, counts)
        path = out / SCANNED
        write_manifest(scanned, path)
        for line in counts.lines() if counts.kinds or counts.left_out else ():
            _LOG.warning("%s", line)
    listed = read_manifest(path)
    if not len(listed.songs):
        problems = "".join(f"\n  {problem}" for problem in listed.problems[:20])
        raise DataError(
            f"{manifest} lists no usable song; add songs{problems and ', or mend:'}{problems}"
        )
    return listed


def _forget_damaged(plan: Plan) -> None:
    """Removes the notes of damaged shards, so that these are made again."""
    for task in plan:
        if (note := task.finished()) is None:
            continue
        try:
            if records.shard_songs(task.path) != note["songs"]:
                raise DataError(f"{task.path} does not have the songs in {task.note.name}")
        except DataError as error:
            _LOG.warning("%s. It is made again.", str(error).split("; run ")[0])
            task.note.unlink()


def run_tasks(plan: Plan, workers: int, show_progress: bool) -> None:
    """Writes the missing shards, in this process or in `workers` others.

    Raises:
      DataError: a process died.
    """
    pending = np.array([i for i, task in enumerate(plan) if task.finished() is None], np.int32)
    total = sum(plan.songs(i) for i in pending)
    with tqdm(total=total, unit="song", desc="prepare", disable=not show_progress) as bar:
        if workers == 1 or len(pending) < 2:
            for i in pending:
                build_shard(plan[i], bar.update)
            return
        tasks = (plan[i] for i in pending)
        for i, _ in zip(
            pending, results(build_shard, tasks, min(workers, len(pending))), strict=True
        ):
            bar.update(plan.songs(i))


def finish(out: Path, plan: Plan, listed: Manifest, min_count: int = 1) -> Report:
    """Writes the other files of the data set once all shards are complete, `plan.json` last.

    Raises:
      DataError: a shard is missing, or not one song could be prepared.
    """
    placed = _Placed(plan, listed)
    with contextlib.suppress(_NoSong):
        songs.write_songs(out, placed.songs())
    report = placed.report()
    files.write_json(out / "report.json", dataclasses.asdict(report))
    if not report.songs:
        reasons = "\n  ".join(report.lines())
        raise DataError(f"no song could be prepared; mend these and run again:\n  {reasons}")
    Vocabulary.build(*song_labels(listed.labels), min_count=min_count).save(out / "labels.json")
    records.remove_leftovers(out, {name: split.shards for name, split in plan.splits.items()})
    records.write_metadata(
        out,
        records.features(audio=((None, 2), np.int16)),
        placed.lengths,
        "Songs as stereo int16 segments.",
    )
    files.write_json(out / "plan.json", _state(plan, min_count))
    return report


def _state(plan: Plan, min_count: int) -> dict[str, Any]:
    """Content of `plan.json`: a later run with the same content is up to date."""
    state = {"digest": plan.digest} | ({"min_count": min_count} if min_count > 1 else {})
    return state | {"options": dataclasses.asdict(plan.options)}


class _NoSong(Exception):
    """No song was prepared."""


class _Placed:
    """The prepared songs with the places of their records, in one pass over the shards' notes."""

    def __init__(self, plan: Plan, listed: Manifest) -> None:
        self.plan, self.listed = plan, listed
        self.lengths: dict[str, list[int]] = {split: [] for split in records.SPLITS}
        self.counts = dict.fromkeys(records.SPLITS, 0)
        self.samples = 0
        self.skipped: list[dict[str, str]] = []
        self.remarks: list[str] = []

    def songs(self) -> Iterator[PreparedSong]:
        """All of them; _NoSong if there is none, DataError if a shard is missing."""
        firsts = dict.fromkeys(records.SPLITS, 0)
        for task in self.plan:
            note = task.finished()
            if note is None:
                raise DataError(f"{task.path.name} is missing; run prepare again")
            n_samples = {entry["id"]: entry["n_samples"] for entry in note["songs"]}
            begin = firsts[task.split]
            for song in task.songs:
                if song.id in n_samples:
                    first, index = firsts[task.split], sum(self.counts.values())
                    placed = _prepared(song, index, task, first, n_samples[song.id])
                    firsts[task.split] += placed.records
                    self.counts[task.split] += 1
                    self.samples += placed.n_samples
                    yield placed
            self.lengths[task.split].append(firsts[task.split] - begin)
            self.skipped += note["skipped"]
            self.remarks += note.get("remarks", [])
        if not any(self.counts.values()):
            raise _NoSong

    def report(self) -> Report:
        """The report of what `songs` placed."""
        problems = self.listed.problems
        lines = [
            {"id": problem.song, "reason": f"line {problem.line} of the manifest: {problem.text}"}
            for problem in problems
            if problem.skipped
        ]
        remarks = [str(problem) for problem in problems if not problem.skipped]
        return Report(
            songs=sum(self.counts.values()),
            seconds=self.samples / self.plan.options.sample_rate,
            train_songs=self.counts["train"],
            test_songs=self.counts["test"],
            skipped=tuple(lines + self.skipped),
            remarks=tuple(remarks + self.remarks + conflicts(self.listed.labels)),
        )


def _prepared(song: Song, index: int, task: ShardTask, first: int, n_samples: int) -> PreparedSong:
    return PreparedSong(
        index=index,
        split=task.split,
        shard=task.index,
        first_record=first,
        records=-(-n_samples // records.SEGMENT),
        n_samples=n_samples,
        sample_rate=task.sample_rate,
        audio=str(song.audio),
        **{name: getattr(song, name) for name in _AS_LISTED},
    )


def _finished_report(out: Path, plan: Plan, min_count: int) -> Report | None:
    """The report of an earlier run, if its input was the same and nothing is missing."""
    earlier, saved = files.read_json(out / "plan.json"), files.read_json(out / "report.json")
    others = ("dataset_info.json", "features.json", "labels.json", songs.NAME)
    complete = all((out / name).is_file() for name in others)
    wanted = _state(plan, min_count)
    if isinstance(earlier, dict):  # an older version wrote no options
        earlier = {"options": wanted["options"], **earlier}
    if earlier != wanted or saved is None or not complete:
        return None
    if any(task.finished() is None for task in plan):
        return None
    lists = {key: tuple(saved[key]) for key in ("skipped", "remarks")}
    return Report(**{**saved, **lists, "up_to_date": True})


def _check_out(manifest: Path, out: Path) -> None:
    """DataError if the run would overwrite codes or its own manifest."""
    if (out / songs.CODES).exists():
        raise DataError(
            f"{out} holds codes ({songs.CODES}), which songs would overwrite; give another --out"
        )
    if manifest.resolve() == (out / songs.NAME).resolve():
        raise DataError(
            f"the manifest {manifest} would be overwritten by the {songs.NAME} of the data set in "
            f"{out}; give another --out, or keep the manifest elsewhere"
        )


def check_same_options(out: Path, options: Options) -> None:
    """DataError if `out` has songs of another sample rate or split: a training may read them."""
    before = files.read_json(out / "plan.json")
    before = before.get("options") if isinstance(before, dict) else None
    before = dict(before) if isinstance(before, dict) else {}  # an older version wrote none
    try:
        with (out / songs.NAME).open(encoding="utf-8") as file:
            before["sample_rate"] = json.loads(file.readline())["sample_rate"]
    except (OSError, ValueError, KeyError, TypeError):  # none, or damaged: nothing reads them
        return
    for name in ("sample_rate", "test_fraction", "seed"):
        option, wanted = f"--{name.replace('_', '-')}", getattr(options, name)
        if before.get(name, wanted) != wanted:
            raise DataError(
                f"{out} has songs prepared with {option} {before[name]}, not {wanted}; give "
                f"another --out, {option} {before[name]}, or --overwrite to replace them"
            )


def _check(options: Options, workers: int, min_count: int) -> None:
    if min_count < 1:
        raise DataError(f"--min-count is {min_count}; give 1 or more")
    if workers < 1:
        raise DataError(f"--workers is {workers}; give 1 or more")
    if not 0 <= options.test_fraction <= 1:
        raise DataError(f"--test-fraction is {options.test_fraction}; give a share from 0 to 1")
    if not (math.isfinite(options.min_seconds) and options.min_seconds >= 0):
        raise DataError(f"--min-seconds is {options.min_seconds}; give a number of 0 or more")
    if options.sample_rate < 1:
        raise DataError(f"--sample-rate is {options.sample_rate}; give 1 or more, in Hz")
