"""SIGKILL at random moments of `prepare`, of its workers too: the records are the same."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
from sounds import sound, write_lines

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("JUKEJAX_KILLS", "3"))
PROGRAM = """
import sys
from data_pipeline import plan, prepare
plan._SHORTEST, plan._SHARDS = 1.0, 10_000  # a shard a song
if __name__ == "__main__":
    prepare.build(sys.argv[1], sys.argv[2], workers=2, show_progress=False)
"""


def contents(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def children(pid):
    """Worker processes (Linux)."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = {int(x): Path(f"/proc/{x}/cmdline").read_bytes() for x in found}
    return [child for child, line in lines.items() if b"spawn_main" in line]


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except OSError:
        return True


def test_killed_at_random_moments_it_writes_the_same_records(tmp_path):
    soundfile.write(tmp_path / "a.flac", sound(40.0, rate=48_000), 48_000)
    lines = [{"id": f"{i:02d}", "audio": "a.flac", "artist": str(i % 3)} for i in range(16)]
    manifest = write_lines(tmp_path / "songs.jsonl", lines)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(manifest)]
    options = {"env": {**os.environ, "PYTHONPATH": os.getcwd()}, "stderr": subprocess.PIPE}
    subprocess.run([*command, str(tmp_path / "whole")], check=True, **options)
    wrote = [path.stat().st_mtime for path in tmp_path.glob("whole/shards/*.json")]
    a_shard, rng, table = (max(wrote) - min(wrote)) / len(wrote), random.Random(5), []
    out = tmp_path / "killed"
    for kill in range(KILLS):
        process = subprocess.Popen([*command, str(out)], **options)
        before = len(list(out.glob("shards/*.json")))
        while len(list(out.glob("shards/*.json"))) == before and process.poll() is None:
            time.sleep(0.01)  # every life gets on, or the test would never end
        time.sleep(rng.uniform(0, 2 * a_shard))
        if process.poll() is not None:
            break
        workers = children(process.pid)
        a_worker = kill % 2 and workers
        os.kill(rng.choice(workers) if a_worker else process.pid, signal.SIGKILL)
        message = process.communicate()[1].decode()
        if a_worker:
            assert "a worker process died" in message
        deadline = time.monotonic() + 20
        while not all(map(gone, workers)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert all(map(gone, workers))  # nobody is left waiting for work
        table.append((bool(a_worker), len(list(out.glob("shards/*.json")))))
    print("killed (a worker?, shards done):", table)
    assert len(table) >= 3 and len({done for _, done in table}) > 1
    subprocess.run([*command, str(out)], check=True, **options)
    assert contents(out) == contents(tmp_path / "whole")
