"""Which code this is: the installed version, and the commit of a checkout."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "numpy")


def version() -> str:
    """The installed version of jukejax, or "checkout" where it is run from its source alone."""
    return _installed("jukejax") or "checkout"


def commit() -> str:
    """The commit of this checkout, "+" where files differ from it; "" outside of a checkout."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    asked = (
        ["ls-files", "--error-unmatch", here.name],  # a package may be installed in a checkout
        ["rev-parse", "HEAD"],
        ["status", "--porcelain", "--untracked-files=no"],
    )
    try:
        _, found, changed = (
            subprocess.run([*git, *words], capture_output=True, text=True, check=True).stdout
            for words in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.strip() + "+" * bool(changed.strip())


def versions() -> Mapping[str, str]:
    """Versions of Python, jukejax and the packages that compute, where they are installed."""
    found = {name: _installed(name) for name in PACKAGES}
    named = {"python": sys.version.split()[0], "jukejax": version()}
    return named | {name: number for name, number in found.items() if number}


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
