"""Multi-process runs: start, agreement on a number, a shared folder.

Every process runs the same command. `start` reads from the environment whether there are several.
In a single process nothing is started, and the functions below return at once.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import re
import secrets
import socket
from collections.abc import Iterator, Mapping
from glob import glob
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jukejax import locks
from jukejax.errors import ConfigError, FolderInUse, JukejaxError

VARIABLES = {
    "JAX_COORDINATOR_ADDRESS": "host:port of process 0",
    "JAX_NUM_PROCESSES": "how many processes there are",
    "JAX_PROCESS_ID": "which of them this is, from 0",
}
WAIT = 300  # seconds until all processes must have started


def find_cluster(environ: Mapping[str, str], tpu_here: bool) -> str | None:
    """Where the cluster is described: "variables", "slurm", "gketpu", "gcetpu"; None: one process.

    Args:
      environ: the environment's variables.
      tpu_here: whether this machine has TPU chips that JAX may use.

    Raises:
      ConfigError: the environment describes several processes, but incompletely.
    """
    given = {name for name in VARIABLES if environ.get(name)}
    if given:
        missing = [f"{name} ({VARIABLES[name]})" for name in VARIABLES if name not in given]
        if missing:
            raise ConfigError(
                f"{' and '.join(sorted(given))} is set, but not {' and '.join(missing)}; set all "
                "three in every process, or none."
            )
        return "variables"
    if int(environ.get("SLURM_NTASKS", 1)) > 1:
        if "SLURM_STEP_NODELIST" not in environ:
            raise ConfigError(
                f"SLURM gives this job {environ['SLURM_NTASKS']} tasks, but the command was not "
                "started by srun; put srun in front of it, or unset SLURM_NTASKS to run alone."
            )
        return "slurm"
    names = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES") or ""
    if "," in names or int(environ.get("MEGASCALE_NUM_SLICES", 1)) > 1:
        if "TPU_WORKER_ID" not in environ:
            raise ConfigError(
                f"TPU_WORKER_HOSTNAMES names the hosts {names}, but TPU_WORKER_ID does not say "
                "which of them this is; GKE sets both in pods that request google.com/tpu."
            )
        return "gketpu"
    alone = names or environ.get("TPU_SKIP_MDS_QUERY")  # one host, or no metadata to ask
    return "gcetpu" if tpu_here and not alone else None


def tpu_here(environ: Mapping[str, str]) -> bool:
    """Whether JAX would use TPU chips of this machine."""
    wanted = environ.get("JAX_PLATFORMS") or "tpu"
    chips = glob("/dev/accel[0-9]*") or glob("/dev/vfio/[0-9]*")
    return "tpu" in wanted and bool(chips) and importlib.util.find_spec("libtpu") is not None


def start() -> None:
    """Joins the other processes of this run, if there are any; call it before using jax.

    Raises:
      ConfigError: the environment is incomplete, the coordinator's port is in use, or the other
        processes did not start.
    """
    found = find_cluster(os.environ, tpu_here(os.environ))
    if found is None:
        return
    # the training loop has its own agreement on SIGTERM, which needs no such service
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if found == "variables":
            address, count, index = (os.environ[name] for name in VARIABLES)
            if index == "0":
                _check_port(address)
            jax.distributed.initialize(
                address, int(count), int(index), initialization_timeout=WAIT,
                cluster_detection_method="deactivate",
            )  # fmt: skip
        else:
            jax.distributed.initialize(cluster_detection_method=found, initialization_timeout=WAIT)
    except ConfigError:
        raise
    except (ValueError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"The processes of this run did not find each other ({found}): "
            f"{str(error).splitlines()[0]} Check that all of them were started, that each can "
            "reach process 0, and that there is no proxy between them; a single host with TPUs "
            "that is not a Cloud TPU VM needs TPU_SKIP_MDS_QUERY=1."
        ) from error


def _check_port(address: str) -> None:
    """ConfigError where the coordinator's port is in use on this host: JAX would crash."""
    port = address.rpartition(":")[2]
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of a run that just ended
        try:
            trial.bind(("", int(port)))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"Port {port} of JAX_COORDINATOR_ADDRESS={address} is used by another program "
                    "on this host; end it, or set a free port in every process."
                ) from error
            raise


class Agreement:
    """Maximum over processes of a number per step, known to all of them one step later.

    The maximum is computed on the devices, and read after the next step has been dispatched, so
    devices never wait for the host.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._sharding = NamedSharding(mesh, P(mesh.axis_names))
        whole = NamedSharding(mesh, P())
        self._largest = jax.jit(jnp.max, out_shardings=whole)
        self._size = mesh.size
        self._last: jax.Array | int = 0

    def __call__(self, number: int) -> int:
        """The maximum of the previous call (0 at first); in a single process, of this call."""
        if jax.process_count() == 1:
            return number
        values = jax.make_array_from_callback(
            (self._size,),
            self._sharding,
            lambda index: np.full(self._size, number, np.int32)[index],
        )
        last, self._last = self._last, self._largest(values)
        return int(last)


def gathered(tree: Any) -> Any:
    """Global arrays that every process can read: with several processes, gathered NumPy arrays."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda x: multihost_utils.process_allgather(x, tiled=True), tree)


@contextlib.contextmanager
def writing(folder: str | Path) -> Iterator[None]:
    """Locks a folder that all processes of this run write to; process 0 holds the lock.

    The others wait for it: whoever takes a lock removes temporary files, theirs as well.

    Raises:
      FolderInUse: another run writes there (in every process).
      DiskFull, OSError: it cannot be written (in process 0; FolderInUse in the others).
    """
    refusal: Exception | None = None
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            try:
                stack.enter_context(locks.writing(folder))
            except (JukejaxError, OSError) as error:
                refusal = error
        if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(refusal is not None):
            refusal = refusal or FolderInUse(
                f"{folder}: process 0 could not lock it, and says why."
            )
        if refusal:
            raise refusal
        yield


def together(what: str) -> None:
    """Waits until all processes have called it with the same `what`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def check_folder(folder: str | Path) -> None:
    """Rejects the address of a bucket, which as a path would be a local folder of that name.

    Raises:
      ConfigError: gs://... or the like.
    """
    if re.match(r"\w+:/", str(folder)):  # a Path has lost one of the two slashes
        raise ConfigError(
            f"{folder} is not a folder; mount the bucket (gcsfuse) and give its path."
        )


def check_shared(folder: str | Path) -> None:
    """Rejects a folder that the processes do not share: each host would write a part of the run.

    Raises:
      ConfigError: a bucket's address; some process does not see what process 0 writes.
    """
    check_folder(folder)
    if jax.process_count() == 1:
        return
    token = multihost_utils.broadcast_one_to_all(np.int32(secrets.randbelow(2**31)))
    path = Path(folder) / f".shared-{int(token)}"
    first = jax.process_index() == 0
    if first:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    multihost_utils.sync_global_devices("written")
    seen = multihost_utils.process_allgather(np.int32(path.exists()))
    if first:
        path.unlink()
    if not np.all(seen):
        blind = np.flatnonzero(np.asarray(seen) == 0).tolist()
        raise ConfigError(
            f"{folder} is not the same folder everywhere: processes {blind} do not see what "
            "process 0 writes; give one that all hosts share (NFS, Filestore, a mounted bucket)."
        )
