"""Runs programs as several processes that find each other, and reads what they saved."""

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

ROOT = Path(__file__).parents[1]
TINY_RUN = ROOT / "tests" / "multihost" / "tiny_run.py"


def environment(devices, **more):
    """For a child with so many virtual devices, which finds this checkout first."""
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    flags += " --xla_cpu_collective_call_terminate_timeout_seconds=300"
    flags += " --xla_cpu_collective_timeout_seconds=300"  # of collectives between processes
    told = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    return os.environ | told | {name: str(value) for name, value in more.items()}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def pair(devices=4, **more):
    """Two processes of so many devices each that find each other by variables."""
    address = f"127.0.0.1:{free_port()}"
    return [
        environment(
            devices, JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES=2, JAX_PROCESS_ID=i, **more
        )
        for i in (0, 1)
    ]


def run(arguments, environments, wait=True, program=(str(TINY_RUN),)):
    """Outputs and exit codes of processes with these arguments, started together."""
    command = [sys.executable, "-X", "faulthandler", *program, *map(str, arguments)]
    children = [
        subprocess.Popen(
            command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for env in environments
    ]
    if not wait:
        return children
    with ThreadPoolExecutor() as threads:  # a pipe that nobody reads would stop a process
        outputs = list(threads.map(_output, children))
    return outputs, [child.returncode for child in children]


def _output(child):
    """All that it prints; one that hangs is made to print where."""
    try:
        return child.communicate(timeout=400)[0]
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGABRT)
        return child.communicate()[0]


def saved(workdir):
    """The last checkpoint's step and trees, as numpy."""
    folder = workdir / "checkpoints"
    step = max(int(p.name) for p in folder.iterdir() if p.name.isdigit())
    trees = {}
    for name in ("params", "ema", "opt_state", "extra"):
        path = folder / str(step) / name
        if path.exists():
            with ocp.PyTreeCheckpointer() as reader:
                tree = reader.metadata(path).item_metadata.tree
                how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
                trees[name] = reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=how))
    return step, trees


def lines(path):
    """Objects of a .jsonl file; none where it is not there yet, and not a torn last one."""
    if not path.exists():
        return []
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]


def without_times(record):
    return {k: v for k, v in record.items() if not k.startswith(("time", "memory"))}
