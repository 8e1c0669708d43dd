"""Readers of small files that a person can edit or a disk can damage: each refusal is a sentence.

The sentence names the file, the field and the remedy.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jukejax.errors import DataError

Types = type | tuple[type, ...]
_WORDS = {dict: "an object", list: "a list", str: "text", int: "a whole number"}


def read_object(path: Path, fields: Mapping[str, Types], remedy: str) -> dict[str, Any]:
    """The object in a UTF-8 JSON file, which has at least the given fields, of the given types.

    Args:
      path: the file.
      fields: the types that each required field may have.
      remedy: what to do about a damaged file; ends the sentence of the error.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: it cannot be read, or a field is missing or of another type.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"{path} is damaged: it is not JSON ({error}); {remedy}") from error
    check_fields(value, fields, str(path), remedy)
    return dict(value)


def check_fields(value: Any, fields: Mapping[str, Types], where: str, remedy: str) -> None:
    """Raises DataError unless `value`, read from `where`, is an object with the given fields."""
    if not isinstance(value, dict):
        raise DataError(f"{where} is damaged: it is not a JSON object; {remedy}")
    for name, types in fields.items():
        if name not in value:
            raise DataError(f"{where} is damaged: it has no field {name!r}; {remedy}")
        kinds = types if isinstance(types, tuple) else (types,)
        if not isinstance(value[name], kinds) or isinstance(value[name], bool):
            expected = " or ".join(_WORDS.get(kind, kind.__name__) for kind in kinds)
            raise DataError(
                f"{where} is damaged: its field {name!r} is {value[name]!r:.60}, not {expected}; "
                f"{remedy}"
            )


def read_arrays(path: Path, required: tuple[str, ...], remedy: str) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file by name, after comparing all of the file with its checksums.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: it is damaged or lacks a `required` array; the sentence ends with `remedy`.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # before NumPy believes a header
            if (member := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"the checksum of {member} differs")
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
        if missing := sorted(set(required) - set(arrays)):
            raise KeyError(f"it has no array {missing[0]}")
        return arrays
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile has a dozen, from struct.error to NotImplementedError
        raise DataError(f"{path} is damaged ({error}); {remedy}") from error


def check_codes(codes: NDArray[Any], size: int, where: str, remedy: str) -> None:
    """Raises DataError if codes are not from 0 to `size` - 1: an index would be clamped unsaid."""
    if codes.size and not (codes.min() >= 0 and codes.max() < size):
        raise DataError(
            f"{where} has codes from {codes.min()} to {codes.max()}, but the codebook has 0 to "
            f"{size - 1}; {remedy}"
        )
