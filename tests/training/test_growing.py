"""Starting from weights with fewer label names: logits of known names do not change by a bit."""

from dataclasses import replace

import jax
import numpy as np
import oracle
import pytest

from jukejax.config import LabelsConfig, MeshConfig, PriorConfig, PriorExperiment
from jukejax.errors import CheckpointError
from jukejax.models.prior import Prior
from jukejax.parallel.mesh import make_mesh
from jukejax.training.checkpoint import Checkpoints, open_existing
from jukejax.training.growing import restore_grown
from jukejax.training.step import abstract_state
from jukejax.training.tasks import make_task

LABELS = LabelsConfig(artists=3, genres=5, max_genres=2, timing_bins=4, years=3)
SMALL = PriorExperiment(
    PriorConfig(codes=16, n_ctx=16, width=8, depth=3, blocks=4, labels=LABELS),
    mesh=MeshConfig(fsdp=4),
)
GROWN = replace(LABELS, artists=7, genres=6, years=4, tags=3, max_tags=2)
LARGE = replace(SMALL, model=replace(SMALL.model, labels=GROWN))


def abstract(experiment):
    mesh = make_mesh(experiment.mesh)
    return {"ema": abstract_state(make_task(experiment), experiment, mesh).ema}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """(workdir, parameters) of the small model."""
    workdir = tmp_path_factory.mktemp("small")
    params = oracle.random_params(lambda key: abstract(SMALL)["ema"], scale=0.5)
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(1, {"ema": params}, {})
    return workdir, params


@pytest.fixture(scope="module")
def grown(weights):
    with open_existing(weights[0]) as checkpoints:
        found = restore_grown(checkpoints, abstract(LARGE))["ema"]
    for leaf, wanted in zip(
        jax.tree.leaves(found), jax.tree.leaves(abstract(LARGE)["ema"]), strict=True
    ):
        assert leaf.shape == wanted.shape and leaf.sharding == wanted.sharding
    return jax.tree.map(np.asarray, found)


def logits(experiment, params, artist, genres, year, **tags):
    n = len(artist)
    batch = {
        "codes": np.random.default_rng(0).integers(0, 16, (n, 16)).astype(np.int32),
        "artist": np.array(artist, np.int32), "genres": np.array(genres, np.int32),
        "total_length": np.full(n, 5_000_000, np.int32), "offset": np.zeros(n, np.int32),
        "year": np.array(year, np.int32), **tags,
    }  # fmt: skip
    module = Prior(experiment.model)
    return np.asarray(jax.jit(lambda p, b: module.apply({"params": p}, b)[0])(params, batch))


NONE = {"tags": np.array([[0, -1]] * 6, np.int32)}


def test_logits_of_old_names_stay_bit_for_bit(weights, grown):
    old = [0, 1, 2, 2, 1, 0], [[i % 5, -1 if i < 3 else i - 2] for i in range(6)], [0, 1, 2] * 2
    before = logits(SMALL, weights[1], *old)
    np.testing.assert_array_equal(logits(LARGE, grown, *old, **NONE), before)
    # a table that was missing adds nothing, whatever the tags are
    tags = {"tags": np.array([[1, 2]] * 6, np.int32)}
    np.testing.assert_array_equal(logits(LARGE, grown, *old, **tags), before)


def test_new_names_start_as_unknown(grown):
    new = logits(LARGE, grown, [3, 4, 5, 6, 0, 0], [[0, -1]] * 4 + [[5, -1]] * 2, [0] * 5 + [3],
                 **NONE)  # fmt: skip
    unknown = logits(LARGE, grown, [0] * 6, [[0, -1]] * 6, [0] * 6, **NONE)
    np.testing.assert_array_equal(new, unknown)


def test_tables_do_not_shrink(weights):
    fewer = replace(SMALL, model=replace(SMALL.model, labels=replace(LABELS, artists=2)))
    with open_existing(weights[0]) as checkpoints, pytest.raises(CheckpointError, match="not fit"):
        restore_grown(checkpoints, abstract(fewer))
