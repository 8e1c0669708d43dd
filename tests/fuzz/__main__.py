"""Feeds damaged files of every format to the library's readers: `python -m tests.fuzz`.

The inputs run in a child process, which is replaced when it dies or hangs. An input is a function
of the seed, its format and its number: a finding says how to repeat it with `--only`.
"""

import argparse
import collections
import multiprocessing
import secrets
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.harness import OUTCOMES, child

HANG = 20.0  # seconds
_START = 600.0  # seconds until the child has imported the libraries and written its files


def counts(inputs, only=()):
    """(format, number) of every input, the formats in turn."""
    from tests.fuzz.formats import FORMATS

    names = {only_name.partition(":")[0] for only_name in only}
    exact = [tuple(x.split(":")) for x in only if ":" in x]
    if exact:
        return [(name, int(number)) for name, number in exact]
    total = sum(f.share for f in FORMATS if not names or f.name in names)
    each = [(f.name, max(1, round(inputs * f.share / total))) for f in FORMATS
            if not names or f.name in names]  # fmt: skip
    return [(name, number) for name, count in each for number in range(count)]


def outcomes(inputs, seed, folder):
    """Yields (format, number, outcome, text, seconds) of every input."""
    context, at = multiprocessing.get_context("spawn"), 0
    while at < len(inputs):
        ours, theirs = context.Pipe()
        process = context.Process(target=child, args=(theirs, folder, seed, inputs[at:]))
        process.start()
        theirs.close()
        try:
            ready = ours.poll(_START) and ours.recv()
        except EOFError:
            ready = None
        if ready != "ready":
            process.kill()
            raise SystemExit("error: the child process cannot write the undamaged files.")
        while at < len(inputs):
            began = time.monotonic()
            try:
                if ours.poll(HANG):
                    outcome, text = ours.recv()
                else:
                    process.kill()
                    outcome, text = "hang", f"no answer in {HANG:.0f} s"
            except EOFError:
                process.join()
                outcome, text = "crash", f"the process ended with {process.exitcode}"
            yield *inputs[at], outcome, text, time.monotonic() - began
            at += 1
            if outcome in ("hang", "crash"):
                break
        process.join(5)
        process.kill()


def main():
    """Prints findings as they come, then a table by format; exit code 1 if there are findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="how many (default 10,000)")
    parser.add_argument("--seed", type=int, default=None, help="of all inputs (default: a new one)")
    parser.add_argument(
        "--only", nargs="*", default=[], help="formats, or inputs such as wav:12, to run alone"
    )
    given = parser.parse_args()
    seed = secrets.randbelow(2**31) if given.seed is None else given.seed
    inputs = counts(given.inputs, given.only)
    print(f"{len(inputs):,} inputs, seed {seed}", flush=True)
    table, slowest = collections.defaultdict(collections.Counter), (0.0, "")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for name, number, outcome, text, seconds in outcomes(inputs, seed, Path(folder)):
            table[name][outcome] += 1
            slowest = max(slowest, (seconds, f"{name}:{number}"))
            if outcome not in OUTCOMES[:-1]:
                print(f"\n{outcome}: --seed {seed} --only {name}:{number}\n{text}", flush=True)
            elif any(":" in x for x in given.only):
                print(f"{name}:{number} {outcome}: {text}")
    columns = (*OUTCOMES, "hang", "crash")
    print(f"\n{'format':20}{'inputs':>10}" + "".join(f"{x:>11}" for x in columns))
    table["all"] = sum(table.values(), collections.Counter())
    for name, row in table.items():
        print(f"{name:20}{row.total():>10,}" + "".join(f"{row[x]:>11,}" for x in columns))
    print(f"{time.monotonic() - began:.0f} s; slowest {slowest[0]:.1f} s ({slowest[1]})")
    sys.exit(int(any(table["all"][x] for x in columns[-3:])))


if __name__ == "__main__":
    main()
