"""Every command, preset and option that the documentation names exists."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import re
import runpy
import sys
from pathlib import Path
from unittest import mock

import pytest
from pages import PAGES, ROOT, commands, prose_options

from experiments.__main__ import COMMANDS
from experiments.evaluate.__main__ import COMMANDS as OF_EVALUATE
from jukejax.evaluation.suites import SUITES
from jukejax.presets import PRESETS

OF_PRESETS = ("train", "launch", "compile")  # commands whose first word is a preset or a run
OF_VERBS = ("prepare", "compose", "convert", "labels", "model", "benchmark", "scaling")
KINDS = {"convert": "--format", "launch": "--on"}  # options that decide which others there are

# options of other programs, and one that no help lists
OF_OTHERS = {
    "--two-stems", "--clean", "--single-speaker", "--no-deps", "--project", "--region",
    "--temp-location", "--help-all", "--stems",
}  # fmt: skip


def choice(name: str, rest: list[str]) -> tuple[str, ...]:
    """The words of a command line that decide which options there are."""
    words = [word for word in rest[:1] if re.fullmatch(r"[a-z][a-z0-9_-]*", word)]
    if name in OF_PRESETS:
        if words and words[0] not in ("plans", "shardings"):
            assert words[0] in PRESETS, f"there is no preset {words[0]}"
        words = words or ["prior_5b_lyrics"]
    elif name == "evaluate":
        words = [word for word in words if word in OF_EVALUATE]
    elif name not in OF_VERBS:
        words = []
    kind = KINDS.get(name)
    if kind in rest:
        words += [kind, rest[rest.index(kind) + 1]]
    return tuple(words)


@functools.cache
def options(name: str, words: tuple[str, ...]) -> frozenset[str]:
    """The long options that `--help-all` of a command lists."""
    text = io.StringIO()
    with (
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "argv", [name, *words, "--help-all"]),
        contextlib.redirect_stdout(text),
        pytest.raises(SystemExit) as end,
    ):
        runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
    assert end.value.code in (0, None), f"jukejax {name} {' '.join(words)}: {end.value}"
    return frozenset(re.findall(r"--[a-z][\w.-]*", text.getvalue().replace("_", "-")))


def options_of(name: str, rest: list[str]) -> tuple[set[str], frozenset[str]]:
    """The long options on a command line, and those that there are."""
    named = {
        word.partition("=")[0].replace("_", "-") for word in rest if re.match(r"--[a-z]", word)
    }
    known = options(name, choice(name, rest)) if named else frozenset()
    if name == "launch" and named:
        known |= options("train", choice("train", rest))  # passed on to it
    return named, known


def mistakes(line: list[str]) -> list[str]:
    """What is wrong with a command's name, preset and options."""
    name, *rest = line
    if name not in COMMANDS:
        return [] if name == "COMMAND" else [f"there is no command {name}"]
    wrong: list[str] = []
    if name == "evaluate" and rest and rest[0] not in OF_EVALUATE:
        suites = itertools.takewhile(lambda word: not word.startswith("--"), rest)
        wrong = [f"there is no suite {word}" for word in suites if word not in (*SUITES, "all")]
    if name in OF_VERBS and rest:
        options(name, choice(name, rest))  # the verb exists
    named, known = options_of(name, rest)
    return wrong + [f"{name} has no {option}" for option in sorted(named - known)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_exist(page: Path) -> None:
    lines = commands(page.read_text())
    assert [(line, wrong) for line in lines for wrong in mistakes(line)] == []


def test_options_in_prose_exist() -> None:
    lines = [line for page in PAGES for line in commands(page.read_text()) if line[0] in COMMANDS]
    known = set().union(*(options_of(name, rest)[1] for name, *rest in lines)) | OF_OTHERS
    named = {page.name: prose_options(page.read_text()) - known for page in PAGES}
    assert {page: sorted(wrong) for page, wrong in named.items() if wrong} == {}


def test_the_pages_name_every_command() -> None:
    named = {line[0] for page in PAGES for line in commands(page.read_text())}
    assert set(COMMANDS) - named == {"demo"}  # `make demo` runs it


def test_a_wrong_name_is_noticed() -> None:
    text = "```\njukejax smaple --out a\njukejax sample --modle runs/model --out a  # a song\n```"
    evaluate, smaple, sample = commands("`jukejax evaluate likelihod --out a`\n" + text)
    assert mistakes(evaluate) == ["there is no suite likelihod"]
    assert mistakes(smaple) == ["there is no command smaple"]
    assert mistakes(sample) == ["sample has no --modle"]
