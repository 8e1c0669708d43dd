"""Temporary files beside their targets, and the removal of those that killed runs left."""

import re
import secrets
from pathlib import Path

_KEPT = 32  # letters of the target's name


def temporary(target: Path) -> Path:
    """A new path in the folder of `target`, with its suffix: writers choose a format by it."""
    name = f".{target.stem[:_KEPT]}.{secrets.token_hex(6)}.tmp{target.suffix}"
    return target.with_name(name)


def remove_temporaries(folder: Path, target: Path | None = None) -> None:
    """Removes temporary files in a folder, of one target or of all, that killed runs left."""
    stem = re.escape(target.stem[:_KEPT]) if target else f".{{1,{_KEPT}}}"
    suffix = re.escape(target.suffix) if target else ".*"
    ours = re.compile(rf"\.{stem}\.[0-9a-f]{{12}}\.tmp{suffix}")
    for path in folder.glob(".*.tmp*"):
        if ours.fullmatch(path.name):
            path.unlink(missing_ok=True)
