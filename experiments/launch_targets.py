"""What each place to run on needs: its options, its files, and the command that submits them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from experiments.cli import MISTAKE, STOPPED, USAGE
from experiments.supervise import CACHE, Plan, compiled
from jukejax.config import ConfigError

FINAL = (0, MISTAKE, USAGE, STOPPED)  # exit codes after which nothing is started again


class Job(NamedTuple):
    """What is to be run."""

    preset: str
    workdir: Path
    command: tuple[str, ...]
    steps: int

    @property
    def name(self) -> str:
        """A name that Kubernetes, Google Cloud and SLURM take."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.preset}-{self.workdir.name}".lower()).strip("-")

    def elsewhere(self, python: str) -> str:
        """The command for another machine, as a line of shell."""
        return shlex.join([python, *self.command[1:]])


def keep_compiled(job: Job) -> str:
    """Shell that has compiled programs kept in the workdir, or where the environment says."""
    return f"export {CACHE}=${{{CACHE}:-{shlex.quote(str(compiled(job.workdir)))}}}"


def run_again(job: Job, command: str, restarts: int, stopped: str = "") -> str:
    """Bash that runs a command again as its exit code asks; SIGTERM is passed on to it.

    `stopped` is what to do when it was stopped to be run again; nothing: run it again here.
    """
    final = " | ".join(map(str, FINAL))
    after = f'  if [ "$code" -eq 75 ]; then {stopped}; fi\n' if stopped else ""
    return f"""\
{keep_compiled(job)}
again() {{
  exec {command}
}}

latest() {{ # the newest whole checkpoint
  find {shlex.quote(str(job.workdir))}/checkpoints -maxdepth 1 -regex '.*/[0-9]+' -printf '%f\\n' \\
    2>/dev/null | sort -n | tail -n 1
}}

tries=0 newest=$(latest) child='' asked=''
trap 'asked=yes; [ -z "$child" ] || kill -TERM "$child"' TERM
while true; do
  again &
  child=$!
  wait "$child"
  code=$?
  while kill -0 "$child" 2>/dev/null; do # a signal ended the waiting, not the run
    wait "$child"
    code=$?
  done
  child=''
  case $code in {final}) exit "$code" ;; esac
{after}  [ -z "$asked" ] || exit "$code"
  if [ "$(latest)" != "$newest" ]; then tries=0 newest=$(latest); fi
  tries=$((tries + 1))
  if [ "$tries" -gt {restarts} ]; then
    echo "Given up: {restarts} restarts in a row without a newer checkpoint." >&2
    exit "$code"
  fi
  sleep $((tries < 6 ? 1 << tries : 60))
done
"""


@dataclass(frozen=True)
class Local:
    """Processes on this machine, supervised."""

    processes: int = 1
    """How many."""
    devices: int = 0
    """Virtual CPU devices of each; 0: the machine's own. Needed for more than one process."""
    restarts: int = 10
    """In a row without a newer checkpoint, then it gives up."""
    dry_run: bool = False
    """Print what would be run."""

    def plan(self, job: Job) -> Plan:
        if self.processes > 1 and not self.devices:
            raise ConfigError(
                f"{self.processes} processes cannot share this machine's devices; give --devices, "
                "the number of virtual CPU devices of each, or one process for all devices."
            )
        return Plan(job.command, job.workdir, self.processes, self.devices, self.restarts)


@dataclass(frozen=True)
class Slurm:
    """A batch job for GPUs: a process for each."""

    nodes: int = 1
    gpus: int = 8
    """Of a node."""
    time: str = "24:00:00"
    """Limit; 10 minutes before, the run saves and is queued again."""
    options: tuple[str, ...] = ()
    """More for sbatch: --options=--account=x --options=--partition=y."""
    checkout: Path = Path()
    """This code, on a file system that all nodes share."""
    python: str = "python"
    """An interpreter with everything installed, by its path in the environment of the job."""
    restarts: int = 10
    """In a row without a newer checkpoint, then it gives up."""
    dry_run: bool = False
    """Print the files; write nothing."""

    def files(self, job: Job) -> dict[str, str]:
        logs = job.workdir / "logs"
        options = [
            f"--job-name={job.name}",
            f"--nodes={self.nodes}",
            f"--ntasks-per-node={self.gpus}",
            f"--gpus-per-node={self.gpus}",
            f"--time={self.time}",
            "--signal=TERM@600",
            "--requeue",
            "--open-mode=append",
            f"--output={shlex.quote(str(logs / 'slurm.log'))}",
            *self.options,
        ]
        lines = "\n".join(f"#SBATCH {option}" for option in options)
        srun = (
            "srun --kill-on-bad-exit=1 --open-mode=append "
            f"--output={shlex.quote(str(logs))}/process_%t.log {job.elsewhere(self.python)}"
        )
        requeue = 'scontrol requeue "$SLURM_JOB_ID"; exit 0'
        loop = run_again(job, srun, self.restarts, stopped=requeue)
        script = f"#!/bin/bash\n{lines}\n\nset -u\ncd {_path(self.checkout)} || exit 1\n{loop}"
        return {"job.sbatch": script}

    def submit(self, job: Job, folder: Path) -> str:
        logs = shlex.quote(str(job.workdir / "logs"))
        return f"mkdir -p {logs} && sbatch {shlex.quote(str(folder / 'job.sbatch'))}"


class Tpu(NamedTuple):
    """A generation of chips."""

    gke: str  # node label
    cloud: str  # prefix of accelerator types
    cores: int  # of a chip, as accelerator types count
    runtime: str  # of TPU VMs


TPUS = {
    "v4": Tpu("tpu-v4-podslice", "v4", 2, "tpu-ubuntu2204-base"),
    "v5e": Tpu("tpu-v5-lite-podslice", "v5litepod", 1, "v2-alpha-tpuv5-lite"),
    "v5p": Tpu("tpu-v5p-slice", "v5p", 2, "v2-alpha-tpuv5"),
    "v6e": Tpu("tpu-v6e-slice", "v6e", 1, "v2-alpha-tpuv6e"),
}


def chips(topology: str) -> tuple[Tpu, str, int]:
    """The generation, the shape and the number of chips of a topology such as "v5e:16x16".

    Raises:
      ConfigError: it is none.
    """
    name, _, shape = topology.partition(":")
    dimensions = 2 if name in ("v5e", "v6e") else 3
    if name not in TPUS or not re.fullmatch(r"\d+(x\d+)" + f"{{{dimensions - 1}}}", shape):
        raise ConfigError(
            f"--topology is {topology!r}; give a generation ({', '.join(TPUS)}) and the shape of a "
            "slice, as v5e:16x16 or v5p:4x4x8."
        )
    count = 1
    for size in shape.split("x"):
        count *= int(size)
    if count > 1 and count % 4:
        raise ConfigError(f"--topology {topology} has {count} chips; hosts have four each.")
    return TPUS[name], shape, count


@dataclass(frozen=True)
class Gke:
    """A JobSet for TPU slices of Google Kubernetes Engine."""

    topology: str
    """Of a slice: v5e:16x16."""
    image: str
    """A container with this code installed."""
    claim: str
    """A persistent volume claim that all pods can write (Filestore, a bucket by gcsfuse)."""
    mount: str = "/runs"
    """Where it is mounted; --data and --workdir lie below."""
    slices: int = 1
    restarts: int = 100
    """Of the whole, at most; Kubernetes does not count only those without progress."""
    dry_run: bool = False
    """Print the files; write nothing."""

    def files(self, job: Job) -> dict[str, str]:
        tpu, shape, count = chips(self.topology)
        hosts, per_host = max(1, count // 4), min(count, 4)
        if not str(job.workdir).startswith(self.mount.rstrip("/") + "/"):
            raise ConfigError(f"--workdir {job.workdir} is not below --mount {self.mount}.")
        log = shlex.quote(str(job.workdir / "logs"))
        index = '"${MEGASCALE_SLICE_ID:-0}_${TPU_WORKER_ID:-0}"'
        train = (
            f"{keep_compiled(job)}; mkdir -p {log}; "
            f"exec > >(tee -a {log}/process_{index}.log) 2>&1; "
            f"exec {job.elsewhere('python')}"
        )
        pod = {
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
                    "resources": {"limits": {"google.com/tpu": per_host}},
                    "volumeMounts": [{"name": "runs", "mountPath": self.mount}],
                }
            ],
            "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": self.claim}}],
        }
        mistakes = {"containerName": "train", "operator": "In", "values": list(FINAL[1:])}
        slices = {
            "parallelism": hosts,
            "completions": hosts,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": mistakes}]},
            "template": {"spec": pod},
        }
        given_up = {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
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
                "replicatedJobs": [
                    {"name": "slice", "replicas": self.slices, "template": {"spec": slices}}
                ],
            },
        }
        return {"jobset.yaml": yaml.safe_dump(jobset, sort_keys=False, width=1000)}

    def submit(self, job: Job, folder: Path) -> str:
        return f"kubectl apply -f {shlex.quote(str(folder / 'jobset.yaml'))}"


@dataclass(frozen=True)
class TpuVm:
    """TPU VMs of Google Cloud, asked for by queued resources and started over ssh."""

    topology: str
    """Of a slice: v5e:16x16."""
    zone: str
    slices: int = 1
    spot: bool = False
    """Cheaper chips that may be taken away."""
    setup: str = "true"
    """What each host runs first: mount the shared folder, install. A line of shell."""
    checkout: Path = Path()
    """This code on the hosts, after the setup."""
    python: str = "python3"
    """An interpreter there, with everything installed."""
    restarts: int = 10
    """In a row without a newer checkpoint, then it gives up."""
    dry_run: bool = False
    """Print the files; write nothing."""

    def files(self, job: Job) -> dict[str, str]:
        tpu, _, count = chips(self.topology)
        logs = shlex.quote(str(job.workdir / "logs"))
        command = f'{job.elsewhere(self.python)} >>{logs}/process_"$(hostname)".log 2>&1'
        host = (
            f"#!/bin/bash\nset -u\n{self.setup} || exit 1\nmkdir -p {logs}\n"
            f"cd {_path(self.checkout)} || exit 1\n{run_again(job, command, self.restarts)}"
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


TARGETS: dict[str, Any] = {"local": Local, "tpu-vm": TpuVm, "gke": Gke, "slurm": Slurm}


def _path(path: Path) -> str:
    return shlex.quote(str(path.absolute()))
