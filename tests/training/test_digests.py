"""A checkpoint that a disk or a copy damaged is never read as weights."""

import json
import shutil
import zlib

import jax
import numpy as np
import pytest

from jukejax.errors import DamagedCheckpoint, JukejaxError
from jukejax.training import digests
from jukejax.training.checkpoint import (
    Checkpoints,
    directory,
    load_experiment,
    open_existing,
    save_mapped,
)

ARRAY = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
SHAPES = {"params": {"w": jax.ShapeDtypeStruct(ARRAY.shape, ARRAY.dtype)}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run with checkpoints at steps 1 to 3, the second and third with a held-out loss."""
    folder = tmp_path_factory.mktemp("run")
    with Checkpoints(folder) as checkpoints:
        for step in (1, 2, 3):
            loss = None if step == 1 else {"loss": 1 / step}
            checkpoints.save(step, {"params": {"w": step * ARRAY}}, {"step": step}, loss)
    return folder


@pytest.fixture
def run(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def array_file(run, step):
    return max((directory(run) / str(step) / "params").rglob("*"), key=lambda p: p.stat().st_size)


def change(path, at, kind):
    data = bytearray(path.read_bytes())
    if kind == "bit":
        data[at] ^= 1 << at % 8
    elif kind == "zeros":
        data[at : at + 64] = bytes(64)
    elif kind == "cut":
        del data[at:]
    path.write_bytes(data)


def restored(run):
    with open_existing(run) as checkpoints:
        return np.asarray(checkpoints.restore(SHAPES)["params"]["w"])


def test_digests_are_the_crc_32_of_each_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "PIECE", 5 << 20)
    data = np.random.default_rng(0).bytes((12 << 20) + 7)
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "w").write_bytes(data)
    digests.write_digests(tmp_path)
    pieces = [data[k : k + digests.PIECE] for k in range(0, len(data), digests.PIECE)]
    written = json.loads((tmp_path / digests.NAME).read_text())
    assert written == {"params/w": {"bytes": len(data), "crc32": list(map(zlib.crc32, pieces))}}


def test_a_whole_checkpoint_is_restored(run):
    np.testing.assert_array_equal(restored(run), 3 * ARRAY)


@pytest.mark.parametrize("kind", ["bit", "zeros", "cut"])
@pytest.mark.parametrize("at", [700, 5000, 9001])
def test_damaged_arrays_are_refused(run, at, kind):
    change(array_file(run, 3), at, kind)
    with pytest.raises(DamagedCheckpoint, match=r"checkpoints/3 is damaged: .*use step 2") as error:
        restored(run)
    assert array_file(run, 3).name in str(error.value) and digests.SKIP in str(error.value)


def test_a_bit_in_any_file_is_seen_or_does_no_harm(run):
    """Each file of a step, the store's own notes too: the same arrays, or a refusal."""
    whole = directory(run) / "3"
    paths = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    rng = np.random.default_rng(1)
    refused = 0
    for name in paths:
        original = (whole / name).read_bytes()
        change(whole / name, int(rng.integers(len(original))), "bit")
        try:
            np.testing.assert_array_equal(restored(run), 3 * ARRAY)
        except DamagedCheckpoint:
            refused += 1
        (whole / name).write_bytes(original)
    assert refused >= sum(name.parts[0] == "params" for name in paths) > 2


def test_damaged_losses_can_be_removed(run):
    losses = directory(run) / "3/metrics"
    change(losses / "metrics", 3, "bit")
    with pytest.raises(DamagedCheckpoint, match=f"Remove the folder {losses}; it has the held-out"):
        restored(run)
    shutil.rmtree(losses)
    np.testing.assert_array_equal(restored(run), 3 * ARRAY)


def test_a_missing_file_is_seen(run):
    path = array_file(run, 3)
    path.unlink()
    with pytest.raises(DamagedCheckpoint, match=f"{path.name} is missing"):
        restored(run)


def test_a_changed_config_is_seen(run):
    path = directory(run) / "3" / "config" / "metadata"
    path.write_text(json.dumps({"step": 4}))
    with (
        open_existing(run) as checkpoints,
        pytest.raises(DamagedCheckpoint, match="the bytes of config/metadata are not those"),
    ):
        checkpoints.config()


def test_the_comparison_can_be_skipped(run, monkeypatch):
    path = directory(run) / "3" / "config" / "metadata"
    path.write_text(json.dumps({"step": 4}))
    monkeypatch.setenv(digests.SKIP, "1")
    with open_existing(run) as checkpoints:
        assert checkpoints.config() == {"step": 4}


def test_a_run_moves_damaged_checkpoints_away_and_continues_from_a_whole_one(run):
    for step in (2, 3):
        change(array_file(run, step), 5000, "bit")
    lines = []
    with Checkpoints(run, clean=True) as checkpoints:
        checkpoints.set_aside_damaged(lines.append)
        assert checkpoints.latest == 1
        np.testing.assert_array_equal(checkpoints.restore(SHAPES)["params"]["w"], ARRAY)
        checkpoints.save(3, {"params": {"w": 3 * ARRAY}}, {"step": 3})
    assert [line.split(" is damaged")[0][-2:] for line in lines] == ["/3", "/2"]
    assert lines[1].endswith(f"It is now {run}/damaged/2; continuing from step 1.")
    np.testing.assert_array_equal(restored(run), 3 * ARRAY)
    change(array_file(run, 3), 5000, "bit")
    with Checkpoints(run, clean=True) as checkpoints:
        checkpoints.set_aside_damaged(lines.append)
    assert sorted(p.name for p in (run / "damaged").iterdir()) == ["2", "3", "3-1"]


def test_the_only_checkpoint_is_not_moved(run):
    for step in (1, 2):
        shutil.rmtree(directory(run) / str(step))
    change(array_file(run, 3), 5000, "bit")
    with (
        Checkpoints(run, clean=True) as checkpoints,
        pytest.raises(DamagedCheckpoint, match="Replace it by a copy, or set"),
    ):
        checkpoints.set_aside_damaged(print)
    assert not (run / "damaged").exists()


def test_a_checkpoint_without_digests_is_restored(run):
    """Those of earlier versions have none."""
    (directory(run) / "3" / digests.NAME).unlink()
    np.testing.assert_array_equal(restored(run), 3 * ARRAY)


def test_each_piece_of_a_large_file_is_compared(run, monkeypatch):
    monkeypatch.setattr(digests, "PIECE", 1000)
    step = directory(run) / "3"
    digests.write_digests(step)
    assert not digests.damage(step, ["params"])
    size = array_file(run, 3).stat().st_size
    for at in (0, 999, 1000, size - 1):
        change(array_file(run, 3), at, "bit")
        assert array_file(run, 3).name in digests.damage(step, ["params"])
        change(array_file(run, 3), at, "bit")


def test_weights_that_are_exported_are_compared(tmp_path):
    save_mapped(tmp_path, 5, {"ema": {"w": ARRAY}}, {})
    path = max((directory(tmp_path) / "5/ema").rglob("*"), key=lambda p: p.stat().st_size)
    change(path, 5000, "bit")
    with (
        open_existing(tmp_path) as checkpoints,
        pytest.raises(DamagedCheckpoint, match="/5 is damaged"),
        checkpoints.ema_reader() as read,
    ):
        read([("w",)])


@pytest.mark.parametrize("text", ["[", "\0", "[]", "{}", '{"experiment": {"type": []}}'])
def test_a_damaged_config_without_digests_is_a_sentence(run, text):
    """Of a checkpoint of an earlier version."""
    (directory(run) / "3" / digests.NAME).unlink()
    (directory(run) / "3/config/metadata").write_text(text)
    with pytest.raises(JukejaxError, match="replace the checkpoint by a copy") as error:
        load_experiment(run)
    assert str(run) in str(error.value)
