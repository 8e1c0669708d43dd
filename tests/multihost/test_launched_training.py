"""The training command on real data, launched as two processes here, does what one process does."""

import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import tiny_codes
from processes import ROOT, environment, lines, saved, without_times

pytestmark = pytest.mark.slow
TRAIN = (
    "--model.codes 16 --model.n-ctx 32 --model.blocks 4 --model.width 16 --model.depth 2 "
    "--model.upper.width 8 --model.upper.depth 1 --train.batch 8 --train.steps 12 "
    "--train.log-every 1 --train.evaluate-every 6 --train.checkpoint-every 4 "
    "--optimizer.decay-steps 12 --optimizer.eps 1e-2 --optimizer.warmup-steps 0"
)


@pytest.fixture(scope="module")
def codes(tmp_path_factory):
    """Random codes of three songs of two seconds, one of them held out."""
    songs = [{"artist": x, "split": y} for x, y in (("a", "train"), ("b", "train"), ("c", "test"))]
    return tiny_codes.write(tmp_path_factory.mktemp("songs"), songs, seconds=2)


def start(codes, workdir, processes):
    command = [
        sys.executable, "-m", "experiments.launch", "demo_upsampler_level_1", "--on", "local",
        "--processes", str(processes), "--devices", str(2 // processes),
        "--data", codes, "--workdir", workdir, *TRAIN.split(),
    ]  # fmt: skip
    return subprocess.Popen(
        command, env=environment(1), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def test_launched_training(codes, tmp_path):
    two = start(codes, tmp_path / "two", 2)
    while len(lines(tmp_path / "two" / "metrics.jsonl")) < 3:
        assert two.poll() is None, two.communicate()[0]
        time.sleep(0.02)
    two.send_signal(signal.SIGTERM)  # to the launcher itself
    said = two.communicate(timeout=120)[0]
    assert two.returncode == 75, said
    two = start(codes, tmp_path / "two", 2)
    said = two.communicate(timeout=300)[0]
    assert two.returncode == 0 and "step 12/12" in said, said
    one = start(codes, tmp_path / "one", 1)
    said = one.communicate(timeout=300)[0]
    assert one.returncode == 0, said
    found, expected = (lines(tmp_path / name / "metrics.jsonl") for name in ("two", "one"))
    assert len(found) == len(expected) == 12 + 2
    for a, b in zip(found, expected, strict=True):
        assert without_times(a) == pytest.approx(without_times(b), rel=1e-5, abs=1e-5)
    assert len(lines(tmp_path / "two" / "starts.jsonl")) == 2
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        saved(tmp_path / "two")[1],
        saved(tmp_path / "one")[1],
    )
