"""The benchmark of a large manifest, on a small one."""

import json

from experiments import benchmark


def test_manifest_is_planned_and_streamed(tmp_path, capsys):
    folder = str(tmp_path / "m")
    benchmark.main(["manifest", "--lines", "300", "--folder", folder, "--seconds", "1", "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["30"]["songs"], found["300"]["songs"]) == (30, 300)
    assert found["300"]["train"] + found["300"]["test"] == 300
    assert found["300"]["shape"] == [4, 44_100, 1]
    times = [stage["at"] for stage in found["300"]["stages"].values()]
    assert times == sorted(times)
