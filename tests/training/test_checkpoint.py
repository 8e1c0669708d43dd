"""Checkpoints: saved trees are restored onto any mesh; what does not fit is an error."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jukejax.config import MeshConfig
from jukejax.errors import CheckpointError
from jukejax.parallel.mesh import make_mesh
from jukejax.training.checkpoint import Checkpoints, directory, open_existing

# Orbax does not await the reads of a checkpoint that does not fit, and Python warns of that.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def swept():
    """Python's warnings come in the test that caused them."""
    yield
    gc.collect()


def trees(seed=0):
    rng = np.random.default_rng(seed)
    params = {"kernel": jnp.asarray(rng.normal(size=(8, 4)), jnp.float32), "bias": jnp.ones(3)}
    return {
        "params": params,
        "ema": jax.tree.map(lambda x: 2 * x, params),
        "opt_state": (jnp.int32(7), params),
        "extra": {},
    }


def abstract(tree, spec=None, mesh=None):
    sharding = NamedSharding(mesh or make_mesh(MeshConfig(), jax.devices()[:1]), spec or P())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run saved at steps 1 to 3, of which two are kept."""
    folder = tmp_path_factory.mktemp("run")
    with Checkpoints(folder, keep=2) as checkpoints:
        assert checkpoints.latest is None
        for step in (1, 2, 3):
            checkpoints.save(step, trees(step), {"experiment": {"width": step}, "note": "x"})
        checkpoints.save(3, trees(9), {"experiment": {}})  # ignored: step 3 is saved already
        checkpoints.wait()
    return folder


def test_the_latest_is_restored(workdir):
    with open_existing(workdir) as checkpoints:
        assert checkpoints.latest == 3
        found = checkpoints.restore(abstract(trees()))
        assert checkpoints.config() == {"experiment": {"width": 3}, "note": "x"}
    jax.tree.map(np.testing.assert_array_equal, found, trees(3))
    assert jax.tree.structure(found) == jax.tree.structure(trees(3))


def test_a_given_step_is_restored_and_old_ones_are_deleted(workdir):
    with open_existing(workdir) as checkpoints:
        found = checkpoints.restore(abstract({"params": trees()["params"]}), step=2)
        assert checkpoints.config(2)["experiment"] == {"width": 2}
    assert set(found) == {"params"}  # items can be read alone
    jax.tree.map(np.testing.assert_array_equal, found["params"], trees(2)["params"])
    assert sorted(p.name for p in directory(workdir).iterdir()) == ["2", "3"]


def test_restoring_onto_another_mesh(workdir):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    kernel = trees()["params"]["kernel"]
    wanted = {"params": {**abstract({"bias": jnp.ones(3)}, P(), mesh)}}
    wanted["params"]["kernel"] = abstract(kernel, P("fsdp", "tensor"), mesh)
    with open_existing(workdir) as checkpoints:
        found = checkpoints.restore(wanted)["params"]
    np.testing.assert_array_equal(found["kernel"], trees(3)["params"]["kernel"])
    assert len(found["kernel"].sharding.device_set) == 8
    assert found["kernel"].addressable_shards[0].data.shape == (4, 2)
    assert found["bias"].sharding.is_fully_replicated


@pytest.mark.parametrize(
    "params",
    [
        {"kernel": jnp.ones((8, 5)), "bias": jnp.ones(3)},
        {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(3)},
        {"kernel": jnp.ones((8, 4)), "scale": jnp.ones(3)},
        {"kernel": jnp.ones((8, 4))},
        {"kernel": jnp.ones((8, 4)), "bias": jnp.ones(3), "scale": jnp.ones(3)},
    ],
    ids=["wider", "shorter", "renamed", "fewer", "more"],
)
def test_a_checkpoint_of_another_model_is_an_error(workdir, params, swept):
    with (
        open_existing(workdir) as checkpoints,
        pytest.raises(CheckpointError, match="does not fit this model") as error,
    ):
        checkpoints.restore(abstract({"params": params}))
    assert f"{directory(workdir)}/3" in str(error.value)


def test_an_item_that_was_not_saved_is_an_error(workdir):
    with (
        open_existing(workdir) as checkpoints,
        pytest.raises(CheckpointError, match="does not fit"),
    ):
        checkpoints.restore(abstract({"extra": {"codes": jnp.ones(3)}}))


def test_a_folder_without_checkpoints_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="is not a training run \\(no folder checkpoints\\)"):
        open_existing(tmp_path)
    assert not list(tmp_path.iterdir())
    with Checkpoints(tmp_path) as checkpoints:
        for read in (checkpoints.config, lambda: checkpoints.restore(abstract(trees()))):
            with pytest.raises(CheckpointError, match="has no complete checkpoint; train there"):
                read()


def test_an_interrupted_save_is_no_checkpoint(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, trees(1), {})
    whole = directory(tmp_path) / "1"
    cut = directory(tmp_path) / "2.orbax-checkpoint-tmp"
    cut.mkdir()
    (cut / "params").symlink_to(whole / "params")
    with open_existing(tmp_path) as checkpoints:
        assert checkpoints.latest == 1


# --- the best -------------------------------------------------------------------------------------


@pytest.fixture
def scored(tmp_path):
    """A run of which the latest and the two best are kept; steps 2, 4 and 6 were evaluated."""
    losses = {1: None, 2: 0.5, 3: None, 4: 0.4, 5: None, 6: 0.7, 7: None}
    with Checkpoints(tmp_path, keep=1, keep_best=2) as checkpoints:
        assert checkpoints.best is None
        for step, loss in losses.items():
            metrics = None if loss is None else {"loss": loss, "other": 1.0}
            checkpoints.save(step, trees(step), {"step": step}, metrics)
        checkpoints.save(8, trees(8), {"step": 8}, {"loss": float("nan")})
    return tmp_path


def test_the_best_are_kept_beside_the_latest(scored):
    assert sorted(p.name for p in directory(scored).iterdir()) == ["2", "4", "8"]
    with open_existing(scored) as checkpoints:
        assert (checkpoints.latest, checkpoints.best) == (8, 4)
        found = checkpoints.restore(abstract({"ema": trees()["ema"]}), step=checkpoints.best)
    jax.tree.map(np.testing.assert_array_equal, found["ema"], trees(4)["ema"])


def test_the_best_stay_the_best_when_a_run_continues(scored):
    with Checkpoints(scored, keep=1, keep_best=2) as checkpoints:
        checkpoints.save(9, trees(9), {}, {"loss": 0.45})
        checkpoints.save(10, trees(10), {}, {"loss": 0.9})
    assert sorted(p.name for p in directory(scored).iterdir()) == ["10", "4", "9"]


# --- interrupted saves --------------------------------------------------------------------------


def test_remains_of_an_interrupted_save_are_removed_only_by_the_run(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, trees(1), {})
    cut = directory(tmp_path) / "2.orbax-checkpoint-tmp"
    cut.mkdir()
    (cut / "half").write_text("a file")
    with open_existing(tmp_path) as checkpoints:  # another process may be writing it
        assert checkpoints.latest == 1 and cut.exists()
    with Checkpoints(tmp_path, clean=True) as checkpoints:
        checkpoints.save(2, trees(2), {})
        checkpoints.wait()
        assert not cut.exists()
        found = checkpoints.restore(abstract(trees()))
    jax.tree.map(np.testing.assert_array_equal, found, trees(2))
