"""The text of a program (XLA's HLO) as computations of instructions. Standard library only."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_BITS = {
    "pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32,
    "s64": 64, "u64": 64, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128,
    "f8e4m3fn": 8, "f8e5m2": 8,
}  # fmt: skip
_ARRAY = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](?:\{([^}]*)\})?")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"(?:^|[ )}])([a-z][a-z0-9\-]*)\(")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*)?\{\s*$")
_NAME = re.compile(r"%?([A-Za-z_][\w.\-]*)\s*(?=[,)]|$)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
_UNKNOWN_CYCLES = 2**63 - 1


@dataclass(frozen=True)
class Array:
    """One array of a shape."""

    dtype: str
    dims: tuple[int, ...]
    layout: str  # minor-to-major order, then tiles and memory space: "1,0:T(8,128)S(1)"

    @property
    def elements(self) -> int:
        return math.prod(self.dims)

    @property
    def size(self) -> int:
        """Bytes of the elements alone."""
        return self.elements * _BITS.get(self.dtype, 0) // 8

    @property
    def bytes(self) -> int:
        """Bytes with what the first tile of the layout pads."""
        dims = list(self.dims)
        order, _, rest = self.layout.partition(":")
        tile = re.match(r"T\(([\d,]+)\)", rest)
        if tile and dims:
            minor = [int(i) for i in order.split(",") if i]
            sides = [int(i) for i in tile[1].split(",")][::-1]
            for axis, side in zip(minor, sides, strict=False):
                dims[axis] = -(-dims[axis] // side) * side
        return math.prod(dims) * _BITS.get(self.dtype, 0) // 8

    @property
    def in_hbm(self) -> bool:
        return "S(" not in self.layout


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    shape: tuple[Array, ...]
    operands: tuple[str, ...]
    text: str  # from the operands on
    root: bool

    @property
    def called(self) -> str | None:
        match = _CALLED.search(self.text)
        return match[1] if match else None

    @property
    def cycles(self) -> int:
        """The compiler's estimate; 0 where it has none."""
        match = _CYCLES.search(self.text)
        cycles = int(match[1]) if match else 0
        return 0 if cycles == _UNKNOWN_CYCLES else cycles

    def attribute(self, name: str) -> str:
        match = re.search(rf"\b{name}=([^\s]+?)(?:,\s|$)", self.text)
        return match[1] if match else ""


Computation = dict[str, Instruction]


def _arrays(text: str) -> tuple[Array, ...]:
    return tuple(
        Array(dtype, tuple(int(d) for d in dims.split(",") if d), layout or "")
        for dtype, dims, layout in _ARRAY.findall(text)
        if dtype in _BITS
    )


def _instruction(line: str) -> Instruction | None:
    match = _LINE.match(line)
    if not match:
        return None
    rest = match[3]
    opcode = _OPCODE.search(rest)
    if not opcode:
        return None
    depth, end = 1, opcode.end()
    while depth and end < len(rest):
        depth += {"(": 1, ")": -1}.get(rest[end], 0)
        end += 1
    operands = tuple(_NAME.findall(rest[opcode.end() : end]))
    return Instruction(
        name=match[2],
        opcode=opcode[1],
        shape=_arrays(rest[: opcode.start()] + "}"),
        operands=operands,
        text=rest[opcode.end() :],
        root=bool(match[1]),
    )


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """All computations of a module by name, and the name of the entry."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if not line.startswith(" "):
            header = _HEADER.match(line)
            if header:
                current = computations.setdefault(header[2], {})
                entry = header[2] if header[1] else entry
            continue
        if current is not None and (instruction := _instruction(line)):
            current[instruction.name] = instruction
    if not entry:
        raise ValueError("no ENTRY computation: the text is no HLO module.")
    return computations, entry
