"""Building records: what is written, what is skipped, going on after a kill."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st
from sounds import RATE, sound, write_lines, write_song

from data_pipeline import audio, plan, prepare, records, shards
from data_pipeline.plan import Options
from data_pipeline.songs import prepared_songs
from experiments import prepare as command
from jukejax import locks
from jukejax.errors import DataError, FolderInUse
from jukejax.text.labels import Vocabulary


def build(manifest, out, **options):
    workers = options.pop("workers", 1)
    options = Options(**{"min_seconds": 0.25} | options)
    return prepare.build(manifest, out, workers=workers, options=options, show_progress=False)


def contents(folder):
    """Bytes by relative path of everything in a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def many_shards(monkeypatch):
    """Makes every song a shard of its own."""
    monkeypatch.setattr(plan, "_SHORTEST", 0.1)
    monkeypatch.setattr(plan, "_SHARDS", 10_000)


def test_tfds_opens_the_records_and_they_hold_the_songs(dataset):
    import tensorflow_datasets as tfds

    folder, pcm = dataset
    builder = tfds.builder_from_directory(folder)
    songs = prepared_songs(folder)
    assert [song.id for song in songs] == ["a", "b", "c", "d", "e", "f"]
    for song in songs:
        source = builder.as_data_source(song.split)
        last = song.first_record + song.records
        rows = [source[index] for index in range(song.first_record, last)]
        joined = np.concatenate([row["audio"] for row in rows])
        np.testing.assert_array_equal(joined, pcm[song.id])
        assert {row["id"].decode() for row in rows} == {song.id}
        assert {row["n_samples"] for row in rows} == {song.n_samples} == {len(pcm[song.id])}
        assert [row["offset"] for row in rows] == list(range(0, len(joined), records.SEGMENT))
    assert sum(song.records for song in songs) == sum(
        len(builder.as_data_source(split)) for split in ("train", "test")
    )


def test_records_of_another_sample_rate(library, dataset, tmp_path):
    rate = 22_050
    report = build(library[0], tmp_path / "half", sample_rate=rate)
    assert report.seconds == pytest.approx(17.75, abs=0.01)
    pairs = zip(prepared_songs(tmp_path / "half"), prepared_songs(dataset[0]), strict=True)
    for song, before in pairs:
        assert (song.sample_rate, before.sample_rate) == (rate, RATE)
        pcm = dataset[1][song.id]
        expected = soxr.resample(pcm.astype(np.float32) / 32768, RATE, rate)
        got = records.read_audio(tmp_path / "half", song, 0, song.n_samples)
        assert got.shape == expected.shape
        assert np.abs(got - np.clip(expected * 32768, -32768, 32767)).max() <= 0.51
    with pytest.raises(DataError, match="--sample-rate is 0"):
        build(library[0], tmp_path / "none", sample_rate=0)


def test_songs_of_other_options_are_replaced_only_if_asked_for(library, tmp_path):
    out = tmp_path / "set"
    options = [f"--manifest={library[0]}", f"--out={out}", "--min-seconds=0.25"]
    command.main(["build", *options, f"--sample-rate={RATE}"])
    before = contents(out)
    for option, was, now in (
        ("--sample-rate", RATE, RATE // 2), ("--seed", 0, 1), ("--test-fraction", 0.1, 0.5)
    ):  # fmt: skip
        with pytest.raises(SystemExit, match=f"with {option} {was}, not {now}; .*--overwrite"):
            command.main(["build", *options, f"{option}={now}"])
    assert contents(out) == before
    command.main(["build", *options, f"--sample-rate={RATE // 2}", "--seed=1", "--overwrite"])
    assert {song.sample_rate for song in prepared_songs(out)} == {RATE // 2}


def test_options_of_an_older_data_set_are_unknown_but_the_rate(library, tmp_path):
    out = tmp_path / "set"
    build(library[0], out)
    plan = out / "plan.json"
    plan.write_text(json.dumps({"digest": json.loads(plan.read_text())["digest"]}))
    assert build(library[0], out).up_to_date
    prepare.check_same_options(out, Options(seed=3))
    with pytest.raises(DataError, match="--sample-rate 44100, not 8000"):
        prepare.check_same_options(out, Options(sample_rate=8000))


def test_what_lies_beside_the_records(dataset):
    folder, _ = dataset
    song = prepared_songs(folder)[2]
    assert (song.index, song.artist, song.genres) == (2, "Artist 2", ("rock", "folk"))
    assert song.lyrics.startswith("words of c")
    vocabulary = Vocabulary.load(folder / "labels.json")
    assert vocabulary.artists == ("unknown", "artist 0", "artist 1", "artist 2")
    report = json.loads((folder / "report.json").read_text())
    assert (report["songs"], report["train_songs"], report["test_songs"]) == (6, 4, 2)
    assert not [path for path in folder.rglob("*") if path.suffix == ".tmp"]


@given(st.data())
def test_any_stretch_of_a_song_can_be_read(dataset, data):
    folder, pcm = dataset
    song = data.draw(st.sampled_from(prepared_songs(folder)))
    start = data.draw(st.integers(0, song.n_samples))
    stop = data.draw(st.integers(start, song.n_samples))
    np.testing.assert_array_equal(
        records.read_audio(folder, song, start, stop), pcm[song.id][start:stop]
    )
    with pytest.raises(DataError, match="inside"):
        records.read_audio(folder, song, start, song.n_samples + 1)


def test_bad_songs_are_skipped_with_their_reasons(tmp_path):
    write_song(tmp_path / "good.wav", 2.0)
    soundfile.write(tmp_path / "mono8k.wav", sound(2.0, rate=8000, channels=1), 8000)
    soundfile.write(tmp_path / "six96k.wav", sound(2.0, rate=96_000, channels=6), 96_000)
    (tmp_path / "text.wav").write_text("these are words" * 100)
    soundfile.write(tmp_path / "silent.wav", np.zeros((RATE * 2, 2)), RATE)
    soundfile.write(tmp_path / "short.wav", sound(0.2), RATE)
    soundfile.write(tmp_path / "nan.wav", np.full((RATE * 2, 2), np.nan), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "cut.flac", sound(3.0), RATE)
    data = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(data[: len(data) // 2])
    entries = [
        {"id": path.stem, "audio": path.name, "artist": "🎸 x", "lyrics": "la " * 40_000}
        for path in sorted(tmp_path.iterdir())
    ]
    entries += [{"id": "gone", "audio": "gone.wav"}, {"id": "x", "audio": "good.wav", "titel": ""}]
    manifest = write_lines(tmp_path / "songs.jsonl", entries)
    report = build(manifest, tmp_path / "out", test_fraction=0.0)
    assert [song.id for song in prepared_songs(tmp_path / "out")] == ["good", "mono8k", "six96k"]
    reasons = {item["id"]: item["reason"] for item in report.skipped}
    assert set(reasons) == {"text", "silent", "short", "nan", "cut", "gone", "x"}
    for name, words in {"text": "not a sound file", "silent": "silent", "short": "0.20 s"}.items():
        assert words in reasons[name]
    assert "NaN" in reasons["nan"] and "cut short" in reasons["cut"]
    assert "line 9" in reasons["gone"] and "does not exist" in reasons["gone"]
    assert "line 10" in reasons["x"]
    assert len(report.remarks) == 8 and "120,000 characters" in report.remarks[0]
    printed = "\n".join(report.lines())
    assert all(reason in printed for reason in reasons.values())
    half = sound(2.0, rate=8000, channels=1)
    (song,) = [song for song in prepared_songs(tmp_path / "out") if song.id == "mono8k"]
    pcm = records.read_audio(tmp_path / "out", song, 0, song.n_samples)
    assert len(pcm) == 2 * RATE and (pcm[:, 0] == pcm[:, 1]).all()
    assert abs(np.abs(pcm / 32768).max() - np.abs(half).max()) < 0.1


def test_nothing_usable_is_an_error_that_lists_why(tmp_path):
    (tmp_path / "a.wav").write_text("words")
    with pytest.raises(DataError, match="no song could be prepared") as error:
        build(tmp_path, tmp_path / "out")
    assert "not a sound file" in str(error.value)
    with pytest.raises(DataError, match="no usable song"):
        build(write_lines(tmp_path / "songs.jsonl", [{"id": "a"}]), tmp_path / "out")


def test_shards_that_lost_all_their_songs(tmp_path, many_shards):
    for name in "abc":
        write_song(tmp_path / f"{name}.wav", 1.0)
    (tmp_path / "b.wav").write_text("words" * 40_000)
    build(tmp_path, tmp_path / "out", test_fraction=0.0)
    songs = prepared_songs(tmp_path / "out")
    assert [(song.id, song.shard, song.first_record) for song in songs] == [
        ("a", 0, 0),
        ("c", 2, 3),
    ]
    assert len(records.read_audio(tmp_path / "out", songs[1], 0, RATE)) == RATE


def test_second_run_does_nothing_and_says_so(library, dataset):
    before = {path: path.stat().st_mtime_ns for path in dataset[0].rglob("*")}
    report = build(library[0], dataset[0])
    assert report.up_to_date and "nothing to do" in report.lines()[-1]
    assert {path: path.stat().st_mtime_ns for path in dataset[0].rglob("*")} == before


def test_resume_after_a_stop_in_every_shard(library, tmp_path, monkeypatch, many_shards):
    whole = tmp_path / "whole"
    build(library[0], whole)
    expected = contents(whole)
    names = sorted((name for name in expected if "array_record" in name), key=_order)
    assert len(names) == 6
    decode = audio.decode
    for stop in range(len(names)):
        calls = []

        def stopping(*args, calls=calls, stop=stop):
            calls.append(args[0])
            yield next(decode(*args))
            if len(calls) > stop:
                raise KeyboardInterrupt
            yield from list(decode(*args))[1:]

        out = tmp_path / f"stopped_{stop}"
        monkeypatch.setattr(audio, "decode", stopping)
        with pytest.raises(KeyboardInterrupt):
            build(library[0], out)
        with pytest.raises(DataError, match="not a prepared data set"):
            records.open_split(out, "train")
        # What a kill without warning leaves: half a file, and a shard whose note is not written.
        (out / ".songs-train.0123456789ab.tmp.array_record-0").write_bytes(b"half")
        (out / names[-1]).write_bytes(b"half a shard")
        monkeypatch.setattr(audio, "decode", decode)
        written = []
        monkeypatch.setattr(prepare, "build_shard", _noting(written))
        build(library[0], out)
        monkeypatch.undo()
        monkeypatch.setattr(plan, "_SHORTEST", 0.1)
        monkeypatch.setattr(plan, "_SHARDS", 10_000)
        assert len(written) == len(names) - stop
        assert contents(out) == expected
        shutil.rmtree(out)


def _order(name):
    """Shards are written in this order."""
    return "train" not in name, name


def _noting(written):
    """`build_shard` that notes which shards it wrote."""
    original = prepare.build_shard

    def noting(task, progress):
        written.append(task.path.name)
        return original(task, progress)

    return noting


def test_a_killed_process_leaves_what_the_next_one_finishes(library, tmp_path, many_shards):
    expected_out, out = tmp_path / "whole", tmp_path / "killed"
    build(library[0], expected_out)
    program = f"""
import time
from data_pipeline import audio, plan, prepare
plan._SHORTEST, plan._SHARDS, decode = 0.1, 10_000, audio.decode
def slow(*args):
    for block in decode(*args):
        yield block
        time.sleep(0.2)
audio.decode = slow
options = plan.Options(min_seconds=0.25)
prepare.build({str(library[0])!r}, {str(out)!r}, options=options, show_progress=False)
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=os.getcwd())
    deadline = time.monotonic() + 60
    while not list(out.glob("shards/*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 1 <= len(list(out.glob("shards/*.json"))) < 6
    build(library[0], out)
    assert contents(out) == contents(expected_out)


def test_long_songs_pass_through_a_file_unchanged(library, tmp_path, monkeypatch):
    build(library[0], tmp_path / "memory")
    monkeypatch.setattr(shards, "IN_MEMORY", 300_000)  # a second and a half
    build(library[0], tmp_path / "file")
    assert contents(tmp_path / "memory") == contents(tmp_path / "file")


def test_nothing_of_jax_and_tensorflow_only_where_it_is_needed(library, tmp_path):
    program = f"""
import sys
from data_pipeline import code_loader, loader, prepare, records, scan, songs
from data_pipeline.plan import Options
options = Options(min_seconds=0.25)
prepare.build({str(library[0])!r}, {str(tmp_path)!r}, options=options, show_progress=False)
song = songs.prepared_songs({str(tmp_path)!r})[0]
records.read_audio({str(tmp_path)!r}, song, 0, 100)
found = {{"jax", "tensorflow", "librosa", "torch"}} & set(sys.modules)
assert not found, found
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_scan_command_imports_no_jax(library, tmp_path):
    program = f"""
import sys
from experiments import prepare
prepare.main(["scan", {str(library[0].parent)!r}, "--out", {str(tmp_path / "songs.jsonl")!r}])
found = {{"jax", "flax", "orbax", "tensorflow", "tensorflow_datasets"}} & set(sys.modules)
assert not found, found
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert len((tmp_path / "songs.jsonl").read_text().splitlines()) == 6


def test_workers_give_the_same_bytes(library, tmp_path, many_shards):
    build(library[0], tmp_path / "one")
    build(library[0], tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_changes_are_noticed_and_only_they_are_rebuilt(tmp_path, monkeypatch, many_shards):
    entries = []
    for seed, name in enumerate("abc"):
        write_song(tmp_path / f"{name}.wav", 1.0, seed)
        entries.append({"id": name, "audio": f"{name}.wav", "split": "train"})
    manifest, out = tmp_path / "songs.jsonl", tmp_path / "out"
    build(write_lines(manifest, entries), out)
    written = []
    monkeypatch.setattr(prepare, "build_shard", _noting(written))
    changed = write_song(tmp_path / "b.wav", 1.5, 9)
    assert not build(manifest, out).up_to_date
    assert written == ["songs-train.array_record-00001-of-00003"]
    song = prepared_songs(out)[1]
    np.testing.assert_array_equal(records.read_audio(out, song, 0, song.n_samples), changed)
    entries[2]["artist"] = "New"  # no sound changes, no record is written
    build(write_lines(manifest, entries), out)
    assert len(written) == 1 and prepared_songs(out)[2].artist == "New"
    build(write_lines(manifest, entries[:2]), out)  # fewer shards: the old ones go
    assert [song.id for song in prepared_songs(out)] == ["a", "b"]
    assert len(list(out.glob("*array_record*"))) == 2
    written.clear()
    path = out / records.shard_name("train", 0, 2)
    path.write_bytes(path.read_bytes()[:-1])  # cut by a broken copy
    build(manifest, out)
    assert written == [path.name]
    assert not build(manifest, out, min_seconds=1.2).up_to_date  # options count too
    assert [song.id for song in prepared_songs(out)] == ["b"]


def test_command_line(library, tmp_path):
    command = [sys.executable, "-m", "experiments.prepare"]
    found = subprocess.run(
        [*command, "scan", str(library[0].parent), "--out", str(tmp_path / "songs.jsonl")],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0 and "6 songs" in found.stdout, found.stderr
    lost = subprocess.run(
        [*command, "build", "--manifest", "none.jsonl", "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert lost.returncode == 1 and "error: the manifest none.jsonl" in lost.stderr


def test_options_out_of_range(library, tmp_path):
    for change in (
        {"test_fraction": 1.5},
        {"min_seconds": -1.0},
        {"min_seconds": float("nan")},
        {"workers": 0},
    ):
        with pytest.raises(DataError, match="--"):
            build(library[0], tmp_path / "out", **change)
    assert dataclasses.asdict(Options())["seed"] == 0


def test_two_builds_in_a_folder_are_refused(library, tmp_path):
    with locks.writing(tmp_path / "out"):
        with pytest.raises(FolderInUse, match="out is being written by process"):
            build(library[0], tmp_path / "out")
        assert [path.name for path in (tmp_path / "out").iterdir()] == [locks.NAME]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_bar_counts_songs(tmp_path, capsys, workers):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(5):
        write_song(folder / f"{number}.wav", 1.1, seed=number)
    lines = [{"id": str(i), "audio": f"{i}.wav", "artist": str(i)} for i in range(5)]
    manifest = write_lines(folder / "songs.jsonl", lines)
    prepare.build(manifest, tmp_path / "out", workers=workers)
    last = capsys.readouterr().err.split("\r")[-1]
    assert "prepare: 100%" in last and " 5/5 " in last and "song" in last
