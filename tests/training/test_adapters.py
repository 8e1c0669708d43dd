"""Training adapters: the base stays, a resumed run is the same, and a file of them is a prior."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest
import tiny_model

from jukejax.config import MeshConfig, OptimizerConfig, PriorExperiment, TrainConfig
from jukejax.errors import CheckpointError, DamagedCheckpoint
from jukejax.models import lora
from jukejax.models.prior import example_batch
from jukejax.parallel.mesh import make_mesh
from jukejax.training import adapters
from jukejax.training.checkpoint import load_experiment, open_existing
from jukejax.training.loop import Run, train
from jukejax.training.step import abstract_state
from jukejax.training.tasks import make_task

LABELS = dataclasses.replace(tiny_model.TOP.labels, artists=4)  # one more than the base has
EXPERIMENT = PriorExperiment(
    model=dataclasses.replace(tiny_model.TOP, labels=LABELS),
    lora=2,
    optimizer=OptimizerConfig(learning_rate=0.02, warmup_steps=1),
    train=TrainConfig(
        steps=6, batch=8, ema_decay=0.5, log_every=1, evaluate_every=6, checkpoint_every=3
    ),
    mesh=MeshConfig(fsdp=2),
)  # fmt: skip


def batches(step):
    for n in itertools.count(step):
        rng = np.random.default_rng(n)
        zeros = example_batch(EXPERIMENT.model, 8)
        yield {name: rng.integers(0, 4, x.shape).astype(np.int32) for name, x in zeros.items()}


def run(base, workdir, steps=6):
    experiment = dataclasses.replace(
        EXPERIMENT, train=dataclasses.replace(EXPERIMENT.train, steps=steps)
    )
    mesh = make_mesh(experiment.mesh)
    return Run(experiment, mesh, workdir, batches, start_from=base, log=lambda line: None)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters") / "base"
    tiny_model.save(folder, PriorExperiment(model=tiny_model.TOP), {"run": "a", "fingerprint": "f"})
    return folder


@pytest.fixture(scope="module")
def trained(base):
    """A workdir, and the state after its last step; the adapters are written."""
    workdir = base.with_name("tuned")
    state = train(run(base, workdir))
    adapters.write(workdir, base, EXPERIMENT, state.ema, load_experiment(workdir)[1])
    return workdir, state


def whole():
    experiment = dataclasses.replace(EXPERIMENT, lora=0)
    return abstract_state(make_task(experiment), experiment, make_mesh(experiment.mesh))


def test_only_adapters_are_trained_and_saved(trained, base):
    workdir, state = trained
    with open_existing(base) as weights:
        shapes = {"ema": abstract_state(*_task(tiny_model.TOP)).ema}
        stored = weights.restore(shapes)["ema"]
    frozen = state.extra["base"]
    for keys, leaf in jax.tree_util.tree_leaves_with_path(stored):
        now = frozen
        for key in keys:
            now = now[key.key]
        np.testing.assert_array_equal(np.asarray(now)[: len(leaf)], leaf)
    moments = sum(x.size for x in jax.tree.leaves(state.opt_state) if x.ndim)
    assert moments == 2 * sum(x.size for x in jax.tree.leaves(state.params))
    moved = jax.tree.map(lambda x: float(abs(x).max()), state.params)
    assert all(adapter > 0 for adapter in jax.tree.leaves(moved))
    step = workdir / "checkpoints" / "6"
    assert not (step / "extra").exists() and (step / "ema").exists()


def _task(config):
    experiment = PriorExperiment(model=config, mesh=EXPERIMENT.mesh)
    return make_task(experiment), experiment, make_mesh(experiment.mesh)


def test_a_resumed_run_is_the_uninterrupted_one(trained, base):
    _, state = trained
    train(run(base, base.with_name("resumed"), steps=3))
    again = train(run(base, base.with_name("resumed")))
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_the_file_is_read_as_the_merged_prior(trained):
    workdir, state = trained
    path = workdir / adapters.NAME
    experiment, note = load_experiment(path)
    assert experiment == dataclasses.replace(EXPERIMENT, lora=0) and note["step"] == 6
    wanted = lora.into(state.extra["base"], state.ema)
    with open_existing(path) as weights:
        merged = weights.restore({"ema": whole().ema, "extra": {}})["ema"]
        assert weights.ema_shapes() == jax.tree.map(np.shape, wanted)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), merged, wanted
        )
        with weights.ema_reader() as read:
            for name in (
                ("stack", "run_0", "layer_0", "qkv", "kernel"),
                ("labels", "artist"),
                ("token",),
            ):
                (array,) = read([name])
                leaf = merged
                for part in name:
                    leaf = leaf[part]
                np.testing.assert_allclose(array, leaf, rtol=1e-6, atol=1e-7)
    assert path.stat().st_size < 16_000 + sum(4 * x.size for x in jax.tree.leaves(state.ema))


def test_other_weights_and_damage_are_refused(trained, base, tmp_path):
    workdir, _ = trained
    for name in (adapters.NAME, adapters.PLACE):
        (tmp_path / name).write_bytes((workdir / name).read_bytes())
    path, place = tmp_path / adapters.NAME, tmp_path / adapters.PLACE
    value = json.loads(place.read_text())
    ema = {"ema": whole().ema}

    def refusal(base):
        place.write_text(json.dumps(value | {"base": str(base)}))
        with pytest.raises(CheckpointError) as error, open_existing(path) as weights:
            weights.restore(ema)
        return str(error.value)

    assert "cannot be read" in refusal(tmp_path / "nothing")
    experiment = PriorExperiment(model=tiny_model.TOP)
    tiny_model.save(tmp_path / "other", experiment, {"fingerprint": "f"}, scale=0.4)
    assert "changes other weights than those in" in refusal(tmp_path / "other")
    place.write_text(json.dumps(value | {"base": str(base)}))
    with open_existing(path) as weights:
        weights.restore(ema)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedCheckpoint, match="is damaged: its SHA-256"):
        open_existing(path)
