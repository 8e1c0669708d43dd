"""Counts what one device does in one run of a compiled program.

Counts are multiplied by loop trips: XLA's own analysis counts the body of a loop once. Standard
library only.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field

from jukejax.planning.hlo import Computation, Instruction, parse
from jukejax.planning.hlo_groups import groups

_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_BRANCHES = re.compile(r"(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=([^,]*))")

VERSION = 2  # of the counts: raise it where the counts of a program change

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BETWEEN_SLICES = "between slices"  # over the network of the data centre
CUBLAS = 'custom_call_target="__cublas'  # matrix products of GPU programs
# moves no data, or is part of another instruction that is counted
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota",
    "partition-id", "replica-id", "after-all", "async-done", "copy-done", "async-update",
    "while", "call", "conditional", "opt-barrier", "domain", "add-dependency", "recv",
    "send-done", "recv-done", "all-gather-done", "all-reduce-done",
    "collective-permute-done",
}  # fmt: skip
_MARKERS = ("AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound", "AsyncCollective")


# --- one instruction ------------------------------------------------------------------------------


def convolution_flops(operation: Instruction, scope: Computation) -> int:
    """2 x multiplications of a convolution (TPU programs write matrix products as convolutions)."""
    out = operation.shape[0]
    left, right = (scope[name].shape[0] for name in operation.operands[:2])
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", operation.text)
    assert labels, operation.text
    lhs, rhs, result = labels[1], labels[2], labels[3]
    window = re.search(r"window=\{([^}]*)\}", operation.text)
    sizes = dict(part.split("=") for part in window[1].split()) if window else {}

    def number(name: str, axis: int, default: int) -> int:
        """Of pads, which are low_high, the low one."""
        return int(sizes[name].split("x")[axis].split("_")[0]) if name in sizes else default

    pairs = 1
    for i in range(sum(c.isdigit() for c in lhs)):
        n, k, o = (
            shape.dims[label.index(str(i))]
            for shape, label in ((left, lhs), (right, rhs), (out, result))
        )
        stride, low = number("stride", i, 1), number("pad", i, 0)
        holes, dilation = number("lhs_dilate", i, 1), number("rhs_dilate", i, 1)
        pairs *= sum(_hits(o, stride, tap * dilation - low, holes, n) for tap in range(k))
    batch = out.dims[result.index("b")]
    features = out.dims[result.index("f")]
    return 2 * batch * features * right.dims[rhs.index("i")] * pairs


def _hits(outputs: int, stride: int, offset: int, dilation: int, n: int) -> int:
    """Number of o in [0, outputs) with o stride + offset in 0, dilation, ... (n - 1) dilation."""
    first = max(0, -(offset // stride))  # the least o with o stride + offset >= 0
    last = min(outputs - 1, ((n - 1) * dilation - offset) // stride)
    period = dilation // math.gcd(stride, dilation)
    for o in range(first, min(first + period, last + 1)):
        if (o * stride + offset) % dilation == 0:
            return (last - o) // period + 1
    return 0


def dot_flops(operation: Instruction, scope: Computation) -> int:
    """2 x multiplications of a dot."""
    left = scope[operation.operands[0]].shape[0]
    dims = r'lhs_contracting_dim(?:s=\{([\d,]*)\}|ensions":\[([\d,"]*)\])'  # a dot's, cuBLAS's
    contracted = re.search(dims, operation.text)
    axes = [int(a) for a in re.findall(r"\d+", contracted[0])] if contracted else []
    return 2 * operation.shape[0].elements * math.prod(left.dims[a] for a in axes)


def _parameters(scope: Computation) -> dict[int, str]:
    """Names of a computation's parameters by number."""
    return {int(i.text.split(")")[0]): i.name for i in scope.values() if i.opcode == "parameter"}


def _read(scope: Computation, name: str, size: int, computations: dict[str, Computation]) -> int:
    """Bytes of array `name` (`size` bytes) that a fusion reads: where sliced, of the slice only."""
    touched = 0
    for reader in scope.values():
        for place, operand in enumerate(reader.operands):
            if operand != name:
                continue
            # an alias of its operand in another tile order is a bitcast too
            if reader.opcode == "bitcast" or "output_to_operand_aliasing={{}:" in reader.text:
                touched += _read(scope, reader.name, size, computations)
            elif reader.opcode == "fusion":
                inner = computations[reader.called or ""]
                touched += _read(inner, _parameters(inner)[place], size, computations)
            elif reader.opcode in ("dynamic-slice", "slice", "gather") and place == 0:
                touched += reader.shape[0].bytes
            elif reader.opcode != "dynamic-update-slice" or place:  # written in place
                touched += size
    return min(size, touched)


def _written(scope: Computation, name: str, size: int, computations: dict[str, Computation]) -> int:
    """Bytes of a fusion's output `name` (`size` bytes) that are written: of an update its own."""
    end = scope[name]
    if end.opcode == "bitcast":
        return _written(scope, end.operands[0], size, computations)
    if end.opcode == "fusion" and len(end.shape) == 1:
        inner = computations[end.called or ""]
        (root,) = (i.name for i in inner.values() if i.root)
        return _written(inner, root, size, computations)
    if end.opcode == "dynamic-update-slice":
        return scope[end.operands[1]].shape[0].bytes
    return size


def hbm_bytes(
    operation: Instruction, scope: Computation, computations: dict[str, Computation]
) -> int:
    """Bytes that an instruction reads from and writes to HBM; of slices only what they touch."""
    kind = operation.opcode.removesuffix("-start")
    made = operation.shape[:1] if CUBLAS in operation.text else operation.shape  # no workspace
    out = sum(a.bytes for a in made if a.in_hbm)
    reads = [sum(a.bytes for a in scope[n].shape if a.in_hbm) for n in operation.operands]
    if kind == "copy" and operation.opcode != kind:  # (to, from, context)
        return sum(a.bytes for a in operation.shape[:2] if a.in_hbm)
    if kind in ("slice", "dynamic-slice", "gather"):
        piece = sum(a.bytes for a in operation.shape)
        return out + (min(reads[0], piece) if reads else 0)
    if kind in ("dynamic-update-slice", "scatter"):
        written = reads[1 if kind[0] == "d" else 2]
        return 2 * written if out else written
    inner = computations.get(operation.called or "") if kind == "fusion" else None
    if not inner:
        return out + sum(reads)
    (root,) = (i for i in inner.values() if i.root)
    ends = root.operands if root.opcode == "tuple" else (root.name,)
    written = sum(
        _written(inner, name, array.bytes, computations)
        for array, name in zip(operation.shape, ends, strict=False)
        if array.in_hbm
    )
    names = _parameters(inner)
    return written + sum(_read(inner, names[i], n, computations) for i, n in enumerate(reads) if n)


def collective_kind(operation: Instruction) -> str | None:
    """The collective that an instruction starts, if any."""
    kind = operation.opcode.removesuffix("-start")
    if kind == "send":
        return BETWEEN_SLICES
    if operation.opcode == "fusion" and "all-reduce-scatter" in (operation.called or ""):
        return "reduce-scatter"
    return kind if kind in COLLECTIVES else None


# --- the whole program ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Collective:
    """One collective of the program."""

    kind: str
    source: str  # the operation of the model that it comes from
    times: int  # runs
    bytes: int  # that a device sends in all runs, by the best algorithm
    network: int = 0  # of the bytes, those that leave the slice or the host


@dataclass
class Counts:
    """What one device does in one run of a program, or in one trip of a loop."""

    flops: int = 0  # of matrix products and convolutions
    hbm_bytes: int = 0
    cycles: int = 0  # the compiler's estimate, without collectives
    uncosted: list[tuple[str, int, int]] = field(default_factory=list)  # no estimate: FLOPs, bytes
    collectives: dict[tuple[str, str], Collective] = field(default_factory=dict)
    operations: Counter[str] = field(default_factory=Counter)  # cycles by kind of operation

    def add(self, operation: Instruction, times: int, flops: int, moved: int) -> None:
        self.flops += times * flops
        self.hbm_bytes += times * moved
        if operation.cycles:
            self.cycles += times * operation.cycles
            self.operations[_row(operation, flops)] += times * operation.cycles
        elif not operation.opcode.endswith("-start"):  # copies that overlap with work
            self.uncosted.append((_row(operation, flops), times * flops, times * moved))


def _row(operation: Instruction, flops: int) -> str:
    """The row of the per-operation table that an instruction falls in."""
    if flops:
        return "matrix products"
    if operation.opcode == "copy" or "copy" in operation.name or "transpose" in operation.name:
        return "relayout"
    return source(operation).rsplit("/", 1)[-1] or operation.opcode


def source(operation: Instruction) -> str:
    """The path of the model's operation that an instruction comes from."""
    match = re.search(r'op_name="([^"]*)"', operation.text)
    return match[1] if match else ""


def trips(loop: Instruction, computations: dict[str, Computation]) -> int | None:
    """Trips of a loop: noted in the text, or the constant that its counter is compared with."""
    if match := _TRIPS.search(loop.text):
        return int(match[1])
    condition = computations.get(loop.attribute("condition").lstrip("%"), {})
    scopes = [condition]
    scopes += [computations.get(i.called or "", {}) for i in condition.values()]
    compares = [i for s in scopes for i in s.values() if "direction=LT" in i.text]
    limits = {
        i.text.split(")")[0]
        for s in scopes
        for i in s.values()
        if i.opcode == "constant" and i.shape and i.shape[0].dtype == "s32"
    }
    return int(limits.pop()) if len(compares) == 1 and len(limits) == 1 else None


def sent(kind: str, operation: Instruction, scope: Computation, n: int) -> int:
    """Bytes that each of n devices must send for one collective."""
    sizes = [sum(a.size for a in scope[name].shape) for name in operation.operands]
    read = sum(sizes)
    if kind == BETWEEN_SLICES:
        return sizes[0]  # the other operand is a token
    if kind == "all-gather":
        return read * (n - 1)
    if kind == "all-reduce":
        return 2 * read * (n - 1) // n
    if kind in ("reduce-scatter", "all-to-all"):
        return read * (n - 1) // n
    return read


def between_hosts(kind: str, size: int, text: str, devices: int, host: int) -> int:
    """Of `size` bytes that a device sends for a collective, those that must leave its host.

    Devices `host * i` to `host * (i + 1) - 1` are those of host i. What another host needs is sent
    once, split over the group's devices of this host, and distributed there.
    """
    far = 0
    for group in groups(text, devices):
        hosts = len({device // host for device in group})
        if kind == "collective-permute":
            far = max(far, size * (hosts - 1))
        elif kind == "all-to-all":  # nothing of it is the same for two devices
            far = max(far, size * (len(group) - len(group) // hosts) // max(len(group) - 1, 1))
        elif hosts > 1:
            far = max(far, size * (hosts - 1) // (len(group) - 1))
    return far


class _Walk:
    """One pass over a scheduled module."""

    def __init__(self, text: str, devices: int, host: int | None) -> None:
        self.computations, self.entry = parse(text)
        self.devices, self.host = devices, host
        self.total = Counts()
        self.trip: Counts | None = None  # of a loop of unknown length

    def scheduled(self, name: str, times: int, counts: Counts) -> None:
        scope = self.computations[name]
        for operation in scope.values():
            kind = collective_kind(operation)
            if operation.opcode == "while":
                self.loop(operation, times, counts)
            elif operation.opcode in ("call", "async-start") and operation.called:
                self.scheduled(operation.called, times, counts)
            elif operation.opcode == "conditional":
                for several, single in _BRANCHES.findall(operation.text):
                    for branch in (several or single).split(","):
                        self.scheduled(branch.strip().lstrip("%"), times, counts)
            elif kind:
                self.collective(kind, operation, scope, times, counts)
            elif operation.opcode not in _FREE and not any(m in operation.text for m in _MARKERS):
                flops = self.flops(operation, scope, times, counts)
                counts.add(operation, times, flops, hbm_bytes(operation, scope, self.computations))

    def loop(self, operation: Instruction, times: int, counts: Counts) -> None:
        body = operation.attribute("body").lstrip("%")
        rounds = trips(operation, self.computations)
        if rounds is not None:
            self.scheduled(body, times * rounds, counts)
        elif self.trip is None:
            self.trip = Counts()
            self.scheduled(body, 1, self.trip)
        else:
            raise ValueError("several loops of unknown length: their counts would be mixed.")

    def flops(self, operation: Instruction, scope: Computation, times: int, counts: Counts) -> int:
        """FLOPs of an instruction with what it calls; notes the collectives in a fusion."""
        if operation.opcode == "convolution":
            return convolution_flops(operation, scope)
        if operation.opcode == "dot" or CUBLAS in operation.text:
            return dot_flops(operation, scope)
        if operation.opcode != "fusion":
            return 0
        inner, total = self.computations.get(operation.called or "", {}), 0
        for part in inner.values():
            kind = collective_kind(part)
            if kind:
                self.collective(kind, part, inner, times, counts)
            else:
                total += self.flops(part, inner, times, counts)
        return total

    def collective(
        self, kind: str, operation: Instruction, scope: Computation, times: int, counts: Counts
    ) -> None:
        inside = self.computations.get(operation.called or "", {}).values()
        text = " ".join([operation.text, *(i.text for i in inside)])
        # an asynchronous collective is cloned into every fusion that overlaps with it; XLA numbers
        # its own from 2, and JAX gives number 1 to all that are explicit in a shard_map
        channel = re.search(r"channel_id=(\d+)", text)
        shared = kind not in ("collective-permute", BETWEEN_SLICES)
        number = channel[1] if channel and shared and channel[1] != "1" else operation.name
        key = (kind, number)
        size = times * sent(kind, operation, scope, len(groups(text, self.devices)[0]))
        if key not in counts.collectives or size > counts.collectives[key].bytes:
            far = size if kind == BETWEEN_SLICES else 0
            if self.host is not None:
                far = between_hosts(kind, size, text, self.devices, self.host)
            counts.collectives[key] = Collective(kind, source(operation), times, size, far)


def count(text: str, devices: int, host: int | None = None) -> tuple[Counts, Counts | None]:
    """Counts of a compiled and scheduled module that runs on `devices` devices.

    Args:
      host: GPUs of one host; between hosts is a network.

    Returns:
      Counts of all but loops of unknown length, and of one trip of such a loop if there is one.

    Raises:
      ValueError: the text is no HLO module, or has several such loops.
    """
    walk = _Walk(text, devices, host)
    walk.scheduled(walk.entry, 1, walk.total)
    return walk.total, walk.trip
