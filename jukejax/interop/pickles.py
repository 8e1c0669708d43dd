"""Reads and writes the pickles inside PyTorch files, without executing any.

A pickle is a program for a small stack machine. This is that machine with the two dozen
instructions that files of tensors need, and with no way to call or import anything: a name is
looked up in `_NAMES` and stands for itself, any other name is refused. `pickletools` splits the
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

# PyTorch's storage classes and numpy's dtypes
STORAGES = {
    "FloatStorage": "<f4", "HalfStorage": "<f2", "DoubleStorage": "<f8", "LongStorage": "<i8",
    "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "|i1", "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}  # fmt: skip
_REBUILD = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_ORDERED = "collections OrderedDict"
_NAMES = {_REBUILD, _PARAMETER, _ORDERED, *(f"torch {name}" for name in STORAGES)}
_MOST_INSTRUCTIONS = 2_000_000  # the published files have under 100,000
_LARGEST = 2**48  # of a count


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the file, by its key."""

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True)
class TensorRecord:
    """A view of a storage; shape, strides and offset are in elements and stay inside it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    text: str


class _Machine:
    """The stack, the memo and the instructions.

    A damaged program raises IndexError, KeyError, TypeError or ValueError; `read` turns them into
    an InteropError.
    """

    def __init__(self, where: str, storages: dict[str, Storage]) -> None:
        self.where = where
        self.storages = storages
        self.stack: list[Any] = []  # since the last mark
        self.below: list[list[Any]] = []  # the stacks before each mark
        self.memo: dict[int, Any] = {}

    def refuse(self, what: str) -> NoReturn:
        raise InteropError(
            f"{self.where}: {what}. Nothing of it was executed; a checkpoint of tensors and plain "
            "settings does not need this, so download the file again from a source you trust."
        )

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def update(self, items: list[Any]) -> None:
        pairs = list(zip(items[::2], items[1::2], strict=True))
        for key, _ in pairs:
            if not isinstance(key, (str, int)):
                self.refuse(f"a dictionary has a {type(key).__name__} as a key")
        dict.update(self.stack[-1], pairs)

    def store(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def name(self, text: str) -> None:
        if text not in _NAMES:
            self.refuse(f"it asks for {text.replace(' ', '.')!r}, which is no tensor")
        self.push(_Name(text))

    def stack_name(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            self.refuse("it asks for an object without a name")
        self.name(f"{module} {name}")

    def build(self) -> None:
        """State of an object: an OrderedDict's attributes, which are not needed."""
        self.stack.pop()
        dict.keys(self.stack[-1])  # a TypeError for anything but a dictionary

    def persistent(self) -> None:
        """A reference to a storage."""
        try:
            kind, name, key, _, numel, *view = self.stack.pop()
            storage = Storage(key, STORAGES[name.text.removeprefix("torch ")], numel)
            counts = type(key) is str and type(numel) is int and numel in range(_LARGEST)
            valid = counts and kind == "storage" and view in ([], [None])
        except (TypeError, ValueError, AttributeError, KeyError):
            valid = False
        if not valid:
            self.refuse("it refers to a storage in a way that PyTorch does not")
        if self.storages.setdefault(key, storage) != storage:
            self.refuse(f"it gives storage {key!r} two sizes or types")
        self.push(storage)

    def reduce(self) -> None:
        """A call: of the three functions that are known, whose work is done here."""
        arguments, function = self.stack.pop(), self.stack.pop()
        text = function.text if isinstance(function, _Name) else ""
        if text == _ORDERED and arguments == ():
            self.push({})
        elif text == _PARAMETER and arguments and isinstance(arguments[0], TensorRecord):
            self.push(arguments[0])
        elif text == _REBUILD and type(arguments) is tuple and 4 <= len(arguments) <= 7:
            self.push(self.tensor(*arguments[:4]))
        else:
            self.refuse(f"it calls {text or 'an object'} in a way that makes no tensor")

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> TensorRecord:
        tuples = type(shape) is type(strides) is tuple and len(shape) == len(strides) <= 8
        numbers = (offset, *shape, *strides) if tuples else (None,)
        counts = all(type(n) is int and 0 <= n < _LARGEST for n in numbers)
        if not isinstance(storage, Storage) or not counts:
            self.refuse("a tensor has a shape, strides or an offset that are no counts")
        size = math.prod(shape)
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if size and (size > storage.numel or last >= storage.numel):
            self.refuse(
                f"a tensor claims shape {shape} with strides {strides} from {offset}, which "
                f"reaches outside its storage of {storage.numel} numbers"
            )
        return TensorRecord(storage, offset, shape, strides)


_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip
_IGNORED = {"PROTO", "FRAME"}


def _tuple(n: int) -> Callable[[_Machine, Any], None]:
    return lambda m, _: m.push(tuple([m.stack.pop() for _ in range(n)][::-1]))


_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda m, _: m.mark(),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "TUPLE": lambda m, _: m.push(tuple(m.to_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "APPEND": lambda m, _: list.extend(m.stack[-2], [m.stack.pop()]),
    "APPENDS": lambda m, _: list.extend(m.below[-1][-1], m.to_mark()),
    "SETITEM": lambda m, _: m.update([m.stack.pop(), m.stack.pop()][::-1]),
    "SETITEMS": lambda m, _: m.update(m.to_mark()),
    "BINPUT": lambda m, i: m.store(i),
    "LONG_BINPUT": lambda m, i: m.store(i),
    "MEMOIZE": lambda m, _: m.store(None),
    "BINGET": lambda m, i: m.push(m.memo[i]),
    "LONG_BINGET": lambda m, i: m.push(m.memo[i]),
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
                return machine.stack.pop()
            if count > _MOST_INSTRUCTIONS:
                machine.refuse("its pickle is longer than any checkpoint's")
            if code.name in _VALUES:
                machine.push(argument)
            elif code.name in _INSTRUCTIONS:
                _INSTRUCTIONS[code.name](machine, argument)
            elif code.name not in _IGNORED:
                machine.refuse(f"its pickle has the instruction {code.name}")
    except InteropError:
        raise
    except (LookupError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise InteropError(
            f"{where} cannot be read as a PyTorch file ({error!r:.200}); it is cut short, damaged "
            "or something else. Download it again and compare its SHA-256."
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
    raise TypeError(f"{value!r} cannot be stored in a checkpoint")
