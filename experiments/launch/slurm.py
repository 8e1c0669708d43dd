"""SLURM: a batch job for GPUs."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from experiments.launch.job import Job, Target, quoted, run_again


@dataclass(frozen=True, kw_only=True)
class Slurm(Target):
    """A SLURM batch job for GPUs, one process for each.

    Example: jukejax launch prior_5b --on slurm --data D --workdir W --nodes 8
    """

    nodes: int = 1
    """Nodes of the job."""
    gpus: int = 8
    """GPUs of a node."""
    time: str = "24:00:00"
    """Time limit; 10 minutes before it, the run saves and is queued again."""
    options: tuple[str, ...] = ()
    """More options for sbatch: --options=--account=x --options=--partition=y."""
    checkout: Path = Path()
    """This code, on a file system that all nodes share."""
    python: str = "python"
    """An interpreter with everything installed, by its path on the nodes."""

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
            f"--output={shlex.quote(str(logs))}/process_%t.log {job.with_python(self.python)}"
        )
        requeue = 'scontrol requeue "$SLURM_JOB_ID"; exit 0'
        loop = run_again(job, srun, self.restarts, stopped=requeue)
        script = f"#!/bin/bash\n{lines}\n\nset -u\ncd {quoted(self.checkout)} || exit 1\n{loop}"
        return {"job.sbatch": script}

    def submit(self, job: Job, folder: Path) -> str:
        logs = shlex.quote(str(job.workdir / "logs"))
        return f"mkdir -p {logs} && sbatch {shlex.quote(str(folder / 'job.sbatch'))}"
