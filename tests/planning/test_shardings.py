"""The kept texts of shardings: up to date, and those of a state on real devices."""

from pathlib import Path

import jax
import pytest

from jukejax.parallel.mesh import make_mesh
from jukejax.planning import shardings
from jukejax.planning.table import Entry
from jukejax.training.step import create_state
from jukejax.training.tasks import make_task

FOLDER = Path(__file__).parents[2] / "experiments" / "plans"
ENTRIES = shardings.entries()


@pytest.mark.parametrize("name", ENTRIES)
def test_kept_shardings_have_not_drifted(name):
    kept = shardings.path(FOLDER, name).read_text()
    assert shardings.text(ENTRIES[name]) == kept, (
        "run `jukejax compile shardings` and commit what changed."
    )


def test_there_is_a_file_for_every_preset_and_mesh(tmp_path, monkeypatch):
    kept = {path.stem for path in shardings.path(FOLDER, "x").parent.iterdir()}
    assert kept == set(ENTRIES)
    assert "prior_5b-4x64x1" in kept and "prior_5b-1x1x4" in kept
    few = {"demo_prior-1x4x1": ENTRIES["demo_prior-1x4x1"]}
    monkeypatch.setattr(shardings, "entries", lambda: few)
    shardings.regenerate(tmp_path)
    (written,) = (tmp_path / "shardings").iterdir()
    assert written.read_text() == shardings.path(FOLDER, "demo_prior-1x4x1").read_text()


def test_the_text_is_of_the_arrays_on_devices():
    entry = Entry("demo_prior", "v5e:2x2", fsdp=2, tensor=2)
    experiment = entry.experiment()
    task = make_task(experiment)
    mesh = make_mesh(experiment.mesh, jax.devices()[:4])
    state = create_state(task, experiment, mesh, task.example(2))
    lines = shardings.text(entry).splitlines()
    assert lines[0] == "demo_prior on data 1 x fsdp 2 x tensor 2, an example for every device"
    rows = [" ".join(line.split()) for line in lines]
    for path, x in jax.tree.leaves_with_path(state.params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        (row,) = (row for row in rows if row.startswith(name + " "))
        assert row.startswith(f"{name} float32 {x.shape} (")
        assert row.endswith(f") {x.addressable_shards[0].data.shape}")
    assert lines[lines.index("ema") + 1] == "  as params"
    assert lines[lines.index("opt_state") + 1 :][:2] == ["  as params"] * 2
