"""The training step: eight devices on any mesh give the results of one."""

import functools
import itertools
from dataclasses import replace

import flax.linen as nn
import jax
import numpy as np
import oracle
import pytest

from jukejax.config import (
    FramesConfig,
    LabelsConfig,
    LyricsConfig,
    MeshConfig,
    OptimizerConfig,
    PriorConfig,
    PriorExperiment,
    ReconstructionLoss,
    RendererConfig,
    RendererExperiment,
    Track,
    TracksConfig,
    TrainConfig,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.models import prior
from jukejax.parallel.mesh import make_mesh, put_batch
from jukejax.training.optimizer import optimizer_of
from jukejax.training.step import (
    TrainState,
    abstract_state,
    create_state,
    jit_eval_step,
    make_eval_step,
    make_train_step,
)
from jukejax.training.tasks import make_task

# A large eps: where a gradient is zero but for rounding (the biases of keys), Adam would blow the
# rounding up to a whole step.
OPTIMIZER = OptimizerConfig(learning_rate=0.02, eps=1e-2, warmup_steps=0, weight_decay=0.1)
TRAIN = TrainConfig(batch=8, ema_decay=0.75)
VQVAE = VQVAEExperiment(
    model=VQVAEConfig(
        downs=(2,), multipliers=(1,), width=4, depth=1, emb_width=4, codes=16,
        codebook_decay=0.7, restart_threshold=20.0, loss=ReconstructionLoss(multispectral=0.0),
    ),
    samples=1280, optimizer=OPTIMIZER, train=TRAIN,
)  # fmt: skip
FRAMES = replace(
    VQVAE,
    model=replace(
        VQVAE.model, downs=(1,), groups=2, unquantized=0.5, frames=FramesConfig(2, 4, 16, 8),
        loss=ReconstructionLoss(l2=0.0, linf=0.0, multispectral=0.0, mel=1.0, frames=1.0),
    ),
)  # fmt: skip
# trained against one discriminator; its VQ-VAE is frozen
RENDERER = RendererExperiment(
    model=RendererConfig(
        vqvae=VQVAE.model, level=0, width=4, depth=2, hop=2, synthesis=8, discriminators=(128,),
        channels=2,
    ),
    samples=1280, optimizer=OPTIMIZER, train=TRAIN,
)  # fmt: skip
LABELS = LabelsConfig(artists=5, genres=4, max_genres=2, min_seconds=0.0)
ENCODER = LyricsConfig(tokens=8, width=16, depth=1, heads=2, blocks=2, attn_order=0)
PREFIX = LyricsConfig(tokens=8, prefix=True)
# every kind of layer, and a lyrics encoder
CROSS = PriorExperiment(
    model=PriorConfig(
        n_ctx=16, width=16, depth=4, heads=2, blocks=4, codes=32, attn_order=6, attn_ratio=0.5,
        labels=LABELS, lyrics=ENCODER, tied_output=False, layers="tuned",
    ),
    optimizer=OPTIMIZER, train=TRAIN,
)  # fmt: skip
# one kind of layer, scanned twice, with the lyrics as a prefix, and with tracks
TRACKS = TracksConfig((Track("notes", ("60", "61", "62"), places=2),), parts=3, width=4, depth=1)
DENSE = replace(
    CROSS,
    model=replace(
        CROSS.model, depth=2, attn_order=0, lyrics=PREFIX, tied_output=True, tracks=TRACKS
    ),
)
# rows, columns, previous rows, and a layer that attends to the lyrics prefix
PRIME = replace(DENSE, model=replace(DENSE.model, depth=16, attn_order=12))
MESHES = {
    "data": MeshConfig(data=8),
    "fsdp": MeshConfig(data=1, fsdp=8),
    "tensor": MeshConfig(data=4, tensor=2),
    "mixed": MeshConfig(data=2, fsdp=2, tensor=2),
}


def batches(experiment):
    """Two batches."""
    rng = np.random.default_rng(0)
    if not isinstance(experiment, PriorExperiment):
        return [{"audio": rng.normal(size=(8, 1280, 1)).astype(np.float32)} for _ in range(2)]
    shapes = prior.example_batch(experiment.model, 8)
    tops = {"genres": 4, "artist": 5, "lyrics": 80, "codes": 32, "total_length": 60 * 44_100}
    return [
        {n: rng.integers(0, tops.get(n, 9), x.shape).astype(np.int32) for n, x in shapes.items()}
        for _ in range(2)
    ]


@pytest.fixture(scope="module")
def start():
    """experiment -> an initial state of host arrays."""

    @functools.cache
    def make(experiment):
        task = make_task(experiment)
        params = oracle.random_params(task.init, scale=0.2)
        first = batches(experiment)[0]
        extra = jax.jit(task.extra)(jax.random.key(3), params, first)
        opt_state = optimizer_of(experiment, params).init(params)
        state = TrainState(np.int32(0), params, params, opt_state, extra)
        return jax.tree.map(np.array, state)

    return make


@pytest.fixture(scope="module")
def prepare(start):
    """(experiment, mesh name or None) -> mesh, a function that makes a new state, and the step."""

    @functools.cache
    def make(experiment, name):
        devices = None if name else jax.devices()[:1]
        mesh = make_mesh(MESHES[name] if name else MeshConfig(), devices)
        task = make_task(experiment)
        shapes = abstract_state(task, experiment, mesh)

        def new_state(**changes):
            state = start(experiment)._replace(**changes)
            return jax.tree.map(lambda x, s: jax.device_put(x, s.sharding), state, shapes)

        return mesh, new_state, make_train_step(task, experiment, mesh)

    return make


@pytest.fixture(scope="module")
def run(prepare):
    """(experiment, mesh name or None) -> states after each of two steps, and their metrics."""

    @functools.cache
    def steps(experiment, name):
        mesh, new_state, step = prepare(experiment, name)
        shapes = abstract_state(make_task(experiment), experiment, mesh)
        state, out = new_state(), []
        for batch in batches(experiment):
            state, metrics = step(state, put_batch(mesh, batch))
            jax.tree.map(lambda x, s: check_sharding(x, s.sharding), state, shapes)
            out.append((jax.tree.map(np.array, state), jax.tree.map(float, metrics)))
        return out

    return steps


def check_sharding(x, sharding):
    assert x.sharding.is_equivalent_to(sharding, x.ndim)


KINDS = {
    "dense": DENSE, "cross": CROSS, "prime": PRIME, "vqvae": VQVAE, "frames": FRAMES,
    "renderer": RENDERER,
}  # fmt: skip
QUICK = {
    *(("dense", name) for name in ("data", "fsdp", "tensor")),
    ("cross", "mixed"), ("vqvae", "data"), ("vqvae", "mixed"), ("frames", "mixed"),
    ("renderer", "mixed"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow)
        for pair in itertools.product(KINDS, MESHES)
    ],
)
def test_eight_devices_do_what_one_does(run, start, kind, name):
    experiment, worst = KINDS[kind], {}
    alone, together = run(experiment, None), run(experiment, name)
    for (one, metrics), (eight, found) in zip(alone, together, strict=True):
        assert found["loss"] == pytest.approx(metrics["loss"], rel=1e-5)
        assert found.keys() == metrics.keys()
        worst["loss"] = max(worst.get("loss", 0), abs(found["loss"] / metrics["loss"] - 1))
        for part in ("params", "ema", "extra"):
            a, b = (jax.tree.leaves(getattr(state, part)) for state in (eight, one))
            for x, y in zip(a, b, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
                error = np.abs(x - y) / np.maximum(1, np.abs(y))
                worst[part] = max(worst.get(part, 0), error.max())
        assert eight.step == one.step
    print(f"\n{kind} on {name}: " + ", ".join(f"{k} {v:.1e}" for k, v in worst.items()))
    before, after = start(experiment).params, alone[-1][0].params
    moved = [
        np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)
    ]
    assert np.median(moved) > 1e-3  # far more than the tolerance


def test_codebooks_move_and_restart(run, start):
    states = [start(VQVAE), *(state for state, _ in run(VQVAE, None))]
    metrics = run(VQVAE, None)[-1][1]
    a, b = (state.extra.books[0] for state in states[-2:])
    alive = b.counts >= 20.0
    assert 0 < alive.sum() < 16
    assert metrics["level_0/alive"] == alive.sum()
    np.testing.assert_allclose(b.codes[alive], (b.sums / b.counts[:, None])[alive], rtol=1e-5)
    assert (a.codes != b.codes).any(1).all()
    # the counts gain (1 - decay) for each vector
    assert b.counts.sum() == pytest.approx(0.7 * a.counts.sum() + 0.3 * 8 * 1280 / 4, rel=1e-5)
    first, second = (state.extra.width for state in states[1:])
    assert first == second == states[0].extra.width  # measured once, on the first batch


def test_restarts_draw_other_vectors_at_every_step(prepare):
    mesh, new_state, step = prepare(VQVAE, None)
    batch = put_batch(mesh, batches(VQVAE)[0])
    a, b = (
        jax.tree.map(np.array, step(new_state(step=np.int32(n)), batch)[0].extra.books[0])
        for n in (0, 1)
    )
    np.testing.assert_array_equal(a.counts, b.counts)
    dead = a.counts < 20.0
    assert dead.sum() > 1
    assert (a.codes[dead] != b.codes[dead]).any(1).all()
    np.testing.assert_array_equal(a.codes[~dead], b.codes[~dead])


def test_averages_and_counters(run, start):
    states = [start(DENSE), *(state for state, _ in run(DENSE, None))]
    assert [int(s.step) for s in states] == [0, 1, 2]
    for before, after in itertools.pairwise(states):
        jax.tree.map(
            lambda e, p, new: np.testing.assert_allclose(new, 0.75 * e + 0.25 * p, atol=1e-6),
            before.ema,
            after.params,
            after.ema,
        )
    metrics = run(DENSE, None)[0][1]
    assert metrics["learning_rate"] == pytest.approx(0.02)
    assert metrics["gradient_norm"] > 0


def test_evaluation_reads_the_averaged_parameters(run, start):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    batch, state = put_batch(mesh, batches(DENSE)[0]), start(DENSE)
    evaluate = make_eval_step(make_task(DENSE), DENSE, mesh)
    found = evaluate(state._replace(params=jax.tree.map(np.zeros_like, state.params)), batch)
    assert float(found["loss"]) == pytest.approx(run(DENSE, None)[0][1]["loss"], rel=1e-5)
    assert set(found) == {"loss", "bits_music", "bits_lyrics"}
    later = evaluate(run(DENSE, None)[-1][0], batch)
    assert abs(float(later["loss"]) - float(found["loss"])) > 1e-3


@pytest.mark.parametrize("experiment", [DENSE, VQVAE, RENDERER], ids=["dense", "vqvae", "renderer"])
def test_a_step_whose_gradient_is_not_finite_is_skipped(prepare, start, experiment):
    mesh, new_state, step = prepare(experiment, None)
    batch = batches(experiment)[0]
    params = start(experiment).params
    if "audio" in batch:
        batch["audio"][3, 5] = np.inf
    else:  # codes are whole numbers: break a parameter
        params = jax.tree.map(np.copy, params)
        params["token"][7, 2] = np.nan
    before = jax.tree.map(np.array, new_state(params=params))
    after, metrics = step(new_state(params=params), put_batch(mesh, batch))
    assert int(after.step) == 1 and float(metrics["skipped"]) == 1
    assert all(float(value) == 0 for name, value in metrics.items() if name != "skipped")
    jax.tree.map(np.testing.assert_array_equal, after._replace(step=before.step), before)
    _, metrics = step(new_state(), put_batch(mesh, batches(experiment)[0]))
    assert float(metrics["skipped"]) == 0 and float(metrics["loss"]) > 0


@pytest.mark.parametrize(
    ("experiment", "parts", "name"),
    [
        pytest.param(CROSS, 2, None, marks=pytest.mark.slow),
        (DENSE, 2, None),
        (VQVAE, 4, None),
        (VQVAE, 2, "data4"),
        (RENDERER, 2, None),
    ],
    ids=["cross", "dense", "vqvae", "vqvae-meshed", "renderer"],
)
def test_microbatches_do_what_the_whole_batch_does(run, start, experiment, parts, name):
    train = replace(experiment.train, accumulate=parts)
    mesh = make_mesh(MeshConfig(data=4 if name else 1), jax.devices()[: 4 if name else 1])
    other = replace(experiment, train=train)
    task = make_task(other)
    step = make_train_step(task, other, mesh)
    shapes = abstract_state(task, other, mesh)
    state = jax.tree.map(lambda x, s: jax.device_put(x, s.sharding), start(experiment), shapes)
    for batch, (expected, wanted) in zip(batches(experiment), run(experiment, None), strict=True):
        state, metrics = step(state, put_batch(mesh, batch))
        assert metrics.keys() == wanted.keys()
        for key, value in wanted.items():
            assert float(metrics[key]) == pytest.approx(value, rel=1e-4, abs=1e-5), key
        for part in ("params", "ema", "extra"):  # codebooks and their restarts too
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
                getattr(state, part),
                getattr(expected, part),
            )


@pytest.mark.parametrize("experiment", [DENSE, VQVAE], ids=["dense", "vqvae"])
def test_microbatches_bound_evaluation_and_the_first_state_too(start, experiment):
    """Equal numbers, and less temporary memory."""
    mesh = make_mesh(MeshConfig(data=2), jax.devices()[:2])
    whole, cut = (replace(experiment, train=replace(TRAIN, accumulate=n)) for n in (1, 4))
    batch, state = put_batch(mesh, batches(experiment)[0]), start(experiment)
    metrics, memory = [], []
    for e in (whole, cut):
        step = jit_eval_step(make_task(e), e)
        with jax.set_mesh(mesh):
            metrics.append(step(state, batch))
            memory.append(step.lower(state, batch).compile().memory_analysis().temp_size_in_bytes)
    assert metrics[0].keys() == metrics[1].keys()
    for name, value in metrics[0].items():
        assert float(metrics[1][name]) == pytest.approx(float(value), rel=1e-5), name
    assert memory[1] < 0.6 * memory[0]
    first, later = (create_state(make_task(e), e, mesh, batch).extra for e in (whole, cut))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), first, later)


def test_microbatches_bound_the_encoding_that_codebooks_are_drawn_from():
    memory = []
    for parts in (1, 4):
        model = replace(VQVAE.model, width=64)  # activations larger than the vectors
        task = make_task(replace(VQVAE, model=model, train=replace(TRAIN, accumulate=parts)))
        params = jax.eval_shape(task.init, jax.random.key(0))
        extra = jax.jit(task.extra).lower(jax.random.key(1), nn.unbox(params), batches(VQVAE)[0])
        memory.append(extra.compile().memory_analysis().temp_size_in_bytes)
    assert memory[1] < 0.5 * memory[0]
