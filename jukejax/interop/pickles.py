"""Reads and writes the pickles inside PyTorch files, without executing any.

A pickle is a program for a small stack machine. This is that machine with the two dozen
instructions that files of tensors need and with no way to call or import anything: a name is
looked up in `_NAMES` and stands for itself, or the file is refused. `pickletools` splits the
program into instructions and runs nothing.
"""

from __future__ import annotations

import math
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from jukejax.errors import InteropError

# PyTorch's names of storages -> numpy's names of dtypes
STORAGES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
_REBUILD, _PARAMETER, _ORDERED = (
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "collections OrderedDict",
)
_NAMES = {_REBUILD, _PARAMETER, _ORDERED, *(f"torch {name}" for name in STORAGES)}
_MOST_INSTRUCTIONS = 2_000_000  # the published files have under 100,000
_LARGEST = 2**48  # of a count
_MARK = object()


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the file, by its key."""

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True)
class TensorRecord:
    """A view of a storage; shape, strides and offset count elements and lie inside it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    text: str


class _Machine:
    """The stack, the memo and the instructions."""

    def __init__(self, where: str, storages: dict[str, Storage]) -> None:
        self.where = where
        self.storages = storages
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def refuse(self, what: str) -> NoReturn:
        raise InteropError(
            f"{self.where}: {what}. Nothing of it was executed; a checkpoint of tensors and plain "
            "settings does not need this, so fetch the file anew from a source you trust."
        )

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            self.refuse("its pickle is damaged (an empty stack)")
        return self.stack.pop()

    def to_mark(self) -> list[Any]:
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is _MARK:
                items = self.stack[i + 1 :]
                del self.stack[i:]
                return items
        self.refuse("its pickle is damaged (no mark)")

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            self.refuse(f"its pickle is damaged (no {kind.__name__} where one is filled)")
        return self.stack[-1]

    def extend(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def update(self, items: list[Any]) -> None:
        target = self.top(dict)
        if len(items) % 2:
            self.refuse("its pickle is damaged (a key without a value)")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int)):
                self.refuse(f"a dictionary has a {type(key).__name__} as a key")
            target[key] = value

    def store(self, index: int | None) -> None:
        if not self.stack or self.stack[-1] is _MARK:
            self.refuse("its pickle is damaged (nothing to remember)")
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def fetch(self, index: int) -> None:
        if index not in self.memo:
            self.refuse("its pickle is damaged (it recalls what it never stored)")
        self.stack.append(self.memo[index])

    def name(self, text: str) -> None:
        if text not in _NAMES:
            self.refuse(f"it asks for {text.replace(' ', '.')!r}, which is no tensor")
        self.stack.append(_Name(text))

    def stack_name(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            self.refuse("it asks for an object without a name")
        self.name(f"{module} {name}")

    def build(self) -> None:
        """State of an object: an OrderedDict's attributes, which are not needed."""
        self.pop()
        self.top(dict)

    def persistent(self) -> None:
        given = self.pop()
        try:
            kind, name, key, _, numel, *view = given
            storage = Storage(key, STORAGES[name.text.removeprefix("torch ")], numel)
            good = kind == "storage" and view in ([], [None])
        except (TypeError, ValueError, AttributeError, KeyError):
            good = False
        if (
            not good
            or type(key) is not str
            or type(numel) is not int
            or numel not in range(_LARGEST)
        ):
            self.refuse("it refers to a storage in a way that is not PyTorch's")
        if self.storages.setdefault(key, storage) != storage:
            self.refuse(f"it gives storage {key!r} two sizes or types")
        self.stack.append(storage)

    def reduce(self) -> None:
        """What a pickle calls: three functions that are known, done here by hand."""
        arguments, function = self.pop(), self.pop()
        text = function.text if isinstance(function, _Name) else ""
        if not isinstance(arguments, tuple):
            self.refuse("its pickle is damaged (arguments that are no tuple)")
        if text == _ORDERED and arguments == ():
            self.stack.append({})
        elif text == _PARAMETER and arguments and isinstance(arguments[0], TensorRecord):
            self.stack.append(arguments[0])
        elif text == _REBUILD and 4 <= len(arguments) <= 7:
            self.stack.append(self.tensor(*arguments[:4]))
        else:
            self.refuse(f"it calls {text or 'an object'} in a way that makes no tensor")

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> TensorRecord:
        whole = type(shape) is type(strides) is tuple and len(shape) == len(strides) <= 8
        numbers = (offset, *shape, *strides) if whole else (None,)
        counts = all(type(n) is int and 0 <= n < _LARGEST for n in numbers)
        if not isinstance(storage, Storage) or not counts:
            self.refuse("a tensor has a shape, strides or an offset that are no counts")
        size = math.prod(shape)
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if size and (size > storage.numel or last >= storage.numel):
            self.refuse(
                f"a tensor claims shape {shape} with strides {strides} from {offset} in a storage "
                f"of {storage.numel} numbers, which does not hold it"
            )
        return TensorRecord(storage, offset, shape, strides)


_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip
_NOTHING = {"PROTO", "FRAME"}


def _push(value: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda m, _: m.stack.append(value())


def _tuple(n: int) -> Callable[[_Machine, Any], None]:
    return lambda m, _: m.stack.append(tuple([m.pop() for _ in range(n)][::-1]))


_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _push(lambda: _MARK),
    "NONE": _push(lambda: None),
    "NEWTRUE": _push(lambda: True),
    "NEWFALSE": _push(lambda: False),
    "EMPTY_DICT": _push(dict),
    "EMPTY_LIST": _push(list),
    "EMPTY_TUPLE": _push(tuple),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.to_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "APPEND": lambda m, _: m.extend([m.pop()]),
    "APPENDS": lambda m, _: m.extend(m.to_mark()),
    "SETITEM": lambda m, _: m.update([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.update(m.to_mark()),
    "BINPUT": lambda m, i: m.store(i),
    "LONG_BINPUT": lambda m, i: m.store(i),
    "MEMOIZE": lambda m, _: m.store(None),
    "BINGET": lambda m, i: m.fetch(i),
    "LONG_BINGET": lambda m, i: m.fetch(i),
    "GLOBAL": lambda m, text: m.name(text),
    "STACK_GLOBAL": lambda m, _: m.stack_name(),
    "BINPERSID": lambda m, _: m.persistent(),
    "REDUCE": lambda m, _: m.reduce(),
    "BUILD": lambda m, _: m.build(),
}


def read(stream: Any, where: str, storages: dict[str, Storage] | None = None) -> Any:
    """The next pickle of a stream (`read`, `readline`, `tell`): plain values and TensorRecords.

    The stream is left right after the pickle; `storages` gets what it refers to, by key.

    Raises:
      InteropError: anything else is in it, or it is cut short.
    """
    machine = _Machine(where, {} if storages is None else storages)
    try:
        for count, (code, argument, _) in enumerate(pickletools.genops(stream)):
            if code.name == "STOP":
                return machine.pop()
            if count > _MOST_INSTRUCTIONS:
                machine.refuse("its pickle is longer than any checkpoint's")
            if code.name in _VALUES:
                machine.stack.append(argument)
            elif code.name in _INSTRUCTIONS:
                _INSTRUCTIONS[code.name](machine, argument)
            elif code.name not in _NOTHING:
                machine.refuse(f"its pickle has the instruction {code.name}")
    except InteropError:
        raise
    except (ValueError, TypeError, OverflowError, UnicodeError, MemoryError) as error:
        raise InteropError(
            f"{where} cannot be read as a PyTorch file ({error}); it is cut short or is something "
            "else. Fetch it anew and compare its SHA-256."
        ) from error
    machine.refuse("its pickle has no end")


# --- writing --------------------------------------------------------------------------------------


def write(value: Any) -> bytes:
    """A pickle (protocol 2) of plain values and TensorRecords that `torch.load` reads."""
    return b"\x80\x02" + _emit(value) + b"."


def _name(text: str) -> bytes:
    return b"c" + "\n".join(text.split()).encode() + b"\n"


def _emit(value: Any) -> bytes:
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode()
        return b"X" + struct.pack("<I", len(data)) + data
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_emit, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(_emit, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_emit(k) + _emit(v) for k, v in value.items()) + b"u"
    if isinstance(value, TensorRecord):
        storage = value.storage
        kind = next(name for name, dtype in STORAGES.items() if dtype == storage.dtype)
        reference = b"(" + _emit("storage") + _name(f"torch {kind}")
        reference += b"".join(map(_emit, (storage.key, "cpu", storage.numel))) + b"tQ"
        parts = b"".join(map(_emit, (value.offset, value.shape, value.strides, False)))
        return _name(_REBUILD) + b"(" + reference + parts + _name(_ORDERED) + b")RtR"
    raise TypeError(f"{value!r} is nothing that goes into a checkpoint")
