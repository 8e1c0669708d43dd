"""Topologies of chips that this machine does not have: TPUs by libtpu, GPUs by XLA's CUDA plugin.

libtpu knows every TPU. The CUDA plugin compiles for the GPU that a description in XLA's own format
(`h100.txtpb`) gives.
"""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jax.experimental import topologies

from jukejax import costs
from jukejax.config import ConfigError

LIBTPU, CUDA = "libtpu", "jax-cuda12-plugin"
_GPUS = {"h100": "H100"}  # kinds with a description beside this file


@dataclass(frozen=True)
class Topology:
    """Chips that a program is compiled for."""

    name: str
    slices: int
    chip: costs.Chip
    devices: list[Any]
    compiler: str = LIBTPU  # the distribution that compiles
    host: int | None = None  # GPUs of a host, joined by a fast interconnect; None: TPUs


def topology(name: str, slices: int = 1) -> Topology:
    """The chips of a topology such as "v5e:16x16", once or as several slices, or "h100:8x8".

    Raises:
      ConfigError: the compiler is missing, or there is no such topology or chip.
    """
    kind = name.split(":")[0]
    if kind in _GPUS:
        return _gpus(name, slices)
    if kind not in costs.CHIPS:
        raise ConfigError(
            f"--topology {name!r}: the chip must be one of {', '.join((*costs.CHIPS, *_GPUS))}, "
            "followed by the shape of the slice, as in v5e:16x16 or v5p:4x4x8, or by hosts and "
            "GPUs of a host, as in h100:8x8."
        )
    _require(LIBTPU, "Compiling for TPUs needs libtpu (no TPU): pip install 'jukejax[aot]'.")
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # one device a chip, as on the others
    try:
        devices = topologies.get_topology_desc(name, "tpu", **options).devices
    except Exception as error:  # libtpu raises several kinds
        raise ConfigError(
            f"--topology {name!r} with {slices} slices: libtpu refuses it "
            f"({str(error).splitlines()[0][:200]}). Shapes are NxN for v5e and v6e, NxNxN for v4 "
            "and v5p."
        ) from error
    return Topology(name, slices, costs.CHIPS[kind], list(devices))


def _gpus(name: str, slices: int) -> Topology:
    """GPUs by hosts and GPUs of a host; "h100:8" is one host of eight."""
    match = re.fullmatch(r"(\w+):(?:([1-9]\d*)x)?([1-9]\d*)", name)
    if not match or slices > 1:
        raise ConfigError(
            f"--topology {name!r} with {slices} slices: GPUs are named by hosts and GPUs of a "
            "host, as in h100:8 or h100:8x8, and have no --slices."
        )
    _require(CUDA, "Compiling for GPUs needs XLA's CUDA plugin (no GPU): pip install "
             "'jukejax[aot-gpu]'.")  # fmt: skip
    kind, hosts, gpus = match[1], int(match[2] or 1), int(match[3])
    described = resources.files(__package__).joinpath(f"{kind}.txtpb").read_text()
    devices = topologies.get_topology_desc(
        kind, "cuda", target_config=described, topology=f"1x{hosts}x{gpus}"
    ).devices
    return Topology(name, 1, costs.GPUS[_GPUS[kind]], list(devices), CUDA, gpus)


def _require(distribution: str, sentence: str) -> None:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(sentence) from error
