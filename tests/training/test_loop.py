"""The training loop: resumed runs are uninterrupted ones, bit for bit; signals; what is written."""

import dataclasses
import gc
import itertools
import os
import signal

import jax
import numpy as np
import pytest

from jukejax import locks
from jukejax.config import (
    MeshConfig,
    OptimizerConfig,
    ReconstructionLoss,
    TrainConfig,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.errors import CheckpointError, Diverged, FolderInUse, Interrupted, Preempted
from jukejax.model_dir import load_vqvae
from jukejax.parallel.mesh import make_mesh
from jukejax.training import loop
from jukejax.training.checkpoint import Checkpoints, directory, load_experiment, open_existing
from jukejax.training.loop import Hook, Run, begin, train
from jukejax.training.metrics import read_metrics
from jukejax.training.step import abstract_state
from jukejax.training.tasks import make_task

# Orbax does not await the reads of a checkpoint that does not fit, and Python warns of that.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

EXPERIMENT = VQVAEExperiment(
    model=VQVAEConfig(
        downs=(1,), multipliers=(1,), width=4, depth=1, emb_width=4, codes=8,
        codebook_decay=0.9, loss=ReconstructionLoss(multispectral=0.0),
    ),
    samples=1280,
    optimizer=OptimizerConfig(learning_rate=0.01, warmup_steps=2),
    train=TrainConfig(
        steps=6, batch=2, ema_decay=0.5, log_every=1, evaluate_every=3, evaluate_batches=2,
        checkpoint_every=4, keep=3,
    ),
)  # fmt: skip


def batch(step):
    audio = np.random.default_rng(step).normal(size=(2, 1280, 1))
    return {"audio": (0.3 * audio).astype(np.float32)}


def batches(step):
    """One batch per step, endlessly."""
    return map(batch, itertools.count(step))


def stops(before_batch, stop):
    """`batches` that call `stop` before the batch of step `before_batch`."""

    def source(step):
        for n in itertools.count(step):
            if n == before_batch:
                stop()
            yield batch(n)

    return source


def held_out():
    return map(batch, (100, 101, 102))


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module", autouse=True)
def compiled_once(mesh):
    """All runs here share the compiled steps: compiling them for each takes seconds."""
    steps = {}

    def once(name, make):
        def made(*args):
            if name not in steps:
                steps[name] = make(*args)
            return steps[name]

        return made

    with pytest.MonkeyPatch.context() as patch:
        for name in ("make_train_step", "make_eval_step"):
            patch.setattr(loop, name, once(name, getattr(loop, name)))
        yield


@pytest.fixture(scope="module")
def uninterrupted(mesh, tmp_path_factory):
    """(workdir, final state, steps at which a hook was called) of a run without a break."""
    workdir, called = tmp_path_factory.mktemp("uninterrupted"), []

    def hook(step, state, writer):
        assert int(state.step) == step
        writer.scalars(step, {"hook": step})
        called.append(step)

    note = {"fingerprint": "abc"}
    hooks = (Hook(4, hook),)
    run = Run(EXPERIMENT, mesh, workdir, batches, held_out, hooks, note, log=[].append)
    state = train(run)
    return workdir, jax.tree.map(np.asarray, state), called


@pytest.fixture(scope="module")
def resumed(mesh, tmp_path_factory):
    """(workdir, final state, lines) of a run stopped by Ctrl-C, then by an error, then finished."""
    workdir, lines = tmp_path_factory.mktemp("resumed"), []

    def go(source):
        return train(Run(EXPERIMENT, mesh, workdir, source, held_out, log=lines.append))

    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted, match=f"Stopped at step 3 of 6; saved in {workdir}"):
        go(stops(2, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    with open_existing(workdir) as checkpoints:
        assert checkpoints.latest == 3
    assert [r["step"] for r in read_metrics(workdir / "metrics.jsonl") if "train/loss" in r] == [
        1, 2, 3,
    ]  # fmt: skip

    def fail():
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        go(stops(5, fail))  # step 5 is done and logged, step 4 the last saved
    with open_existing(workdir) as checkpoints:
        assert checkpoints.latest == 4
    assert read_metrics(workdir / "metrics.jsonl")[-1]["step"] == 5
    return workdir, jax.tree.map(np.asarray, go(batches)), lines


def test_resumed_run_is_the_uninterrupted_one_bit_for_bit(uninterrupted, resumed):
    _, expected, _ = uninterrupted
    _, found, _ = resumed
    assert found.step == expected.step == 6
    for part in ("params", "ema", "opt_state", "extra"):
        a, b = getattr(found, part), getattr(expected, part)
        assert jax.tree.structure(a) == jax.tree.structure(b)
        jax.tree.map(np.testing.assert_array_equal, a, b)
    kernels = [state["encoders_0"]["block_0"]["out"]["kernel"] for state in expected[1:3]]
    assert (kernels[0] != kernels[1]).any()


def test_no_step_is_written_twice(uninterrupted, resumed):
    records = {}
    for name, (workdir, *_) in (("uninterrupted", uninterrupted), ("resumed", resumed)):
        found = read_metrics(workdir / "metrics.jsonl")
        training = [r for r in found if "train/loss" in r]
        assert [r["step"] for r in training] == [1, 2, 3, 4, 5, 6]
        evaluated = [r for r in found if "held_out/loss" in r]
        assert [r["step"] for r in evaluated] == [3, 6]
        records[name] = [
            {k: v for k, v in r.items() if not k.startswith(("time", "memory"))}
            for r in training + evaluated
        ]
    assert records["uninterrupted"] == records["resumed"]


def test_hooks_run_every_n_steps_and_after_the_last(uninterrupted):
    workdir, _, called = uninterrupted
    assert called == [4, 6]
    assert [r["hook"] for r in read_metrics(workdir / "metrics.jsonl") if "hook" in r] == [4, 6]


def test_checkpoints_are_saved_every_n_steps(uninterrupted):
    workdir, state, _ = uninterrupted
    assert sorted(p.name for p in directory(workdir).iterdir()) == ["4", "6"]
    experiment, note = load_experiment(workdir)
    assert experiment == EXPERIMENT
    assert len(note.pop("run")) == 16  # a random name, kept when the run resumes
    assert note == {"fingerprint": "abc", "step": 6}
    assert state.step == 6


def test_a_finished_run_does_nothing(uninterrupted, mesh):
    workdir, expected, _ = uninterrupted
    before, lines = (workdir / "metrics.jsonl").read_bytes(), []

    def no_batches(step):
        assert step == 6
        yield pytest.fail("a batch was asked for")

    state = train(Run(EXPERIMENT, mesh, workdir, no_batches, held_out, log=lines.append))
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    assert lines == [f"{workdir}: already trained for 6 steps."]
    assert (workdir / "metrics.jsonl").read_bytes() == before
    assert sorted(p.name for p in directory(workdir).iterdir()) == ["4", "6"]


def test_a_run_is_restored_onto_another_mesh(uninterrupted):
    workdir, expected, _ = uninterrupted
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    shapes = abstract_state(make_task(EXPERIMENT), EXPERIMENT, mesh)._asdict()
    del shapes["step"]
    with Checkpoints(workdir) as checkpoints:
        found = checkpoints.restore(shapes)
    assert found.pop("spikes") == {}  # they are not skipped here
    for name, tree in found.items():
        jax.tree.map(np.testing.assert_array_equal, tree, getattr(expected, name))
        assert {len(x.sharding.device_set) for x in jax.tree.leaves(tree)} == {8}


def test_a_trained_model_is_its_averaged_parameters(uninterrupted, mesh):
    workdir, expected, _ = uninterrupted
    model = load_vqvae(workdir, mesh)
    assert (model.config, model.step) == (EXPERIMENT.model, 6)
    jax.tree.map(np.testing.assert_array_equal, model.params, expected.ema)
    jax.tree.map(np.testing.assert_array_equal, model.books, expected.extra.books)


@pytest.mark.parametrize("change", [{"width": 6}, {"depth": 2}, {"codes": 4}])
def test_another_model_is_refused(uninterrupted, mesh, change):
    workdir, _, _ = uninterrupted
    other = dataclasses.replace(EXPERIMENT, model=dataclasses.replace(EXPERIMENT.model, **change))
    with pytest.raises(CheckpointError, match="does not fit this model"):
        train(Run(other, mesh, workdir, batches, log=[].append))
    gc.collect()


# --- gradients that are not finite ----------------------------------------------------------------


def broken_batches(bad):
    """`batches` that are all NaN at the steps for which `bad(step)` is true."""

    def source(step):
        for n in itertools.count(step):
            yield {name: x * (np.nan if bad(n) else 1) for name, x in batch(n).items()}

    return source


def test_a_step_without_a_finite_gradient_is_skipped_and_counted(mesh, tmp_path):
    few = dataclasses.replace(
        EXPERIMENT, train=dataclasses.replace(EXPERIMENT.train, steps=5, log_every=5)
    )
    state = train(Run(few, mesh, tmp_path, broken_batches(lambda n: n in (1, 3)), log=[].append))
    assert int(state.step) == 5
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
    record = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert record["train/skipped"] == 2
    # a warm-up over two updates: three were made, with rates of 0, 1/2 and 1
    assert record["train/learning_rate"] == pytest.approx(0.01 * (0 + 0.5 + 1) / 3)
    finite = dataclasses.replace(few.train, steps=1, log_every=1)
    alone = dataclasses.replace(few, train=finite)
    train(Run(alone, mesh, tmp_path / "one", batches, log=[].append))
    one = read_metrics(tmp_path / "one" / "metrics.jsonl")[-1]["train/loss"]
    assert record["train/loss"] == pytest.approx(one, rel=0.5)  # a mean of three, not of five


def test_many_such_steps_in_a_row_end_the_run_and_the_checkpoints_stay(mesh, tmp_path):
    limited = dataclasses.replace(
        EXPERIMENT, train=dataclasses.replace(EXPERIMENT.train, steps=20, max_skipped=3)
    )
    # two in a row are allowed
    source = broken_batches(lambda n: n in (1, 2) or n >= 5)
    with pytest.raises(Diverged, match=r"3 steps in a row up to step 8.*not finite.*learning_rate"):
        train(Run(limited, mesh, tmp_path, source, log=[].append))
    with open_existing(tmp_path) as checkpoints:
        kept = checkpoints.latest
        shapes = abstract_state(make_task(limited), limited, mesh)._asdict()
        del shapes["step"]
        found = checkpoints.restore(shapes)
    assert kept == 8
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


# --- stopping -------------------------------------------------------------------------------------


def test_sigterm_asks_to_be_started_again(mesh, tmp_path):
    source = stops(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Preempted, match="Stopped at step 3 of 6"):
        train(Run(EXPERIMENT, mesh, tmp_path, source, log=[].append))
    with open_existing(tmp_path) as checkpoints:
        assert checkpoints.latest == 3


def test_ctrl_c_during_an_evaluation_stops_after_saving(mesh, tmp_path):
    interrupted = []

    def hook(step, state, writer):
        interrupted.append(step)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as stopped:
        train(Run(EXPERIMENT, mesh, tmp_path, batches, held_out, (Hook(3, hook),), log=[].append))
    step = interrupted[0]
    assert step % EXPERIMENT.train.checkpoint_every, (
        "the checkpoint must be due to the interrupt alone"
    )
    assert f"Stopped at step {step} of" in str(stopped.value)
    with open_existing(tmp_path) as checkpoints:
        assert checkpoints.latest == step


def test_the_best_checkpoint_is_saved_at_its_evaluation(mesh, tmp_path):
    best = dataclasses.replace(EXPERIMENT.train, keep=1, keep_best=1, evaluate_every=1)
    experiment = dataclasses.replace(EXPERIMENT, train=best)
    train(Run(experiment, mesh, tmp_path, batches, held_out, log=[].append))
    records = read_metrics(tmp_path / "metrics.jsonl")
    losses = {r["step"]: r["held_out/loss"] for r in records if "held_out/loss" in r}
    expected = min(losses, key=losses.get)
    with open_existing(tmp_path) as checkpoints:
        assert (checkpoints.best, checkpoints.latest) == (expected, 6)
    assert {p.name for p in directory(tmp_path).iterdir()} == {str(expected), "6"}


def test_time_and_memory_are_written_and_a_trace_when_asked(mesh, tmp_path):
    longer = dataclasses.replace(EXPERIMENT.train, steps=11, log_every=2)
    experiment = dataclasses.replace(EXPERIMENT, train=longer)
    train(Run(experiment, mesh, tmp_path, batches, held_out, log=[].append, profile=True))
    record = [r for r in read_metrics(tmp_path / "metrics.jsonl") if "train/loss" in r][-1]
    assert record["time/step"] > 0 and record["memory/host_gib"] > 0.1
    rate = 2 * 1280 / 44_100 / record["time/step"]
    assert record["time/audio_seconds_per_second"] == pytest.approx(rate)
    shares = {k: v for k, v in record.items() if k.startswith("time/lost") or "goodput" in k}
    assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) > 0
    assert list(tmp_path.glob("tensorboard/plugins/profile/*/*.xplane.pb"))


# --- starting from another run --------------------------------------------------------------------


def test_a_run_starts_from_the_averaged_weights_of_another(mesh, uninterrupted, tmp_path):
    other = load_vqvae(uninterrupted[0], mesh)
    few = dataclasses.replace(EXPERIMENT, train=dataclasses.replace(EXPERIMENT.train, steps=1))
    run = Run(few, mesh, tmp_path, batches, start_from=uninterrupted[0], log=[].append)
    begun = begin(run, Checkpoints(tmp_path))[0]
    assert int(begun.step) == 0
    for tree in (begun.params, begun.ema):
        jax.tree.map(np.testing.assert_array_equal, tree, other.params)
    zeros = [x for x in jax.tree.leaves(begun.opt_state)]
    assert zeros and not any(np.any(x) for x in zeros)
    book = begun.extra.books[0]
    np.testing.assert_array_equal(book.codes, other.books[0].codes)
    counts = 2 * 1280 / 2 / 8  # items x samples / hop / codes
    np.testing.assert_array_equal(book.counts, np.full(8, counts))
    np.testing.assert_allclose(book.sums, counts * np.asarray(book.codes), rtol=1e-6)
    audio = batch(0)["audio"]
    assert float(begun.extra.width.l1) == pytest.approx(np.abs(audio).mean(), rel=1e-5)
    # training continues from these weights, not from random ones
    state = train(run)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), state.params, other.params)
    assert 0 <= max(jax.tree.leaves(moved)) <= 0.011  # a warm-up step of Adam moves at most this


def test_a_finished_run_does_not_start_from_the_other_again(mesh, uninterrupted, tmp_path):
    run = Run(EXPERIMENT, mesh, tmp_path, batches, start_from=uninterrupted[0], log=[].append)
    done, again = train(run), train(run)
    jax.tree.map(np.testing.assert_array_equal, done, again)


def test_a_second_run_in_a_workdir_is_refused_and_changes_nothing(mesh, uninterrupted):
    workdir = uninterrupted[0]
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    with locks.writing(workdir):
        with pytest.raises(FolderInUse, match=f"{workdir} is being written by process"):
            train(Run(EXPERIMENT, mesh, workdir, batches))
        assert {p: p.stat().st_mtime_ns for p in before} == before


def test_compiling_is_said_at_once():
    said = []

    def step(state, batch):
        said.append("step")
        return state + batch, {}

    assert loop.first_step(step, 1, 2, said.append) == (3, {})
    assert said[:2] == ["Compiling the training step ...", "step"] and "Compiled in" in said[2]
