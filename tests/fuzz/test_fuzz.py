"""A small part of `python -m tests.fuzz` in the default suite, and whether it finds anything."""

import os
import signal
import time

import numpy as np
import pytest

from jukejax.errors import DataError
from tests.fuzz import __main__ as command
from tests.fuzz.formats import FORMATS
from tests.fuzz.harness import OUTCOMES, Format, Runner, require

INPUTS = 200


def test_a_part_of_the_fuzz_command(tmp_path):
    runner, seen = Runner(FORMATS, tmp_path, seed=0), dict.fromkeys(OUTCOMES, 0)
    for name, number in command.counts(INPUTS):
        outcome, text = runner.run(name, number)
        seen[outcome] += 1
        assert outcome != "finding", f"--seed 0 --only {name}:{number}\n{text}"
    assert seen["refused"] > INPUTS / 4 and seen["unchanged"] > INPUTS / 20


def test_an_input_is_a_function_of_seed_format_and_number(tmp_path):
    chosen = [f for f in FORMATS if f.name in ("lyrics", "wav")]
    first = Runner(chosen, tmp_path / "a", seed=3)
    runs = [("wav", 7), ("lyrics", 5), ("wav", 2)]
    texts = [first.run(*run)[0] for run in runs]
    bytes_of = [p.read_bytes() for p in sorted((tmp_path / "a/input").iterdir())]
    again = Runner(chosen, tmp_path / "b", seed=3)
    assert [again.run(*run)[0] for run in reversed(runs)] == texts[::-1]
    again.run(*runs[-1])
    assert [p.read_bytes() for p in sorted((tmp_path / "b/input").iterdir())] == bytes_of


def refused(text):
    raise DataError(text)


def broken(_state, folder, rng):
    """What the formats must not do, by the number of the input."""
    kinds = (
        lambda: {}["a"],
        lambda: refused("a sentence that names no file"),
        lambda: refused(f"{folder} has\ntwo lines"),
        lambda: require(False, "another sound"),
        lambda: refused(f"{folder} is damaged; copy it again"),
        lambda: np.load(folder / "missing"),
    )
    return kinds[int(rng.integers(len(kinds)))]() or "unchanged"


def test_findings_are_told_from_refusals(tmp_path):
    runner = Runner([Format("broken", 1, lambda _: None, broken)], tmp_path, seed=0)
    seen = dict(runner.run("broken", number)[::-1] for number in range(60))
    by_text = {text.strip().split("\n")[-1].split(":")[0]: kind for text, kind in seen.items()}
    assert by_text["KeyError"] == by_text["another sound"] == "finding"
    assert by_text["jukejax.errors.DataError"] == by_text["two lines"] == "finding"
    assert sorted(seen.values()).count("refused") == 2


@pytest.mark.slow
def test_hangs_and_crashes_are_survived(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "HANG", 2.0)
    monkeypatch.setattr(command, "child", child)
    inputs = [(name, 0) for name in ("ok", "hang", "ok", "crash", "ok")]
    found = [outcome for _, _, outcome, _, _ in command.outcomes(inputs, 0, tmp_path)]
    assert found == ["unchanged", "hang", "unchanged", "crash", "unchanged"]


def child(pipe, _folder, _seed, inputs):
    """In place of the formats' child process: each input does what its name says."""
    pipe.send("ready")
    for name, _ in inputs:
        if name == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(60 if name == "hang" else 0)
        pipe.send(("unchanged", ""))
