"""kill -9 at random moments of three levels, the lower ones in chains: the song stays the same."""

import contextlib
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
TOTALS = (1500, 3000, 6000)  # codes of 3 seconds, top first


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
    """A row a level: codes made, those without a gap, positions of the round under way."""
    rows = []
    for level in (2, 1, 0):
        folder, made, done, drawn = out / f"level_{level}", 0, 0, 0
        with contextlib.suppress(FileNotFoundError):  # begun later, or over just now
            with np.load(folder / "codes.npz") as data:
                made, done = int(data["made"].min()), int(data["done"].min())
            with np.load(folder / "window_0.npz") as data:
                if int(data["place"][1]) == made:
                    drawn = data["drawn"].shape[1]
        rows.append((made, done, drawn))
    return rows


def share(rows):
    """How much of the song is made, from 0 to 1; levels count alike, and rows of chains as one."""
    return (
        sum((made + drawn) / total for (made, _, drawn), total in zip(rows, TOTALS, strict=True))
        / 3
    )


def test_killed_at_random_moments_it_makes_the_same_song(tmp_path, oracle):
    # so slow that windows take longer than the time between two saves
    model = tiny_model.write(tmp_path, oracle, n_ctx=1024, depth=9, width=256)
    finish(start(model, tmp_path / "whole"))
    rng, table, out = random.Random(3), [], tmp_path / "killed"
    print(
        "\nkilled at (codes made, without a gap, positions of the round under way), top to bottom:"
    )
    for moment in sorted(rng.uniform(0, 0.95) for _ in range(KILLS)):
        process = start(model, out)
        while not (out / "job.json").exists() and process.poll() is None:
            time.sleep(0.1)
        before = position(out)  # every life gets on, or the test would never end
        while process.poll() is None and (position(out) == before or share(position(out)) < moment):
            time.sleep(0.1)
        time.sleep(rng.uniform(0, 1))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        process.stdout.close()
        table.append(position(out))
        print(f"{share(table[-1]):4.0%}", *table[-1], flush=True)
    assert len(table) >= 3
    assert any(drawn for rows in table for *_, drawn in rows)  # inside a round
    if KILLS >= 20:  # in every level, and where other chains are ahead of the first
        assert all(any(0 < rows[i][0] + rows[i][2] < TOTALS[i] for rows in table) for i in range(3))
        assert any(made > done for rows in table for made, done, _ in rows)
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
