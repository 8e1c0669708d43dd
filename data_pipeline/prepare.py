"""Songs to records: `build` decodes a manifest or a folder into shards, and can be killed.

Finished shards are kept by a run that follows; one with the same input does nothing. Beside the
shards lie `songs.jsonl`, `labels.json`, `report.json` and `plan.json`.
"""

import concurrent.futures
import contextlib
import dataclasses
import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipeline import files, records, songs
from data_pipeline.errors import DataError
from data_pipeline.labels import Vocabulary, song_labels
from data_pipeline.manifest import Manifest, Song, read_manifest
from data_pipeline.plan import Options, Plan, ShardTask, make_plan
from data_pipeline.scan import scan_folder
from data_pipeline.shards import build_shard
from data_pipeline.songs import PreparedSong
from data_pipeline.splits import conflicts


@dataclasses.dataclass(frozen=True)
class Report:
    """What a run did; `up_to_date` says that there was nothing to do."""

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
) -> Report:
    """Prepares every good song of a manifest (or of a folder of sound files) into `out`.

    Args:
      manifest: a `songs.jsonl`, or a folder to scan.
      out: folder of the data set.
      workers: processes that decode; the result does not depend on it.
      options: length limit, split, seed and sample rate.
      min_count: songs that must have a label for it to get into `labels.json`.
      show_progress: whether to show a bar with rate and time left.

    Raises:
      DataError: nothing could be prepared, a worker died, or `out` holds something else.
    """
    options = options or Options()
    _check(options, workers, min_count)
    _check_out(Path(manifest), Path(out))
    listed = load_songs(manifest)
    out = Path(out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    plan = make_plan(listed.songs, out, options)
    report = _finished_report(out, plan, min_count)
    if report is not None:
        return report
    (out / "plan.json").unlink(missing_ok=True)  # from here on the folder is not whole
    (out / "dataset_info.json").unlink(missing_ok=True)
    pending = [task for task in plan.tasks if task.finished() is None]
    if pending:
        run_tasks(pending, workers, show_progress)
    return finish(out, plan, listed, min_count)


def load_songs(manifest: str | Path) -> Manifest:
    """The songs of a manifest file or of a folder; raises DataError when there are none."""
    path = Path(manifest)
    listed = Manifest(tuple(scan_folder(path)), ()) if path.is_dir() else read_manifest(path)
    if not listed.songs:
        problems = "".join(f"\n  {problem}" for problem in listed.problems[:20])
        raise DataError(
            f"{manifest} lists no usable song; add some{problems and ', or mend:'}{problems}"
        )
    return listed


def run_tasks(tasks: Sequence[ShardTask], workers: int, show_progress: bool) -> None:
    """Writes the shards here or in `workers` processes; raises DataError when one dies."""
    (tasks[0].out / "shards").mkdir(exist_ok=True)
    total = sum(task.weight for task in tasks)
    with tqdm(
        total=total, unit="B", unit_scale=True, desc="prepare", disable=not show_progress
    ) as bar:
        if workers == 1:
            for task in tasks:
                build_shard(task, bar.update)
            return
        with _pool(min(workers, len(tasks))) as submit:
            futures = {submit(build_shard, task): task for task in tasks}
            for future in concurrent.futures.as_completed(futures):
                future.result()
                bar.update(futures[future].weight)


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[Callable[..., concurrent.futures.Future[Any]]]:
    """Spawned processes (threads do not survive a fork); cancels the rest on an error."""
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context)
    try:
        yield pool.submit
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died (out of memory, or killed); run the same command again, with "
            "fewer --workers: the finished shards are kept"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def finish(out: Path, plan: Plan, listed: Manifest, min_count: int = 1) -> Report:
    """Writes what lies beside the shards once all of them are there, `plan.json` last.

    Raises:
      DataError: a shard is missing, or not one song could be prepared.
    """
    notes = [task.finished() for task in plan.tasks]
    missing = [task.path.name for task, note in zip(plan.tasks, notes, strict=True) if note is None]
    if missing:
        raise DataError(f"{len(missing)} shards are missing ({missing[0]} ...); run prepare again")
    found = [note for note in notes if note is not None]
    prepared, lengths = _place(plan, found, {song.id: song for song in listed.songs})
    report = _make_report(plan, found, listed, prepared)
    files.write_json(out / "report.json", dataclasses.asdict(report))
    if not prepared:
        reasons = "\n  ".join(report.lines())
        raise DataError(f"not one song could be prepared; mend these and run again:\n  {reasons}")
    songs.write_songs(out, prepared)
    Vocabulary.build(**song_labels(listed.songs), min_count=min_count).save(out / "labels.json")
    notes_and_shards = {path for task in plan.tasks for path in (task.path, task.note)}
    records.remove_leftovers(out, notes_and_shards)
    records.write_metadata(
        out, records.audio_features(), lengths, "Songs as stereo int16 segments."
    )
    files.write_json(out / "plan.json", _state(plan, min_count))
    return report


def _state(plan: Plan, min_count: int) -> dict[str, Any]:
    """What `plan.json` keeps of a finished run."""
    return {"digest": plan.digest} | ({"min_count": min_count} if min_count > 1 else {})


def _place(
    plan: Plan, notes: Sequence[dict[str, Any]], by_id: dict[str, Song]
) -> tuple[list[PreparedSong], dict[str, list[int]]]:
    """The prepared songs with the place of their records, and records by shard of each split."""
    prepared: list[PreparedSong] = []
    lengths: dict[str, list[int]] = {split: [] for split in records.SPLITS}
    for task, note in zip(plan.tasks, notes, strict=True):
        first = start = sum(lengths[task.split])
        for entry in note["songs"]:
            count = -(-entry["n_samples"] // records.SEGMENT)
            song = by_id[entry["id"]]
            prepared.append(_prepared(song, len(prepared), task, first, count, entry["n_samples"]))
            first += count
        lengths[task.split].append(first - start)
    return prepared, lengths


def _prepared(
    song: Song, index: int, task: ShardTask, first: int, count: int, n_samples: int
) -> PreparedSong:
    names = ("artist", "album", "genres", "year", "tags", "lyrics", "words", "licence", "group")
    return PreparedSong(
        index=index,
        id=song.id,
        split=task.split,
        shard=task.index,
        first_record=first,
        records=count,
        n_samples=n_samples,
        sample_rate=task.sample_rate,
        audio=str(song.audio),
        **{name: getattr(song, name) for name in names},
    )


def _make_report(
    plan: Plan, notes: Sequence[dict[str, Any]], listed: Manifest, prepared: list[PreparedSong]
) -> Report:
    lines = [
        {"id": problem.song, "reason": f"line {problem.line} of the manifest: {problem.text}"}
        for problem in listed.problems
        if problem.skipped
    ]
    remarks = [str(problem) for problem in listed.problems if not problem.skipped]
    in_test = sum(song.split == "test" for song in prepared)
    return Report(
        songs=len(prepared),
        seconds=sum(song.n_samples / song.sample_rate for song in prepared),
        train_songs=len(prepared) - in_test,
        test_songs=in_test,
        skipped=tuple(lines + [item for note in notes for item in note["skipped"]]),
        remarks=tuple(remarks + conflicts(listed.songs)),
    )


def _finished_report(out: Path, plan: Plan, min_count: int) -> Report | None:
    """The report of an earlier run with the same input and every shard in place."""
    earlier, saved = files.read_json(out / "plan.json"), files.read_json(out / "report.json")
    beside = ("dataset_info.json", "features.json", "labels.json", songs.NAME)
    whole = all((out / name).is_file() for name in beside)
    if earlier != _state(plan, min_count) or saved is None or not whole:
        return None
    if any(task.finished() is None for task in plan.tasks):
        return None
    lists = {key: tuple(saved[key]) for key in ("skipped", "remarks")}
    return Report(**{**saved, **lists, "up_to_date": True})


def _check_out(manifest: Path, out: Path) -> None:
    """Refuses a folder in which the run would overwrite codes or its own manifest."""
    if (out / songs.CODES).exists():
        raise DataError(
            f"{out} holds codes ({songs.CODES}), that songs would overwrite; give another --out"
        )
    if manifest.resolve() == (out / songs.NAME).resolve():
        raise DataError(
            f"the manifest {manifest} would be overwritten, for the data set in {out} gets a "
            f"{songs.NAME} of its own; give another --out, or keep the manifest elsewhere"
        )


def _check(options: Options, workers: int, min_count: int) -> None:
    if min_count < 1:
        raise DataError(f"--min-count is {min_count}; give 1 or more")
    if workers < 1:
        raise DataError(f"--workers is {workers}; give 1 or more")
    if not 0 <= options.test_fraction <= 1:
        raise DataError(f"--test-fraction is {options.test_fraction}; give a part between 0 and 1")
    if not (math.isfinite(options.min_seconds) and options.min_seconds >= 0):
        raise DataError(f"--min-seconds is {options.min_seconds}; give a number of 0 or more")
    if options.sample_rate < 1:
        raise DataError(f"--sample-rate is {options.sample_rate}; give 1 or more, in Hz")
