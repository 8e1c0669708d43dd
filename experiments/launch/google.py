"""Google Cloud: TPU slices in Kubernetes (GKE), and TPU VMs over ssh."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from experiments.launch.job import FINAL, Job, Target, keep_compiled, quoted, run_again
from jukejax.config import ConfigError


class Tpu(NamedTuple):
    """A generation of TPU chips, in Google Cloud's names."""

    gke: str  # node label in Kubernetes
    cloud: str  # prefix of accelerator types
    cores: int  # cores of a chip, as accelerator types count them
    runtime: str  # software version of TPU VMs


TPUS = {
    "v4": Tpu("tpu-v4-podslice", "v4", 2, "tpu-ubuntu2204-base"),
    "v5e": Tpu("tpu-v5-lite-podslice", "v5litepod", 1, "v2-alpha-tpuv5-lite"),
    "v5p": Tpu("tpu-v5p-slice", "v5p", 2, "v2-alpha-tpuv5"),
    "v6e": Tpu("tpu-v6e-slice", "v6e", 1, "v2-alpha-tpuv6e"),
}


def chips(topology: str) -> tuple[Tpu, str, int]:
    """The generation, the shape and the number of chips of a topology such as "v5e:16x16".

    Raises:
      ConfigError: there is no such generation or shape.
    """
    name, _, shape = topology.partition(":")
    dimensions = 2 if name in ("v5e", "v6e") else 3
    if name not in TPUS or not re.fullmatch(r"\d+(x\d+)" + f"{{{dimensions - 1}}}", shape):
        raise ConfigError(
            f"--topology is {topology!r}; give a generation ({', '.join(TPUS)}) and the shape of a "
            "slice, as v5e:16x16 or v5p:4x4x8."
        )
    count = math.prod(map(int, shape.split("x")))
    if count > 1 and count % 4:
        raise ConfigError(f"--topology {topology} has {count} chips; a host has four.")
    return TPUS[name], shape, count


@dataclass(frozen=True, kw_only=True)
class Gke(Target):
    """A JobSet for TPU slices of Google Kubernetes Engine.

    Example: jukejax launch prior_5b --on gke --data D --workdir W --topology v5e:16x16 --image I
    --claim C
    """

    topology: str
    """Chips and shape of a slice: v5e:16x16."""
    image: str
    """A container with this code installed."""
    claim: str
    """A persistent volume claim that all pods can write to (Filestore, a bucket by gcsfuse)."""
    mount: str = "/runs"
    """Where it is mounted; --data and --workdir are below it."""
    slices: int = 1
    """Slices of that shape."""
    restarts: int = 100
    """Restarts of the JobSet in all: Kubernetes cannot count only those without a checkpoint."""

    def files(self, job: Job) -> dict[str, str]:
        if not str(job.workdir).startswith(self.mount.rstrip("/") + "/"):
            raise ConfigError(f"--workdir {job.workdir} is not below --mount {self.mount}.")
        given_up = {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
        slices = {"name": "slice", "replicas": self.slices, "template": {"spec": self._slice(job)}}
        jobset = {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {
                "name": job.name,
                "annotations": {
                    "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
                },
            },
            "spec": {
                "failurePolicy": {"maxRestarts": self.restarts, "rules": [given_up]},
                "replicatedJobs": [slices],
            },
        }
        return {"jobset.yaml": yaml.safe_dump(jobset, sort_keys=False, width=1000)}

    def _slice(self, job: Job) -> dict[str, Any]:
        """The Kubernetes job of a slice: one pod a host; codes of a mistake end the JobSet."""
        hosts = max(1, chips(self.topology)[2] // 4)
        mistakes = {"containerName": "train", "operator": "In", "values": list(FINAL[1:])}
        return {
            "parallelism": hosts,
            "completions": hosts,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": mistakes}]},
            "template": {"spec": self._pod(job)},
        }

    def _pod(self, job: Job) -> dict[str, Any]:
        """A host's pod."""
        tpu, shape, count = chips(self.topology)
        log = shlex.quote(str(job.workdir / "logs"))
        index = '"${MEGASCALE_SLICE_ID:-0}_${TPU_WORKER_ID:-0}"'
        train = (
            f"{keep_compiled(job)}; mkdir -p {log}; "
            f"exec > >(tee -a {log}/process_{index}.log) 2>&1; "
            f"exec {job.with_python('python')}"
        )
        return {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 600,
            "nodeSelector": {
                "cloud.google.com/gke-tpu-accelerator": tpu.gke,
                "cloud.google.com/gke-tpu-topology": shape,
            },
            "containers": [
                {
                    "name": "train",
                    "image": self.image,
                    "ports": [{"containerPort": port} for port in (8471, 8482, 8080)],
                    "command": ["bash", "-c", train],
                    "resources": {"limits": {"google.com/tpu": min(count, 4)}},
                    "volumeMounts": [{"name": "runs", "mountPath": self.mount}],
                }
            ],
            "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": self.claim}}],
        }

    def submit(self, job: Job, folder: Path) -> str:
        return f"kubectl apply -f {shlex.quote(str(folder / 'jobset.yaml'))}"


@dataclass(frozen=True, kw_only=True)
class TpuVm(Target):
    """TPU VMs of Google Cloud, requested as queued resources and started over ssh.

    Example: jukejax launch prior_5b --on tpu-vm --data D --workdir W --topology v5e:16x16
    --zone us-east5-a
    """

    topology: str
    """Chips and shape of a slice: v5e:16x16."""
    zone: str
    """Google Cloud's zone."""
    slices: int = 1
    """Slices of that shape."""
    spot: bool = False
    """Cheaper chips that may be taken away."""
    setup: str = "true"
    """A line of shell that each host runs first: mount the shared folder, install."""
    checkout: Path = Path()
    """This code on the hosts, after the setup."""
    python: str = "python3"
    """An interpreter on the hosts with everything installed."""

    def files(self, job: Job) -> dict[str, str]:
        tpu, _, count = chips(self.topology)
        logs = shlex.quote(str(job.workdir / "logs"))
        command = f'{job.with_python(self.python)} >>{logs}/process_"$(hostname)".log 2>&1'
        host = (
            f"#!/bin/bash\nset -u\n{self.setup} || exit 1\nmkdir -p {logs}\n"
            f"cd {quoted(self.checkout)} || exit 1\n{run_again(job, command, self.restarts)}"
        )
        nodes = [f"--node-count={self.slices}", f"--node-prefix={job.name}"]
        create = [
            "gcloud", "compute", "tpus", "queued-resources", "create", job.name,
            f"--zone={self.zone}", f"--accelerator-type={tpu.cloud}-{count * tpu.cores}",
            f"--runtime-version={tpu.runtime}",
            *(nodes if self.slices > 1 else [f"--node-id={job.name}"]),
            *(["--spot"] if self.spot else []),
        ]  # fmt: skip
        names = [f"{job.name}-{i}" for i in range(self.slices)] if self.slices > 1 else [job.name]
        describe = (
            f"gcloud compute tpus queued-resources describe {job.name} --zone={self.zone} "
            "--format='value(state.state)'"
        )
        to_all = f"--zone={self.zone} --worker=all"
        start = "nohup bash host.sh >host.log 2>&1 </dev/null &"
        lines = [
            "#!/bin/bash",
            "set -eu",
            'cd "$(dirname "$0")"',
            shlex.join(create),
            f'until [ "$({describe})" = ACTIVE ]; do sleep 30; done',
            f"for node in {' '.join(names)}; do",
            f'  gcloud compute tpus tpu-vm scp host.sh "$node": {to_all}',
            f'  gcloud compute tpus tpu-vm ssh "$node" {to_all} --command={shlex.quote(start)}',
            "done",
        ]
        return {"host.sh": host, "launch.sh": "\n".join(lines) + "\n"}

    def submit(self, job: Job, folder: Path) -> str:
        return f"bash {shlex.quote(str(folder / 'launch.sh'))}"
