"""Configs as JSON, for checkpoints and job files. Standard library only."""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import types
import typing
from typing import Any, TypeVar

from jukejax.errors import ConfigError

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON types, with its class name under "type"."""
    return {"type": type(config).__name__, **_plain(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value


def from_dict(cls: type[T], data: dict[str, Any], where: str = "config") -> T:
    """The config that `to_dict` wrote.

    A missing field has its default, or "if_missing" of its metadata: its value in files that are
    older than the field.

    Raises:
      ConfigError: on a wrong "type", an unknown field (names the nearest) or a wrong type.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{where} is {data!r:.80}, expected a {cls.__name__} as an object.")
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    old = {f.name: f.metadata["if_missing"] for f in fields if "if_missing" in f.metadata}
    data = old | data
    name = data.pop("type", cls.__name__)
    if name != cls.__name__:
        raise ConfigError(f"{where} is a {name!s:.80}, expected a {cls.__name__}.")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in fields]
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}."
            raise ConfigError(f"{where} has no field {key!r:.80}; {hint}")
    needed = {
        f.name
        for f in fields
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    if missing := sorted(needed - set(data)):
        raise ConfigError(f"{where} has no field {missing[0]!r}, which every {name} has.")
    typed = {k: _typed(hints[k], v, f"{where}.{k}") for k, v in data.items()}
    try:
        return cls(**typed)
    except (ConfigError, ArithmeticError) as error:  # of values that are not possible together
        raise ConfigError(f"{where}: {error}") from error


def _typed(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _typed(next(a for a in args if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} is {value!r:.80}, expected a list.")
        return tuple(_typed(args[0], v, where) for v in value)
    if hint is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        kind = "finite float" if hint is float else hint.__name__
        raise ConfigError(f"{where} is {value!r:.80}, expected {kind}.")
    return value
