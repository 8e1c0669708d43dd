"""Ahead-of-time compilation of the train step or the decoding loop for TPUs or GPUs without one.

libtpu and XLA's CUDA plugin compile on a machine that has no TPU or GPU. Memory by device and the
scheduled program with all collectives are the compiler's own, and so, on a TPU, is an estimate of
cycles. Nothing is run and no time is measured: `bounds` gives lower bounds on the program's time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jukejax import costs
from jukejax.config import ConfigError, Experiment, PriorExperiment
from jukejax.parallel.mesh import check_batch, local_bytes, make_mesh, replicated
from jukejax.planning import hlo_counts
from jukejax.planning.topologies import CUDA, Topology
from jukejax.planning.topologies import topology as topology
from jukejax.sampling import loop
from jukejax.sampling.draw import Control
from jukejax.sampling.weights import converted
from jukejax.training.reconstruction import OfSound, jit_rebuild, shown_chunks
from jukejax.training.step import abstract_batch, abstract_state, jit_eval_step, jit_train_step
from jukejax.training.tasks import make_task

BETWEEN_HOSTS = "between hosts"
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


# --- lowering: the functions that train and sample, on abstract arguments -------------------------


@dataclass(frozen=True)
class Program:
    """A lowered program, and the bytes of its arguments on one device."""

    lowered: Any
    arguments: int
    topology: Topology


def check(experiment: Experiment, mesh: Mesh) -> None:
    """Raises ConfigError for sizes that come from data, and for a batch that does not divide."""
    if isinstance(experiment, PriorExperiment):
        labels = experiment.model.labels
        if labels is not None and not labels.sized:
            raise ConfigError(
                "This preset takes the numbers of artists and genres from the data; set them: "
                "--model.labels.artists N --model.labels.genres N (and years and tags, if used)."
            )
        lyrics = experiment.model.lyrics
        if lyrics is not None and not lyrics.vocabulary:
            raise ConfigError(
                "lyrics.alphabet 'characters' is filled in from the data; set it to "
                "'characters:' followed by the characters, or by any of the same number."
            )
    check_batch(mesh, experiment.train)


def lower_train(experiment: Experiment, topology: Topology) -> Program:
    """The train step of `jukejax.training.step`, lowered for a topology."""
    mesh = make_mesh(experiment.mesh, topology.devices)
    check(experiment, mesh)
    task = make_task(experiment)
    state = abstract_state(task, experiment, mesh)
    batch = abstract_batch(task, experiment, mesh)
    step = jit_train_step(task, experiment, mesh)
    with jax.set_mesh(mesh):
        return Program(step.lower(state, batch), local_bytes((state, batch)), topology)


def lower_evaluation(experiment: Experiment, topology: Topology) -> list[Program]:
    """What a run computes between its steps: the held-out loss, and reconstructed sounds.

    The arguments are the whole state of the run and the batch, which stay on the device.
    """
    mesh = make_mesh(experiment.mesh, topology.devices)
    task = make_task(experiment)
    state = abstract_state(task, experiment, mesh)
    batch = abstract_batch(task, experiment, mesh)
    with jax.set_mesh(mesh):
        programs = [jit_eval_step(task, experiment).lower(state, batch)]
        if isinstance(experiment, OfSound):
            shape = (shown_chunks(experiment), experiment.samples, 1)
            shown = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=replicated(mesh))
            programs.append(jit_rebuild(experiment, mesh).lower(state.ema, state.extra, shown))
    resident = local_bytes((state, batch))
    return [Program(lowered, resident, topology) for lowered in programs]


def lower_decode(
    experiment: PriorExperiment, topology: Topology, windows: int, weights: str
) -> Program:
    """The loop of `jukejax.sampling.loop` over a batch of `windows` windows, lowered.

    Parameters are sharded as training stores them, in the format `weights`.
    """
    config = experiment.model
    mesh = make_mesh(experiment.mesh, topology.devices)
    check(experiment, mesh)
    whole = replace(experiment, lora=0)  # adapters are merged before sampling
    params = converted(abstract_state(make_task(whole), whole, mesh).ema, weights)
    control = jax.eval_shape(lambda: Control(jnp.float32(1)))
    arguments = loop.abstract_arguments(config, mesh, params, windows, control)
    return Program(loop.lower(config, mesh, arguments), local_bytes(arguments), topology)


def versions(topology: Topology) -> dict[str, str]:
    """Versions of jax and the compiler."""
    return {name: importlib.metadata.version(name) for name in ("jax", topology.compiler)}


def fingerprint(program: Program) -> str:
    """SHA-256 (16 digits) of the StableHLO and the versions of jax and the compiler."""
    names = [f"{name} {version}" for name, version in versions(program.topology).items()]
    text = "\n".join([*names, program.lowered.as_text()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- compiling ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """Bytes on one device. `peak` is an estimate where the program does not fit."""

    fits: bool
    arguments: int
    temporaries: int
    peak: int
    available: int | None = None  # from the compiler's message where the program does not fit


def out_of_memory(message: str, arguments: int) -> Memory | None:
    """Memory from the compiler's message about a program that does not fit; None for other errors.

    The message speaks of temporaries, but counts arguments and outputs as well (tested).
    """
    number = r"\(([\d.]+)([KMG]?)\)"
    match = re.search(rf"total memory required for .*? {number} exceeds .*? {number}", message)
    if not match:
        return None
    peak = int(float(match[1]) * _UNITS[match[2]])
    available = int(float(match[3]) * _UNITS[match[4]])
    return Memory(False, arguments, peak - arguments, peak, available)


@dataclass(frozen=True)
class Compiled:
    """Memory of a compiled program, and its schedule as text ("" where it does not fit)."""

    memory: Memory
    text: str


def compile_program(program: Program) -> Compiled:
    """Compiles a program; one that does not fit is a result, not an error."""
    if program.topology.compiler == CUDA:
        return _compile_gpu(program)
    with tempfile.TemporaryDirectory(prefix="jukejax_aot_") as folder:
        options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        try:
            compiled = program.lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            memory = out_of_memory(str(error), program.arguments)
            if memory is None:
                raise
            return Compiled(memory, "")
        # read the dump: it has the cycles, and as_text() fails where jaxlib is older than libtpu
        dumps = sorted(Path(folder).glob("*.after_codegen.txt"), key=lambda p: p.stat().st_size)
        if not dumps:
            raise RuntimeError("libtpu wrote no after_codegen.txt; this version is not supported.")
        return Compiled(_memory(compiled), dumps[-1].read_text())


def _compile_gpu(program: Program) -> Compiled:
    # Triton's tiles are tuned on a device; without one, matrix products are cuBLAS's
    options = {"xla_gpu_enable_triton_gemm": False}
    try:
        compiled = program.lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if "No PTX compilation provider" not in str(error):
            raise
        raise ConfigError(
            "XLA's GPU compiler does not find ptxas, NVIDIA's assembler: pip install "
            "'jukejax[aot-gpu]' installs one."
        ) from error
    memory, available = _memory(compiled), program.topology.chip.memory
    if memory.peak > available:  # the GPU compiler refuses no size
        memory = replace(memory, fits=False, available=available)
    return Compiled(memory, compiled.as_text())


def _memory(compiled: Any) -> Memory:
    m = compiled.memory_analysis()
    outputs = m.output_size_in_bytes - m.alias_size_in_bytes
    peak = m.argument_size_in_bytes + m.temp_size_in_bytes + outputs
    return Memory(True, m.argument_size_in_bytes, m.temp_size_in_bytes, peak)


# --- what a compiled program implies --------------------------------------------------------------


def bounds(counts: hlo_counts.Counts, chip: costs.Chip) -> dict[str, float]:
    """Lower bounds on the time of one device, in seconds, by resource.

    `compute` is the compiler's cycles; operations without an estimate (on a GPU all) are charged
    max(FLOPs / peak, bytes / bandwidth). `interconnect` assumes that all links of a chip are busy;
    `network` is between slices or hosts, where its speed is published.
    """
    charged = sum(_charge(chip, flops, moved) for _, flops, moved in counts.uncosted)
    sent = sum(c.bytes for c in counts.collectives.values())
    far = sum(c.network for c in counts.collectives.values())
    seconds = {
        "matrix_peak": counts.flops / chip.flops,
        "compute": counts.cycles / chip.clock + charged,
        "hbm": counts.hbm_bytes / chip.bandwidth,
        "interconnect": (sent - far) / chip.interconnect,
    }
    if far and chip.network is not None:
        seconds["network"] = far / chip.network
    return seconds


def _charge(chip: costs.Chip, flops: int, moved: int) -> float:
    return max(flops / chip.flops, moved / chip.bandwidth)


def traffic(counts: hlo_counts.Counts) -> dict[str, dict[str, int]]:
    """Collectives by kind: how many a run, and the bytes that a device sends.

    What GPUs send from host to host is included in its kind and listed as "between hosts" too.
    """
    number: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for c in counts.collectives.values():
        number[c.kind] += c.times
        size[c.kind] += c.bytes
        if c.network and c.kind != hlo_counts.BETWEEN_SLICES:
            number[BETWEEN_HOSTS] += c.times
            size[BETWEEN_HOSTS] += c.network
    return {kind: {"count": number[kind], "bytes": size[kind]} for kind in sorted(number)}


def heaviest(counts: hlo_counts.Counts, top: int = 5) -> list[dict[str, Any]]:
    """The collectives that send most."""
    largest = sorted(counts.collectives.values(), key=lambda c: -c.bytes)[:top]
    return [{"kind": c.kind, "times": c.times, "bytes": c.bytes, "of": c.source} for c in largest]


def operations(counts: hlo_counts.Counts, chip: costs.Chip, top: int = 8) -> dict[str, float]:
    """Shares of the compiler's cycles (on a GPU: of the charges) by operation, largest first."""
    spent: Counter[str] | dict[str, float] = counts.operations
    if not spent:
        spent = {}
        for name, flops, moved in counts.uncosted:
            spent[name] = spent.get(name, 0.0) + _charge(chip, flops, moved)
    total = max(sum(spent.values()), 1e-30)
    return {name: round(c / total, 4) for name, c in Counter(spent).most_common(top)}
