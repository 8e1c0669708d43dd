"""Runs commands, each in a fork of this process, which has imported all but started no device.

A line of JSON on standard input, {"lines": [["sample", ...], ...], "log": path}, is answered by the
number of the process that runs these commands in a row, and, when it has ended, its exit status.
"""

import importlib
import json
import os
import sys

from experiments import cli
from jukejax import exit_codes

MODULES = (
    "jax flax.linen optax orbax.checkpoint tensorflow tensorflow_datasets soundfile soxr tyro "
    "experiments.training experiments.codes experiments.sample experiments.compose "
    "experiments.evaluate.suites jukejax.training.loop jukejax.sampling.run "
    "jukejax.evaluation.suites jukejax.interop.importing jukejax.interop.huggingface"
)


def run(lines, log):
    """Runs commands until one fails; ends this process with its exit code."""
    os.setsid()  # so that its workers can be killed with it
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    code = 0
    try:
        for line in lines:
            cli.run_command(*line)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        print(end.code if isinstance(end.code, str) else "", file=sys.stderr, flush=True)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = exit_codes.CRASH
    cli.at_once(code)


def main():
    for module in MODULES.split():
        importlib.import_module(module)
    print("ready", flush=True)
    for request in sys.stdin:
        child = os.fork()
        if child == 0:
            run(**json.loads(request))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
