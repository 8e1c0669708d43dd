"""Two processes of four devices do what one of eight does."""

import signal
import time

import jax
import numpy as np
import pytest
from processes import environment, free_port, lines, pair, run, saved

from jukejax import locks

pytestmark = pytest.mark.slow


def slurm():
    """What srun sets."""
    job = free_port()  # jax takes the port of process 0 from the number of the job
    return [
        environment(
            4, SLURM_JOB_ID=job, SLURM_STEP_NODELIST="localhost", SLURM_NTASKS=2,
            SLURM_PROCID=i, SLURM_LOCALID=i, SLURM_STEP_NUM_NODES=1,
        )
        for i in (0, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "start", "rows"),
    [
        ("prior", pair, ([0, 1, 2, 3], [4, 5, 6, 7])),
        ("vqvae", slurm, ([0, 2, 4, 6], [1, 3, 5, 7])),
        ("tensor", pair, ([0, 1, 2, 3, 4, 5, 6, 7],) * 2),
    ],
)
def test_two_processes_do_what_one_does(tmp_path, kind, start, rows):
    outputs, codes = run([kind, tmp_path / "two"], start())
    assert codes == [0, 0], outputs
    for index, output in enumerate(outputs):
        assert f"[{index}] rows {rows[index]}\n" in output
    alone, codes = run([kind, tmp_path / "one"], [environment(8)])
    assert codes == [0], alone
    two, one = (lines(tmp_path / name / "metrics.jsonl") for name in ("two", "one"))
    assert [r["step"] for r in two] == [r["step"] for r in one]
    for a, b in zip(two, one, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            if not name.startswith(("time", "memory")):
                assert a[name] == pytest.approx(b[name], rel=1e-5, abs=1e-5), name
    (step, found), (wanted, expected) = saved(tmp_path / "two"), saved(tmp_path / "one")
    assert step == wanted == 3
    assert ("extra" in found) == (kind == "vqvae")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected
    )
    # only process 0 prints and writes
    assert "[0] step 3/3" in outputs[0] and "step 3/3" not in outputs[1]
    assert len(list((tmp_path / "two" / "tensorboard").iterdir())) == 1
    # one process continues from what two saved
    more, codes = run([kind, tmp_path / "two", "steps=4"], [environment(8)])
    assert codes == [0] and "step 4/4" in more[0]


def test_two_processes_leave_a_damaged_checkpoint_together(tmp_path):
    outputs, codes = run(["pair", tmp_path], pair(1))
    assert codes == [0, 0], outputs
    arrays = (tmp_path / "checkpoints/3/opt_state").rglob("*")
    path = max(arrays, key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    outputs, codes = run(["pair", tmp_path, "steps=4"], pair(1))
    assert codes == [0, 0], outputs
    assert f"It is now {tmp_path}/damaged/3; continuing from step 2." in outputs[0]
    assert "step 3/4" in outputs[0] and "WARNING" not in outputs[1]
    assert (tmp_path / "damaged/3").is_dir() and saved(tmp_path)[0] == 4


def test_sigterm_to_one_stops_both_at_the_same_step(tmp_path):
    arguments = ["pair", tmp_path, "steps=100000", "checkpoint_every=100000"]
    children = run(arguments, pair(1), wait=False)
    while not lines(tmp_path / "metrics.jsonl"):
        time.sleep(0.05)
        assert all(child.poll() is None for child in children)
    children[1].send_signal(signal.SIGTERM)
    outputs = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [75, 75]
    step, _ = saved(tmp_path)
    for output in outputs:
        assert f"Stopped at step {step} of 100000" in output


def test_a_folder_that_is_not_shared_is_an_error(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    children = [
        run(["pair", "run"], [env | {"TINY_FOLDER": str(tmp_path / name)}], wait=False)[0]
        for env, name in zip(pair(1), "ab", strict=True)
    ]
    outputs = [child.communicate(timeout=120)[0] for child in children]
    assert [child.returncode for child in children] == [1, 1], outputs
    for output in outputs:
        assert "is not the same folder everywhere: processes [1] do not see" in output


# each process writes a file as atomic writes do; process 0 takes the lock late
WRITERS = """
import sys, time, jax
from pathlib import Path
from experiments import cli
from jukejax import files, locks
from jukejax.parallel import distributed

@cli.command
def main(folder):
    distributed.start()
    take = locks.writing
    locks.writing = lambda folder: time.sleep(3) or take(folder)
    with distributed.writing(folder):
        with files.atomic_path(Path(folder) / f"{jax.process_index()}.txt") as temporary:
            temporary.write_text("whole")
            time.sleep(5)
        distributed.together("written")

main(sys.argv[1])
"""


def test_taking_the_lock_removes_no_file_of_the_other_process(tmp_path):
    outputs, codes = run([tmp_path], pair(1), program=("-c", WRITERS))
    assert codes == [0, 0], outputs
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.txt", "1.txt"]


def test_both_processes_say_that_another_run_writes_there(tmp_path):
    with locks.writing(tmp_path):
        outputs, codes = run([tmp_path], pair(1), program=("-c", WRITERS))
    assert codes == [1, 1], outputs
    assert "is being written by process" in outputs[0]
    assert "process 0 could not lock it, and says why" in outputs[1]
    assert not any("Traceback" in output for output in outputs)


def test_a_folder_that_cannot_be_locked_ends_both_processes(tmp_path):
    (tmp_path / "file").touch()
    outputs, codes = run([tmp_path / "file" / "run"], pair(1), program=("-c", WRITERS))
    assert codes == [1, 1], outputs
    assert "Not a directory" in outputs[0]
    assert "process 0 could not lock it, and says why" in outputs[1]
    assert not any("Traceback" in output for output in outputs)
