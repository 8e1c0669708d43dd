"""A generated manifest, validated, split, planned and streamed; how much memory a song costs.

JUKEJAX_MANIFEST_LINES sets the lines of the slow test (1,200,000 in the docs), which prints seconds
and peak memory after each stage, each manifest in a process of its own (`pytest -s`).
"""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from batches import audio_batches

from data_pipeline.manifest import read_manifest
from jukejax import files
from jukejax.host_memory import peak_bytes

LINES = int(os.environ.get("JUKEJAX_MANIFEST_LINES", "50_000"))
MUSIC = Path(__file__).parents[2] / "data_pipeline/demo_music/audio"
WORDS = ("love", "night", "moon", "river", "road", "home", "sun", "rain", "heart", "dance")


def generate(path, lines, every=100_000):
    """Writes a manifest of many songs of few files, in no order; one line in `every` is bad."""
    sounds = sorted(str(x) for x in MUSIC.iterdir() if x.suffix != ".md")
    rng = np.random.default_rng(0)
    numbers = rng.permutation(lines)

    def entries():
        for place, number in enumerate(map(int, numbers)):
            artist = int(5000 * rng.random() ** 2)
            entry = {
                "id": f"artist {artist:04d}/album {number % 9}/song {number:07d}",
                "audio": sounds[number % len(sounds)],
                "artist": f"Artist {artist:04d}",
                "genres": [f"genre {artist % 120}", f"genre {number % 7}"][: 1 + number % 2],
                "year": 1950 + number % 75,
            }
            if number % 3 == 0:
                entry["lyrics"] = " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), 150))
            if number % 50 == 0:
                entry["group"] = f"group {number // 100}"
            if place % every == every - 1:
                bad = {"audio": "nowhere.ogg"}, {"id": "artist"}, {"yaer": 1999}
                entry |= bad[place // every % 3]
            yield entry

    files.write_json_lines(path, entries())


def measure(manifest, batch, samples):
    """Seconds and peak memory after each stage; in a process of its own."""
    from data_pipeline import records
    from data_pipeline.song_files import SongFiles

    records.tensorflow()
    stages, began = {"before": (0.0, peak_bytes())}, time.perf_counter()

    def stage(name):
        stages[name] = time.perf_counter() - began, peak_bytes()

    songs = SongFiles(manifest)
    stage("validated, planned")
    batches = audio_batches(songs, split="train", samples=samples, batch_size=batch, seed=0)
    stage("headers read")
    first = next(batches)["audio"]
    stage("first batch")
    for _ in range(10):
        next(batches)
    stage("ten more batches")
    splits = songs.plan.splits
    return {
        "stages": stages,
        "songs": len(songs.listed.songs),
        "train": len(splits["train"].songs),
        "test": len(splits["test"].songs),
        "shape": list(first.shape),
    }


def test_every_bad_line_is_listed(tmp_path):
    generate(tmp_path / "songs.jsonl", 350, every=50)
    listed = read_manifest(tmp_path / "songs.jsonl")
    found = [(problem.line, problem.text.split("'")[0]) for problem in listed.problems]
    assert found == [
        (50, f"the file {tmp_path}/nowhere.ogg does not exist; mend "),
        (150, "the key "),
        (200, f"the file {tmp_path}/nowhere.ogg does not exist; mend "),
        (250, "the id is taken by line 100; give each song its own id"),
        (300, "the key "),
        (350, f"the file {tmp_path}/nowhere.ogg does not exist; mend "),
    ]
    assert len(listed.songs) == 344


@pytest.mark.slow
def test_a_manifest_is_planned_and_streamed(tmp_path):
    figures = {}
    for lines in (LINES // 10, LINES):
        path = tmp_path / f"songs_{lines}.jsonl"
        generate(path, lines)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            figures[lines] = f = pool.submit(measure, path, 4, 9 * 44_100).result()
        print(f"{lines:,} lines ({path.stat().st_size / 1e6:,.0f} MB): {f['songs']:,} songs")
        for name, (seconds, peak) in f["stages"].items():
            print(f"  {name:20}{seconds:8.1f} s  peak {peak / 1e6:7.1f} MB")
        assert f["songs"] == lines - lines // 100_000 and f["shape"] == [4, 9 * 44_100, 1]
        assert f["train"] + f["test"] == f["songs"]
        times = [seconds for seconds, _ in f["stages"].values()]
        assert times == sorted(times)
    small, large = (f["stages"]["ten more batches"][1] for f in figures.values())
    songs = [f["songs"] for f in figures.values()]
    print(f"peak memory grows by {(large - small) / (songs[1] - songs[0]):.1f} bytes a song")
    # names of artists alone would take more: no list of songs is in memory
    assert large - small < 2**25 + 200 * (songs[1] - songs[0])
