"""Starting on many hosts: who says so, and what is missing where nobody does clearly."""

import socket
from pathlib import Path

import pytest

from jukejax.config import ConfigError, MeshConfig
from jukejax.parallel import distributed
from jukejax.parallel.distributed import Agreement, check_shared, find_cluster
from jukejax.parallel.mesh import make_mesh

VARIABLES = {
    "JAX_COORDINATOR_ADDRESS": "h0:1234",
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "0",
}
SLURM = {"SLURM_NTASKS": "16", "SLURM_PROCID": "3", "SLURM_STEP_NODELIST": "node[01-02]"}
GKE = {"TPU_WORKER_HOSTNAMES": "a-0,a-1", "TPU_WORKER_ID": "1"}


@pytest.mark.parametrize(
    ("environ", "tpu", "found"),
    [
        ({}, False, None),
        (VARIABLES, False, "variables"),
        (VARIABLES | SLURM, False, "variables"),  # said outright
        (SLURM, False, "slurm"),
        (SLURM | {"SLURM_NTASKS": "1"}, False, None),
        (GKE, True, "gketpu"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False, None),  # one host
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, True, None),
        (
            {"TPU_WORKER_HOSTNAMES": "a", "TPU_WORKER_ID": "0", "MEGASCALE_NUM_SLICES": "2"},
            True,
            "gketpu",
        ),
        ({}, True, "gcetpu"),
        ({"TPU_SKIP_MDS_QUERY": "1"}, True, None),
    ],
)
def test_who_tells_the_processes_of_each_other(environ, tpu, found):
    assert find_cluster(environ, tpu) == found


@pytest.mark.parametrize("missing", VARIABLES)
def test_a_variable_that_is_missing_is_named(missing):
    some = {name: value for name, value in VARIABLES.items() if name != missing}
    with pytest.raises(ConfigError, match=rf"is set, but not {missing} \(.*set all three"):
        find_cluster(some, False)


def test_slurm_without_srun_is_refused():
    with pytest.raises(ConfigError, match="16 tasks, but the command was not started by srun"):
        find_cluster({"SLURM_NTASKS": "16", "SLURM_PROCID": "0"}, False)


def test_a_pod_without_its_number_is_refused():
    with pytest.raises(ConfigError, match="TPU_WORKER_ID does not say which"):
        find_cluster({"TPU_WORKER_HOSTNAMES": "a-0,a-1"}, True)


@pytest.mark.parametrize(
    ("platforms", "chips", "found"),
    [("", True, True), ("tpu", True, True), ("cpu", True, False), ("", False, False)],
)
def test_chips_count_where_jax_may_use_them(monkeypatch, platforms, chips, found):
    monkeypatch.setattr(
        distributed, "glob", lambda pattern: ["/dev/vfio/0"] if chips and "vfio" in pattern else []
    )
    monkeypatch.setattr(distributed.importlib.util, "find_spec", lambda name: name == "libtpu")
    assert distributed.tpu_here({"JAX_PLATFORMS": platforms}) is found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"JAX_PROCESS_ID": "2"}, "process_id"),
        ({"JAX_NUM_PROCESSES": "two"}, "two"),
    ],
)
def test_variables_that_cannot_be_are_refused(monkeypatch, change, words):
    for name, value in (VARIABLES | change).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed.jax._src.xla_bridge, "backends_are_initialized", lambda: False)
    with pytest.raises(ConfigError, match=rf"did not find each other \(variables\).*{words}"):
        distributed.start()


def test_alone_nothing_is_started_and_agreements_are_ones_own(monkeypatch):
    for name in [*VARIABLES, *SLURM, *GKE]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(distributed.jax.distributed, "initialize", lambda *_, **__: pytest.fail())
    distributed.start()
    agree = Agreement(make_mesh(MeshConfig()))
    assert [agree(n) for n in (0, 2, 1)] == [0, 2, 1]


def test_a_bucket_is_no_folder(tmp_path):
    for bucket in ("gs://bucket/run", Path("gs://bucket/run")):
        with pytest.raises(ConfigError, match=r"gs:/+bucket/run is not a folder; mount"):
            check_shared(bucket)
    check_shared(tmp_path / "any")
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_in_use_is_refused_before_jax_starts(monkeypatch):
    monkeypatch.setattr(distributed.jax.distributed, "initialize", lambda *_, **__: pytest.fail())
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        for name, value in zip(distributed.VARIABLES, (f"127.0.0.1:{port}", "2", "0"), strict=True):
            monkeypatch.setenv(name, value)
        with pytest.raises(ConfigError, match=f"Port {port} of .* is used by another program"):
            distributed.start()
    begun = []
    monkeypatch.setattr(distributed.jax.distributed, "initialize", lambda *a, **_: begun.append(a))
    distributed.start()  # it is free again
    assert begun == [(f"127.0.0.1:{port}", 2, 0)]
