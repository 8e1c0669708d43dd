"""kill -9 at random moments of three levels, the lower ones in chains: the song stays the same."""

import json
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny_model

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("JUKEJAX_KILLS", "5"))
OPTIONS = [
    "--artist", "ella", "--genre", "jazz", "--seconds", "3", "--count", "2", "--seed", "7",
    "--hop-fraction", "0.5", "0.5", "0.5", "--temperature", "3", "3", "3",
    "--parallel-segments", "3",
]  # fmt: skip


def start(model, out):
    line = [sys.executable, "-m", "experiments.sample", "--model", model, "--out", out, *OPTIONS]
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        list(map(str, line)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process):
    output = process.communicate()[0].decode()
    assert process.returncode == 0, output


def position(out):
    """(level, codes made, those without a gap, positions of the round under way), for the table."""
    for level in (0, 1, 2):
        file = out / f"level_{level}" / "codes.npz"
        if file.exists():
            with np.load(file) as data:
                made, done = int(data["made"].min()), int(data["done"].min())
            drawn = 0
            if (out / f"level_{level}" / "window_0.npz").exists():
                with np.load(out / f"level_{level}" / "window_0.npz") as data:
                    drawn = data["drawn"].shape[1] if int(data["place"][1]) == made else 0
            if made or drawn:
                return level, made, done, drawn
    return 2, 0, 0, 0


def test_killed_at_random_moments_it_makes_the_same_song(tmp_path, oracle):
    # so slow that windows take longer than the time between two saves
    model = tiny_model.write(tmp_path, oracle, n_ctx=2048, depth=9, width=256)
    began = time.monotonic()
    finish(start(model, tmp_path / "whole"))
    whole, rng, table = time.monotonic() - began, random.Random(3), []
    out = tmp_path / "killed"
    for _ in range(KILLS):
        process = start(model, out)
        while not (out / "job.json").exists() and process.poll() is None:
            time.sleep(0.1)
        before = position(out)
        while position(out) == before and process.poll() is None:
            time.sleep(0.1)  # every life gets on, or the test would never end
        time.sleep(rng.uniform(0, 0.6 * whole / KILLS))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        table.append(position(out))
        process.stdout.close()
    print("killed at (level, codes made, without a gap, positions of the round under way):")
    print(*table, sep="\n")
    assert len(table) >= 3
    if KILLS >= 20:  # in every level, and where other chains are ahead of the first
        assert {level for level, *_ in table} == {0, 1, 2}
        assert any(made > done for _, made, done, _ in table)
    assert any(drawn for *_, drawn in table)  # inside a round
    finish(start(model, out))
    for level in (0, 1, 2):
        files = [x / f"level_{level}" / "codes.npz" for x in (tmp_path / "whole", out)]
        with np.load(files[0]) as a, np.load(files[1]) as b:
            np.testing.assert_array_equal(a["codes"], b["codes"])
            assert (b["done"] == b["codes"].shape[1]).all()
        for i in (0, 1):
            sounds = [x / f"level_{level}" / f"item_{i}.wav" for x in (tmp_path / "whole", out)]
            assert sounds[0].read_bytes() == sounds[1].read_bytes()
    records = [json.loads((x / "job.json").read_text()) for x in (tmp_path / "whole", out)]
    assert records[0]["request"] == records[1]["request"]
