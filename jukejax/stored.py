"""Readers of small files that a person can edit or a disk can damage: each refusal is a sentence.

The sentence names the file, the field and the remedy.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jukejax.errors import DataError

Types = type | tuple[type, ...]
NUMBER = (int, float)
JOB_FIELDS: dict[str, Types] = {"items": list, "levels": list, "sample_rate": int}
_DETAILS: dict[str, Types] = {
    "title": str, "model": str, "created": str, "seed": int, "seconds": NUMBER,
    "origin": dict,
}  # fmt: skip
_ITEM: dict[str, Types] = {"artist": str, "genres": list, "lyrics": str}
_LEVEL: dict[str, Types] = {
    "name": str, "renderer": str, "hop": int, "tokens": int, "steps": int,
    "seconds_to_sample": NUMBER,
}  # fmt: skip
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
        value = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"{path} is damaged: it is not JSON ({error}); {remedy}") from error
    check_fields(value, fields, str(path), remedy)
    return dict(value)


def parse(text: str | bytes) -> Any:
    """The value of a JSON text whose numbers are finite and fit into 64 bits.

    Raises:
      ValueError, RecursionError: it is not such a text.
    """
    return json.loads(text, parse_float=_finite, parse_int=_whole, parse_constant=_finite)


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"it has the number {text:.20}")
    return number


def _whole(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= (number := int(text)) < 2**63:
        raise ValueError(f"it has the number {text:.25}")
    return number


def check_fields(
    value: Any,
    fields: Mapping[str, Types],
    where: str,
    remedy: str,
    optional: Mapping[str, Types] | None = None,
) -> None:
    """Raises DataError unless `value`, read from `where`, is an object with the given fields.

    `optional` fields may also be missing or null.
    """
    if not isinstance(value, dict):
        raise DataError(f"{where} is damaged: it is not a JSON object; {remedy}")
    given = {name: t for name, t in (optional or {}).items() if value.get(name) is not None}
    for name, types in {**fields, **given}.items():
        if name not in value:
            raise DataError(f"{where} is damaged: it has no field {name!r}; {remedy}")
        kinds = types if isinstance(types, tuple) else (types,)
        if not isinstance(value[name], kinds) or isinstance(value[name], bool):
            words = [_WORDS.get(kind, kind.__name__) for kind in kinds]
            expected = "a number" if kinds == NUMBER else " or ".join(words)
            raise DataError(
                f"{where} is damaged: its field {name!r} is {value[name]!r:.60}, not {expected}; "
                f"{remedy}"
            )


def check_job_record(record: dict[str, Any], path: Path, remedy: str) -> None:
    """Checks what a job.json says beside its request; a job written by hand has no more than that.

    Raises:
      DataError: a field has another type.
    """
    present = {name: types for name, types in JOB_FIELDS.items() if name in record}
    check_fields(record, present, str(path), remedy, _DETAILS)
    for number, entry in enumerate(record.get("items", [])):
        check_fields(entry, {}, f"{path}: items[{number}]", remedy, _ITEM)
    for number, entry in enumerate(record.get("levels", [])):
        where = f"{path}: levels[{number}]"
        check_fields(entry, {"level": int}, where, remedy, _LEVEL)
    origin = record.get("origin") or {}
    if source := {"continues", "upsamples"} & set(origin):
        fields: dict[str, Types] = {"items": list, "at": NUMBER, **dict.fromkeys(source, str)}
        check_fields(origin, fields, f"{path}: origin", remedy)
    if not record.get("sample_rate", 1) >= 1 or origin.get("items", [0]) == []:
        raise DataError(f"{path} is damaged: its sample rate or origin is empty; {remedy}")


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
