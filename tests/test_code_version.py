"""Which code ran: the commit of a checkout, and nothing where the code is not of one."""

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from jukejax import code_version


def git(folder, *words):
    names = ["-c", "user.name=a", "-c", "user.email=a@b"]
    run = subprocess.run(
        ["git", "-C", str(folder), *names, *words], check=True, capture_output=True, text=True
    )
    return run.stdout.strip()


def commit_of(file):
    """`commit()` of a copy of the module."""
    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['commit']())"
    run = [sys.executable, "-c", code, str(file)]
    return subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_of_a_checkout_and_whether_files_differ(tmp_path):
    file = tmp_path / "code_version.py"
    shutil.copy(code_version.__file__, file)
    assert commit_of(file) == ""  # no repository
    git(tmp_path, "init")
    (tmp_path / "theirs.txt").touch()
    git(tmp_path, "add", "theirs.txt")
    git(tmp_path, "commit", "-m", "none")
    assert commit_of(file) == ""  # a repository that does not have the file, as of a user's project
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(file) == head
    (tmp_path / "untracked.txt").touch()
    assert commit_of(file) == head
    with Path(file).open("a") as more:
        more.write("\n")
    assert commit_of(file) == head + "+"


def test_versions_are_those_installed():
    found = code_version.versions()
    assert found["jax"] == metadata.version("jax") and found["python"] == sys.version.split()[0]
    assert all(found.values())
