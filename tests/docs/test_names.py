"""Every name, file and link in the documentation exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from pages import FENCE, PAGES, ROOT

NAME = re.compile(r"`((?:jukejax|data_pipeline|experiments)(?:\.[A-Za-z]\w*)+)(?:\(\))?`")
FILE = re.compile(r"`((?:jukejax|data_pipeline|experiments|tests|docs)/[\w./-]*\w)`")
TEST_ID = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
TEST = re.compile(r"`(test_\w+\.py)`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)")
SNIPPET = re.compile(r'--8<-- "([^":]+)')


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            fields = getattr(thing, "__dataclass_fields__", {})
            annotations = getattr(thing, "__annotations__", {})
            if part in fields or part in annotations:
                return True
            if not hasattr(thing, part):
                return False
            thing = getattr(thing, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_and_files_of_a_page_exist(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    assert [name for name in NAME.findall(text) if not exists(name)] == []
    assert [name for name in FILE.findall(text) if not (ROOT / name).exists()] == []
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert [name for name in TEST.findall(text) if name not in tests] == []
    links = [link for link in LINK.findall(text) if not re.match(r"\w+:", link)]
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert [name for name in SNIPPET.findall(text) if not (ROOT / name).exists()] == []


def test_the_paper_page_names_an_object_for_every_fact() -> None:
    rows = re.findall(r"^\| (?!---|fact)(.+) \|$", (ROOT / "docs/paper.md").read_text(), re.M)
    assert len(rows) > 40
    assert [row for row in rows if not NAME.search(row) and "not done" not in row] == []


def is_test(file: str, name: str) -> bool:
    """Whether a file of tests defines a test."""
    path = ROOT / file
    return path.is_file() and bool(re.search(rf"^def {name}\(", path.read_text(), re.M))


def test_the_robustness_page_names_a_test_for_every_row() -> None:
    text = (ROOT / "docs/robustness.md").read_text()
    rows = re.findall(r"^\| (?!---|before)(.+) \|$", text, re.M)
    assert len(rows) > 50
    assert [row for row in rows if not TEST_ID.search(row.split(" | ")[2])] == []
    assert [names for names in TEST_ID.findall(text) if not is_test(*names)] == []
    assert text.count("::") == len(TEST_ID.findall(text))  # all were looked up


def test_a_wrong_name_is_noticed() -> None:
    assert exists("jukejax.models.attention.attend")
    assert exists("jukejax.config.VQVAEConfig.codebook_decay")
    assert not exists("jukejax.models.attention.atend")
    assert not exists("jukejax.modles")
    assert is_test("tests/docs/test_names.py", "test_a_wrong_name_is_noticed")
    assert not is_test("tests/docs/test_names.py", "test_a_wrong_nam")
