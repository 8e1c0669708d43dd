"""Every command answers --help at once: without importing jax, and with an example."""

import json
import os
import subprocess
import sys

import pytest

from experiments.__main__ import COMMANDS

# Lines that lead to a help of their own, beside `jukejax COMMAND`.
FURTHER = [
    "prepare scan", "prepare build", "prepare report", "train vqvae", "train prior_5b_lyrics",
    "compile vqvae", "compile prior_5b", "compile plans", "compile shardings",
    "compose begin", "compose extend", "compose upsample",
    "compose tree", "model make", "model show", "model ship", "labels grow", "labels show",
    "convert import", "convert import --format openai", "convert export --format stablehlo",
    "launch prior_5b", "launch prior_5b --on slurm", "evaluate compare", "evaluate explorer",
    "evaluate lines",
    "scaling plan", "scaling sweep", "scaling run", "scaling fit",
]  # fmt: skip
LINES = [*COMMANDS, *FURTHER]
VERBS = ("prepare", "model", "compose", "labels")  # they list verbs, whose help has the example
HEAVY = ("jax", "tensorflow", "orbax", "matplotlib", "librosa", "torch")

# One process for all: each line's exit code, its help, and the heavy modules it imported.
PROGRAM = """
import contextlib, io, json, sys
from experiments.__main__ import main

answers = {}
for line in sys.argv[2:]:
    sys.argv[0:] = ["jukejax", *line.split(), "--help"]
    before, out = set(sys.modules), io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            main()
            code = None
        except SystemExit as stop:
            code = stop.code
    answers[line] = code, out.getvalue(), sorted(set(sys.modules) - before)
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers():
    program = PROGRAM.replace("sys.argv[2:]", repr(LINES))
    environment = {**os.environ, "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("line", LINES)
def test_help_answers_without_jax(line, answers):
    code, text, imported = answers[line]
    assert code == 0 and text.startswith(f"usage: jukejax {line.split()[0]}")
    assert not {name.partition(".")[0] for name in imported} & set(HEAVY)


@pytest.mark.parametrize("line", LINES)
def test_help_has_an_example(line, answers):
    _, text, _ = answers[line]
    name = line.split()[0]
    if line not in VERBS:
        assert f"Example: jukejax {name} " in text or f"\njukejax {name} " in text


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("train vqvae", "--data data/songs"),
        ("train prior_5b_lyrics", "--data data/codes"),
        ("compile vqvae", "--topology v5e:2x2"),
        ("compile prior_5b", "--topology v5e:2x2 --what decode"),
    ],
)
def test_the_example_is_of_the_chosen_preset(line, option, answers):
    assert f"Example: jukejax {line} {option}" in answers[line][1]
