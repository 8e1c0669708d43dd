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
CHAINS = 3  # below the top
KILLS = int(os.environ.get("JUKEJAX_KILLS", "5"))
OPTIONS = [
    "--artist", "ella", "--genre", "jazz", "--seconds", "3", "--count", "2", "--seed", "7",
    "--hop-fraction", "0.5", "0.5", "0.5", "--temperature", "3", "3", "3",
    "--parallel-segments", str(CHAINS),
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


def share(rows, i):
    """How much of a level is made, from 0 to 1, as if windows of chains did not overlap."""
    made, _, drawn = rows[i]
    return min(1, (made + drawn * (CHAINS if i else 1)) / TOTALS[i])


def reached(rows, i, least):
    """Whether a level is far enough to be killed: the lowest one only with later chains ahead."""
    made, done, _ = rows[i]
    return share(rows, i) >= least and (i < 2 or made > done)


def test_killed_at_random_moments_it_makes_the_same_song(tmp_path):
    # so slow that windows take longer than the time between two saves
    model = tiny_model.write(tmp_path, n_ctx=1024, depth=9, width=384)
    finish(start(model, tmp_path / "whole"))
    rng, table, out = random.Random(1), [], tmp_path / "killed"
    print(
        "\nkilled at (codes made, without a gap, positions of the round under way), top to bottom:"
    )
    # a level's last save may come long before its end
    for i, least in sorted((k % 3, rng.uniform(0, 0.6)) for k in range(KILLS)):
        process, before = start(model, out), position(out)
        # every life gets on, or the test would never end
        while process.poll() is None and (
            position(out) == before or not reached(position(out), i, least)
        ):
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.2))  # between two saves, or while saving; on the same level
        assert process.poll() is None, process.communicate()[0].decode()
        process.kill()
        process.wait()
        process.stdout.close()
        table.append(position(out))
        print(*table[-1], flush=True)
    assert any(drawn for rows in table for *_, drawn in rows)  # inside a round
    for i in range(3):
        assert any(0 < share(rows, i) < 1 for rows in table)
    assert any(made > done for rows in table for made, done, _ in rows)  # later chains are ahead
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
