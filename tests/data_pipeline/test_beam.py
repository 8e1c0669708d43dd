"""The same shards by an Apache Beam pipeline."""

import importlib.util

import pytest

from data_pipeline import plan, prepare
from data_pipeline.plan import Options
from jukejax.errors import DataError

OPTIONS = Options(min_seconds=0.25)
EMBEDDED = ["--job_endpoint=embed", "--environment_type=LOOPBACK"]
needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None, reason="needs the extra 'beam'"
)


def contents(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def build(manifest, out, **beam):
    return prepare.build(manifest, out, options=OPTIONS, show_progress=False, **beam)


@pytest.fixture
def many_shards(monkeypatch):
    monkeypatch.setattr(plan, "_SHORTEST", 0.1)
    monkeypatch.setattr(plan, "_SHARDS", 10_000)


@pytest.mark.slow
@needs_beam
@pytest.mark.parametrize(("runner", "flags"), [("DirectRunner", []), ("PortableRunner", EMBEDDED)])
def test_a_pipeline_writes_the_same_bytes(library, tmp_path, many_shards, runner, flags):
    build(library[0], tmp_path / "plain")
    build(library[0], tmp_path / "beam", pipeline=[runner, *flags])
    assert contents(tmp_path / "beam") == contents(tmp_path / "plain")
    # what a killed pipeline leaves: the other one finishes it, and a third has nothing to do
    lost = [*tmp_path.glob("beam/shards/*.json")][2]
    lost.unlink()
    (tmp_path / "beam" / "plan.json").unlink()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("beam/shards/*.json")}
    build(library[0], tmp_path / "beam", pipeline=[runner, *flags])
    assert contents(tmp_path / "beam") == contents(tmp_path / "plain")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert build(library[0], tmp_path / "beam", pipeline=[runner, *flags]).up_to_date


@needs_beam
def test_a_runner_that_is_none(library, tmp_path):
    with pytest.raises(DataError, match="NoRunner"):
        build(library[0], tmp_path / "out", pipeline=["NoRunner"])


@pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is not None, reason="the extra 'beam' is installed"
)
def test_without_beam_the_extra_is_named(library, tmp_path):
    with pytest.raises(DataError, match=r"\.\[beam\]"):
        build(library[0], tmp_path / "out", pipeline=["DirectRunner"])
