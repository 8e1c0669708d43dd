"""What is launched, and the shell that restarts it: shared by all targets."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jukejax.exit_codes import DONE, MISTAKE, RUN_AGAIN, STOPPED, USAGE

FINAL = (DONE, MISTAKE, USAGE, STOPPED)  # exit codes after which nothing is restarted
CACHE = "JAX_COMPILATION_CACHE_DIR"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Options of every target."""

    restarts: int = 10
    """Give up after this many in a row without a newer checkpoint."""
    dry_run: bool = False
    """Print what would be run or written, and do nothing."""


class Job(NamedTuple):
    """The training command to launch."""

    preset: str
    workdir: Path
    command: tuple[str, ...]

    @property
    def name(self) -> str:
        """A name that Kubernetes, Google Cloud and SLURM accept."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.preset}-{self.workdir.name}".lower()).strip("-")

    def with_python(self, python: str) -> str:
        """The command with another machine's interpreter, as a line of shell."""
        return shlex.join([python, *self.command[1:]])


def compiled(workdir: Path) -> Path:
    """Where a run's compiled programs are cached, so that a restart need not compile again."""
    return workdir / "compiled"


def quoted(path: Path) -> str:
    """An absolute path for a line of shell."""
    return shlex.quote(str(path.absolute()))


def keep_compiled(job: Job) -> str:
    """Shell that caches compiled programs in the workdir, unless the environment says where."""
    return f"export {CACHE}=${{{CACHE}:-{shlex.quote(str(compiled(job.workdir)))}}}"


def run_again(job: Job, command: str, restarts: int, stopped: str = "") -> str:
    """Bash that reruns a command as its exit code asks; SIGTERM is passed on to it.

    Args:
      stopped: shell to run when the command was stopped by SIGTERM and asks to be rerun; empty:
        rerun it here.
    """
    final = " | ".join(map(str, FINAL))
    after = f'  if [ "$code" -eq {RUN_AGAIN} ]; then {stopped}; fi\n' if stopped else ""
    return f"""\
{keep_compiled(job)}
again() {{
  exec {command}
}}

latest() {{ # the newest complete checkpoint
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
  while [ "$code" -gt 128 ]; do # a signal ended the wait, or the run
    wait "$child" 2>/dev/null
    status=$?
    [ "$status" -eq 127 ] || code=$status # 127: it was waited for
    kill -0 "$child" 2>/dev/null || break
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
