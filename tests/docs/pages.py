"""The pages of the documentation, and the shell lines in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")],
    key=lambda page: str(page),
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    (jukejax .*)$", re.MULTILINE)
INLINE = re.compile(r"`(jukejax [a-z][^`]*)`")
COMMAND = re.compile(r"^(?:jukejax|python -m experiments(?:\.|(?= )))\s*(\w.*)$")


def shell_lines(text: str) -> list[str]:
    """What the page asks to run, a command each, without prompts, comments and continuations."""
    lines = INDENTED.findall(text) + INLINE.findall(FENCE.sub("", text))
    for language, block in FENCE.findall(text):
        if language in ("", "bash", "sh"):
            lines += block.replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+#.*$|^\$ ", "", line).strip() for line in lines]


def commands(text: str) -> list[list[str]]:
    """The words of each `jukejax NAME ...` (or `python -m experiments.NAME ...`) of a page."""
    matches = (COMMAND.match(line) for line in shell_lines(text))
    return [shlex.split(match[1]) for match in matches if match]


def prose_options(text: str) -> set[str]:
    """The long options that a page names outside of command lines, such as `--mesh.fsdp 8`."""
    spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    return {
        option.replace("_", "-")
        for span in spans
        if not COMMAND.match(span)
        for option in re.findall(r"(?<![\w-])--[a-z][\w.-]*", span)
    }
