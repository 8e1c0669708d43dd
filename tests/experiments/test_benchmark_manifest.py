"""The benchmark of a large manifest, on a small one."""

import json

import pytest

from data_pipeline.manifest import read_manifest
from experiments import benchmark
from experiments.benchmark import manifest, sounds


def test_every_bad_line_is_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_BAD", 50)
    manifest.generate(tmp_path / "songs.jsonl", 350, sounds.MUSIC)
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
def test_manifest_is_planned_and_streamed(tmp_path, capsys):
    folder = str(tmp_path / "m")
    benchmark.main(["manifest", "--lines", "300", "--folder", folder, "--seconds", "1", "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["30"]["songs"], found["300"]["songs"]) == (30, 300)
    assert found["300"]["train"] + found["300"]["test"] == 300
    assert found["300"]["shape"] == [4, 44_100, 1]
    times = [stage["at"] for stage in found["300"]["stages"].values()]
    assert times == sorted(times)
