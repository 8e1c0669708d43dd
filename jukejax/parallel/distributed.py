"""One run on many hosts: finding each other, agreeing to stop, a folder that all of them see.

Every process runs the same command. `start` finds out from the environment whether there are
others, and how many; alone, nothing is started and everything below costs nothing.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
from collections.abc import Mapping
from glob import glob
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jukejax.errors import ConfigError

VARIABLES = {
    "JAX_COORDINATOR_ADDRESS": "host:port of process 0",
    "JAX_NUM_PROCESSES": "how many processes there are",
    "JAX_PROCESS_ID": "which of them this is, from 0",
}
WAIT = 300  # seconds for all processes to come


def find_cluster(environ: Mapping[str, str], tpu_here: bool) -> str | None:
    """Who tells the processes of each other: "variables", "slurm", "gketpu", "gcetpu" or nobody.

    Args:
      environ: the environment's variables.
      tpu_here: whether this machine has TPU chips that JAX may use.

    Raises:
      ConfigError: the environment speaks of many processes, but does not say enough.
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
                "which of them this is; GKE sets both in pods that ask for google.com/tpu."
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
    """Joins the other processes of this run, if there are any; to be called before all else.

    Raises:
      ConfigError: the environment is not clear, or the others did not come.
    """
    found = find_cluster(os.environ, tpu_here(os.environ))
    if found is None:
        return
    # the loop turns SIGTERM into an agreement of its own, which needs no such service
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if found == "variables":
            address, count, index = (os.environ[name] for name in VARIABLES)
            jax.distributed.initialize(
                address, int(count), int(index), initialization_timeout=WAIT,
                cluster_detection_method="deactivate",
            )  # fmt: skip
        else:
            jax.distributed.initialize(cluster_detection_method=found, initialization_timeout=WAIT)
    except (ValueError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"The processes of this run did not find each other ({found}): "
            f"{str(error).splitlines()[0]} Check that all of them were started, that each can "
            "reach process 0, and that no proxy stands between them; a single host with TPUs that "
            "is no Cloud TPU VM needs TPU_SKIP_MDS_QUERY=1."
        ) from error


class Agreement:
    """A number that every process puts in at every step; all get the largest, one step later.

    It travels between devices like a gradient, and is read when the next step has been handed
    over, so that devices are never left waiting.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._sharding = NamedSharding(mesh, P(mesh.axis_names))
        whole = NamedSharding(mesh, P())
        self._largest = jax.jit(jnp.max, out_shardings=whole)
        self._size = mesh.size
        self._last: jax.Array | int = 0

    def __call__(self, number: int) -> int:
        """The largest number of the call before (0 at first); alone, of this call."""
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
    """Global arrays as every process can read them: with several, whole and as NumPy."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda x: multihost_utils.process_allgather(x, tiled=True), tree)


def together(what: str) -> None:
    """Waits until all processes are here; `what` is the same in all of them."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def check_folder(folder: str | Path) -> None:
    """Refuses a bucket's address, which as a path would be a folder here of that name.

    Raises:
      ConfigError: gs://... or the like.
    """
    if re.match(r"\w+:/", str(folder)):  # a Path has lost one of the two slashes
        raise ConfigError(f"{folder} is no folder; mount the bucket (gcsfuse) and give its path.")


def check_shared(folder: str | Path) -> None:
    """Refuses a folder that the processes do not share: each host would have a part of the run.

    Raises:
      ConfigError: a bucket's address; some process does not see what the first one writes.
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
