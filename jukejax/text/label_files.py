"""The files of `name;id` lines that belong to the published checkpoints."""

import re
from pathlib import Path

from jukejax.errors import DataError


def read_ids(path: Path, count: int) -> list[tuple[str, int]]:
    """The names and ids of a file's lines."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error})") from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        found = re.fullmatch(r"(.*);\s*(\d+)\s*", line)
        if found and int(found[2]) < count:
            pairs.append((found[1], int(found[2])))
        elif line.strip():
            raise DataError(
                f"{path}, line {number}: {line!r} is no name;id with an id below {count}, the "
                "size of the model's table; see whether the file is this model's"
            )
    return pairs
