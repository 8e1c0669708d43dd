"""Planning without a compiler for TPUs: messages, bounds, the search for a batch, lowering."""

import importlib.metadata
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jukejax import costs
from jukejax.config import (
    ConfigError,
    LabelsConfig,
    LyricsConfig,
    MeshConfig,
    PriorConfig,
    PriorExperiment,
    TrainConfig,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.parallel.mesh import make_mesh
from jukejax.planning import aot, hlo_counts, plans, text
from jukejax.planning.aot import Memory, Topology
from jukejax.training.step import abstract_batch, abstract_state
from jukejax.training.tasks import make_task

CHIP = costs.CHIPS["v5e"]
PRIOR = PriorExperiment(
    model=PriorConfig(
        n_ctx=16, width=16, depth=1, heads=2, blocks=4, codes=32, attn_ratio=0.5,
        labels=LabelsConfig(artists=5, genres=4), tied_output=False, layers="tuned",
        lyrics=LyricsConfig(tokens=8, width=16, depth=1, heads=2, blocks=2, attn_order=0),
    ),
    train=TrainConfig(batch=8), mesh=MeshConfig(data=2, fsdp=2, tensor=2),
)  # fmt: skip


def target(experiment, *decoding):
    """On eight chips."""
    return plans.Target("x", experiment, Topology("x", 1, CHIP, [None] * 8), *decoding)


@pytest.fixture(scope="module")
def here():
    """The eight virtual devices as a topology."""
    return Topology("cpu", 1, CHIP, jax.devices())


def test_what_the_compiler_says_of_a_program_that_does_not_fit():
    memory = aot.out_of_memory(
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
        "required for HLO temporaries (17.50G) exceeds available HBM (15.75G). HLO module: "
        "jit_step.\nSee https://openxla.org/xla/errors/error_1000 for more details.",
        costs.GIB,
    )
    assert not memory.fits
    assert (memory.arguments, memory.temporaries) == (costs.GIB, 16.5 * costs.GIB)
    assert memory.peak == 17.5 * costs.GIB
    assert memory.available == 15.75 * costs.GIB


def test_other_messages_are_other_errors():
    assert aot.out_of_memory("INVALID_ARGUMENT: no such thing", 0) is None


def test_operations_without_a_cost_are_charged_what_they_cannot_do_without():
    counts = hlo_counts.Counts(flops=10**12, hbm_bytes=10**9, cycles=10**6)
    counts.uncosted = [("a", 197 * 10**9, 1), ("b", 1, 819 * 10**6)]  # a millisecond each
    send = hlo_counts.Collective("all-gather", "", 1, 2 * 10**8)
    far = hlo_counts.Collective(hlo_counts.BETWEEN_SLICES, "", 1, 3_125_000, 3_125_000)
    counts.collectives = {("a", "1"): send, ("b", "2"): far}
    found = aot.bounds(counts, CHIP)
    assert found["compute"] == pytest.approx(1e6 / CHIP.clock + 2e-3)
    assert found["hbm"] == pytest.approx(1e9 / 819e9)
    assert found["interconnect"] == pytest.approx(1e-3)
    assert found["network"] == pytest.approx(1e-3)
    assert found["matrix_peak"] == pytest.approx(1e12 / 197e12)
    assert aot.operations(counts, CHIP) == {"a": 0.5, "b": 0.5}
    counts.operations["c"] = 10**6
    assert aot.operations(counts, CHIP) == {"c": 1.0}


def test_what_crosses_hosts_is_listed_again():
    counts = hlo_counts.Counts()
    near = hlo_counts.Collective("all-gather", "", 3, 70)
    crossing = hlo_counts.Collective("all-gather", "", 2, 100, 10)
    counts.collectives = {("a", "1"): near, ("a", "2"): crossing}
    assert aot.traffic(counts) == {
        "all-gather": {"count": 5, "bytes": 170},
        "between hosts": {"count": 2, "bytes": 10},
    }
    seconds = aot.bounds(counts, costs.GPUS["H100"])
    assert seconds["interconnect"] == pytest.approx(160 / 450e9)
    assert seconds["network"] == pytest.approx(10 / 50e9)


def a_plan(arguments, peak, chip):
    memory = {"arguments": arguments, "temporaries": peak - arguments, "peak": peak, "chip": chip}
    short = {"short": peak - chip} if peak > chip else {}
    return {"fits": not short, "memory": memory | short}


@pytest.mark.parametrize("largest", [1, 2, 3, 7, 40])
def test_the_search_finds_the_largest_batch_in_few_compiles(largest):
    share, capacity, state = 256, 16 * costs.GIB, costs.GIB
    each = (capacity - state) / (largest + 0.5)  # of memory, but not quite in proportion
    tried = []

    def attempt(batch):
        k = batch // share
        peak = int(state + each * k * (1 + 0.1 / (largest + k)))
        plan = a_plan(state, peak, capacity) | {"batch": batch}
        tried.append((k, plan["fits"]))
        return plan

    plan = plans.largest_batch(attempt, 2 * share, share)
    assert plan["fits"] and plan["batch"] == largest * share
    assert len(tried) == len(set(tried)) <= 6
    assert sum(fits for _, fits in tried) <= 4  # those that take minutes


def test_the_search_says_when_nothing_fits():
    with pytest.raises(ConfigError, match=r"Not even one example .* 4\.0 GiB are missing"):
        plans.largest_batch(lambda batch: a_plan(0, 20 * costs.GIB, 16 * costs.GIB), 8, 8)


def test_advice_names_what_can_be_changed():
    memory = Memory(False, 8 * costs.GIB, 20 * costs.GIB, 28 * costs.GIB, 16 * costs.GIB)
    experiment = replace(PRIOR, mesh=MeshConfig(data=4, fsdp=2), train=TrainConfig(batch=32))
    text = "\n".join(plans.train_advice(target(experiment), memory))
    for part in (
        "--train.batch 24",
        "5.0 GiB",
        "--mesh.fsdp up to 8",
        "6.0 GiB",
        "remat layer",
        "4.0 GiB",
    ):
        assert part in text
    assert "bfloat16" in text
    lean = replace(
        experiment,
        model=replace(PRIOR.model, remat="layer", dtype="bfloat16"),
        mesh=MeshConfig(data=1, fsdp=8), train=TrainConfig(batch=8, state_dtype="bfloat16"),
    )  # fmt: skip
    assert plans.train_advice(target(lean), memory) == [
        "a larger topology, or chips with more memory."
    ]


@pytest.mark.parametrize("name", ["v7:2x2", "v5litepod:4x4", "16x16"])
def test_unknown_chips(name):
    with pytest.raises(ConfigError, match="one of v4, v5e, v5p, v6e, h100"):
        aot.topology(name)


@pytest.mark.parametrize(
    ("name", "extra"), [("v5e:2x2", "aot"), ("h100:8", "aot-gpu")], ids=["tpu", "gpu"]
)
def test_a_missing_compiler_is_named(monkeypatch, name, extra):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ConfigError, match=rf"pip install 'jukejax\[{extra}\]'"):
        aot.topology(name)


@pytest.mark.parametrize(("name", "slices"), [("h100:2x2x8", 1), ("h100:0", 1), ("h100:8", 2)])
def test_gpus_are_named_by_hosts_and_gpus_of_a_host(name, slices):
    with pytest.raises(ConfigError, match=r"as in h100:8 or h100:8x8, and have no --slices"):
        aot.topology(name, slices)


def test_what_a_preset_leaves_open_is_asked_for(here):
    labels = replace(PRIOR.model.labels, artists=0)
    with pytest.raises(ConfigError, match=r"--model\.labels\.artists N"):
        aot.lower_train(replace(PRIOR, model=replace(PRIOR.model, labels=labels)), here)
    with pytest.raises(ConfigError, match="splits a batch 4 ways"):
        aot.lower_train(replace(PRIOR, train=TrainConfig(batch=6)), here)
    with pytest.raises(ConfigError, match=r"in 2 parts .* give a multiple of 8"):
        aot.lower_train(replace(PRIOR, train=TrainConfig(batch=4, accumulate=2)), here)


def test_the_lowered_steps_arguments_are_the_shards_of_a_device(here, capfd):
    program = aot.lower_train(PRIOR, here)
    mesh, task = make_mesh(PRIOR.mesh), make_task(PRIOR)
    shapes = (abstract_state(task, PRIOR, mesh), abstract_batch(task, PRIOR, mesh))
    first = jax.devices()[0]
    held = sum(
        np.zeros(x.shape)[x.sharding.devices_indices_map(x.shape)[first]].size * x.dtype.itemsize
        for x in jax.tree.leaves(shapes)
    )
    assert program.arguments == held
    # and XLA reshards embeddings without copying them whole
    program.lowered.compile()
    assert "rematerialization" not in capfd.readouterr().err


def test_a_lowered_program_has_a_name_of_its_own(here, monkeypatch):
    monkeypatch.setattr(
        aot, "versions", lambda topology: {"libtpu": "1"}
    )  # it need not be installed
    program = aot.lower_train(PRIOR, here)
    assert aot.fingerprint(program) == aot.fingerprint(aot.lower_train(PRIOR, here))
    other = replace(PRIOR, train=replace(PRIOR.train, ema_decay=0.5))
    assert aot.fingerprint(program) != aot.fingerprint(aot.lower_train(other, here))
    before = aot.fingerprint(program)
    monkeypatch.setattr(aot, "versions", lambda topology: {"libtpu": "2"})
    assert aot.fingerprint(program) != before


def test_a_kept_plan_is_returned_where_program_and_counts_are_the_same(here, monkeypatch):
    program = aot.Program(SimpleNamespace(as_text=lambda: "module"), 0, here)
    monkeypatch.setattr(aot, "versions", lambda topology: {"libtpu": "1"})
    monkeypatch.setattr(aot, "lower_train", lambda experiment, topology: program)
    compiled = []
    monkeypatch.setattr(aot, "compile_program", compiled.append)
    monkeypatch.setattr(plans, "of_compiled", lambda target, fingerprint, _: fingerprint)
    versions = {"counts": hlo_counts.VERSION}
    kept = {"fingerprint": aot.fingerprint(program), "versions": versions}
    assert plans.make(target(PRIOR), kept) is kept and not compiled
    for other in ({"fingerprint": "x"}, {"versions": {"counts": hlo_counts.VERSION - 1}}):
        assert plans.make(target(PRIOR), kept | other) == kept["fingerprint"]
    assert plans.make(target(PRIOR)) == kept["fingerprint"]
    assert compiled == [program] * 3


def test_advice_for_decoding():
    found = plans.decode_advice(target(PRIOR, 2))
    assert [line.split(":")[0] for line in found] == [
        "--weights bfloat16", "fewer --windows", "--mesh.tensor",
    ]  # fmt: skip
    assert plans.decode_advice(target(PRIOR, 1, "bfloat16")) == found[2:]


@pytest.mark.aot
def test_the_compilers_message_counts_arguments():
    pytest.importorskip("libtpu", reason="pip install 'jukejax[aot]'")
    (device,) = aot.topology("v5e:1x1").devices
    sharding = jax.sharding.SingleDeviceSharding(device)
    x = jax.ShapeDtypeStruct((2**20, 5 * 2**10), np.float32, sharding=sharding)  # 20 GiB
    with pytest.raises(jax.errors.JaxRuntimeError) as error:
        jax.jit(lambda x: x.sum()).lower(x).compile()
    memory = aot.out_of_memory(str(error.value), 20 * costs.GIB)
    assert memory.temporaries < costs.GIB


@pytest.mark.aot
def test_a_step_compiles_for_gpus_of_two_hosts():
    try:
        topology = aot.topology("h100:2x4")
    except ConfigError as error:
        pytest.skip(str(error))
    experiment = replace(PRIOR, mesh=MeshConfig(data=2, fsdp=2, tensor=2))
    program = aot.lower_train(experiment, topology)
    on_hosts = plans.Target("x", experiment, topology)
    plan = plans.of_compiled(on_hosts, "", aot.compile_program(program))
    assert plan["fits"] and plan["memory"]["arguments"] == program.arguments
    assert set(plan["versions"]) == {"jax", "jax-cuda12-plugin", "counts"}
    # nothing is computed again here, and no tile pads: the program multiplies what arithmetic says
    assert plan["compiled_flops"] * 8 == pytest.approx(plan["flops_per_step"], rel=0.1)
    # gradients cross the hosts, which `data` spans; parameters are gathered within them
    assert plan["collectives"]["all-gather"]["count"] > 0
    far = plan["collectives"]["between hosts"]["bytes"]
    assert 0 < far < 4 * plan["parameters"]
    assert plan["bounds_s"]["network"] == pytest.approx(far / 50e9)
    small = replace(topology, chip=replace(topology.chip, memory=10**5))
    done = aot.compile_program(replace(program, topology=small))
    assert not done.memory.fits and done.memory.available == 10**5


@pytest.mark.parametrize("kind", ["prior", "vqvae"])
def test_plans_of_training_count_the_evaluation(here, monkeypatch, kind):
    def compiled(program):
        return aot.Compiled(aot._memory(program.lowered.compile()), "")

    monkeypatch.setattr(aot, "compile_program", compiled)
    vqvae = VQVAEExperiment(
        model=VQVAEConfig(downs=(2,), multipliers=(1,), width=8, depth=1, emb_width=4, codes=16),
        samples=65_536, train=TrainConfig(batch=16),
    )  # fmt: skip
    experiment = PRIOR if kind == "prior" else vqvae
    target = plans.Target(kind, experiment, here)
    plan = plans.with_evaluation(target, {"what": "train"})
    size = plan["evaluation"]
    arguments = aot.lower_train(experiment, here).arguments
    assert size["fits"] and size["peak"] == arguments + size["temporaries"]
    assert plans.with_evaluation(target, plan) is plan
    if kind == "vqvae":  # what a device rebuilds of all shown chunks, in float32
        assert size["temporaries"] > 4 * 8 * 16 * experiment.samples
    tiny = replace(here, chip=replace(here.chip, memory=arguments))
    plan = plans.with_evaluation(replace(target, topology=tiny), {"what": "train"})
    assert not plan["evaluation"]["fits"]
    assert "DOES NOT FIT: --train.accumulate" in text._evaluation(plan["evaluation"], arguments)[0]
    decode = replace(target, windows=1)
    assert "evaluation" not in plans.with_evaluation(decode, {"what": "decode"})
