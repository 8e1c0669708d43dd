"""Every command that writes, on tiny inputs: what it reads, its command lines, what it leaves.

Commands run in forks of a server (`command_server.py`): importing takes longer than their work.
"""

import contextlib
import dataclasses
import json
import os
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import openai_files
import processes
import soundfile
import tiny_model

from data_pipeline import prepare
from data_pipeline.plan import Options
from jukejax import exit_codes
from jukejax.config import LabelsConfig, PriorConfig, UpperConfig, VQVAEConfig

RATE = tiny_model.RATE
_VQVAE = (
    "--model.sample-rate 8000 --model.downs 2 1 1 --model.multipliers 1 1 1 --model.width 4 "
    "--model.depth 1 --model.emb-width 4 --model.codes 11 --samples 512"
)
_TRAIN = (
    "--train.batch 4 --train.steps 8 --optimizer.decay-steps 8 --train.log-every 2 "
    "--train.evaluate-every 4 --train.evaluate-batches 1 --train.checkpoint-every 2"
)
_DRAWN = "--hop-fraction .5 .5 .5 --temperature 3 3 3"
_LABELS = "--artist ella --genre jazz"
_SONG = f"--song @/song {_DRAWN} --model %/model"
LINES = {
    "prepare scan": ["prepare scan %/sounds --out @/songs.jsonl"],
    "prepare build": ["prepare build --manifest %/songs.jsonl --out @/songs --sample-rate 8000"],
    "prepare report": ["prepare report --data %/songs --out @/report"],
    "align": ["align --manifest %/sung.jsonl --out @/aligned.jsonl"],
    "encode": ["encode --vqvae %/vqvae --data %/songs --out @/codes --passes 2"],
    "train vqvae": [f"train demo_vqvae --data %/songs --workdir @/run {_VQVAE} {_TRAIN}"],
    "train prior": [
        f"train %/prior_2 --data %/codes --workdir @/run --labels %/labels.json {_TRAIN}"
    ],
    "finetune": [
        "finetune --model %/model --songs %/sounds --artist nina --levels 2 --steps 4 --batch 4 "
        "--out @/tuned"
    ],
    "labels grow": ["labels grow --labels %/labels.json --data %/songs --out @/grown.json"],
    "model make": [
        "model make --vqvae %/vqvae --priors %/prior_2 %/prior_1 %/prior_0 --labels %/labels.json "
        "--out @/model"
    ],
    "model ship": ["model ship %/model --card %/card.md --out @/shipped"],
    "sample": [f"sample --model %/model --out @/song {_LABELS} --seconds 0.1 --count 2 {_DRAWN}"],
    "sample segments": [
        f"sample --model %/model --out @/song {_LABELS} --seconds 0.3 {_DRAWN} "
        "--parallel-segments 3"
    ],
    "compose": [
        f"compose begin {_SONG} {_LABELS} --seconds .05 --total-seconds 1 --candidates 2",
        "compose extend --song @/song --node 1 --item 1 --seconds .05 --candidates 2",
        "compose upsample --song @/song --node 2 --item 0",
    ],
    "evaluate": [
        "evaluate reconstruction likelihood --model %/model --songs %/songs --codes %/codes "
        "--out @/evaluation",
    ],
    "evaluate compare": ["evaluate compare %/evaluation %/evaluation --out @/compared"],
    "evaluate explorer": ["evaluate explorer %/sample %/evaluation --out @/site"],
    "convert import": [
        "convert import --format openai --vqvae %/files/vqvae.pth.tar --prior "
        "%/files/prior_level_2.pth.tar %/files/prior_level_1.pth.tar --out @/imported",
    ],
    **{
        f"export {name}": [f"convert export --format {name} --model %/imported --out @/{name}"]
        for name in ("openai", "huggingface", "stablehlo")
    },
}  # fmt: skip
# Sentences of a command that had finished before it was killed, and refuses to overwrite its work.
FINISHED = "exists already|is not empty"


def write_inputs(folder):
    """All that the commands read, as `LINES` names it with %."""
    sounds = folder / "sounds"
    sounds.mkdir(parents=True)
    rng, entries = np.random.default_rng(0), []
    for i in range(6):
        time = np.arange(RATE + 1000 * i)[:, None] / RATE
        sound = 0.3 * np.sin(2 * np.pi * 220 * (i + 1) * time) + 0.05 * rng.normal(size=(1, 2))
        soundfile.write(sounds / f"{i}.wav", np.broadcast_to(sound, (len(time), 2)), RATE)
        (sounds / f"{i}.txt").write_text(f"la la {i}\n")
        entry = {"id": str(i), "audio": f"sounds/{i}.wav", "artist": f"artist {i}"}
        entries.append(entry | {"genres": ["jazz"], "split": "test" if i > 3 else "train"})
    lines = [json.dumps(entry) + "\n" for entry in entries]
    (folder / "songs.jsonl").write_text("".join(lines))
    lines = [json.dumps(entry | {"lyrics": "la la"}) + "\n" for entry in entries[:3]]
    (folder / "sung.jsonl").write_text("".join(lines))
    tiny_model.write(folder)
    (folder / "card.md").write_text("# Tiny\n")
    options = Options(min_seconds=0, sample_rate=RATE)
    prepare.build(folder / "songs.jsonl", folder / "songs", options=options, show_progress=False)
    vqvae = VQVAEConfig(
        downs=(1, 1, 1), multipliers=(2, 1, 1), width=4, depth=1, emb_width=4, codes=16
    )
    labels = LabelsConfig(artists=5, genres=3, max_genres=2)
    top = PriorConfig(
        codes=16, n_ctx=16, width=8, heads=2, blocks=4, depth=3, labels=labels, layers="tuned",
        level=2, hop=8,
    )  # fmt: skip
    upper = UpperConfig(ratio=2, width=4, depth=2)
    middle = dataclasses.replace(top, level=1, hop=4, upper=upper)
    (folder / "files").mkdir()
    openai_files.write_release(folder / "files", vqvae, {2: top, 1: middle})


class Server:
    """Runs the commands of `LINES`, one after another."""

    def __init__(self, inputs, cache):
        """Makes the inputs that commands make themselves: codes, an evaluation, a sample."""
        self.inputs = inputs
        keep = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": 0}
        keep |= {"JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": -1, "PYTHONUNBUFFERED": 1}
        program = Path(__file__).with_name("command_server.py")
        self.process = subprocess.Popen(
            [sys.executable, str(program)], env=processes.environment(1, **keep),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._answer() == "ready"
        for name, target in (
            ("encode", "codes"), ("evaluate", "evaluation"), ("sample", "sample"),
            ("convert import", "imported"),
        ):  # fmt: skip
            made = self.inputs / "making"
            assert self.run(name, made) == 0, self.log(made)
            next(made.iterdir()).rename(inputs / target)
            shutil.rmtree(made)

    def run(self, name, out, kill_after=None):
        """Runs a command into a folder `out`; its exit status, -9 where it was killed.

        Args:
          kill_after: seconds after which the process and its workers get SIGKILL.
        """
        out.mkdir(exist_ok=True)
        lines = [line.replace("%", str(self.inputs)).replace("@", str(out)) for line in LINES[name]]
        request = {"lines": [line.split() for line in lines], "log": str(log_file(out))}
        log_file(out).unlink(missing_ok=True)
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        child = int(self._answer())
        if kill_after is not None:
            ended, *_ = select.select([self.process.stdout], [], [], kill_after)
            if not ended:
                os.kill(child, signal.SIGKILL)
                with contextlib.suppress(OSError):
                    os.killpg(child, signal.SIGKILL)
        return int(self._answer())

    def log(self, out):
        """All that the last command into `out` printed."""
        return log_file(out).read_text(errors="replace")

    def _answer(self):
        line = self.process.stdout.readline().strip()
        assert line, "the server of commands has ended"
        return line

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def log_file(out):
    return out.with_name(f"{out.name}.log")


# --- what commands leave --------------------------------------------------------------------------

_ASIDE = ("index.html", "starts.jsonl")
_TIMES = {
    "created", "seconds_to_sample", "steps", "cost", "made", "time", "measured_now", "run",
}  # fmt: skip


def contents(out):
    """What a command left in a folder, by path: bytes, JSON without times, arrays of checkpoints.

    Without pages that show times, what TensorBoard reads, the list of a run's starts, and names of
    runs, which are random.
    """
    found = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.is_dir() or "/tensorboard/" in f"/{name}" or path.name in _ASIDE:
            continue
        if "/checkpoints/" in f"/{name}":
            continue
        if path.suffix in (".json", ".jsonl") and path.name != "songs.jsonl":
            found[name] = [_untimed(json.loads(line)) for line in _objects(path)]
        elif path.suffix == ".sqlite":
            query = "select id, state, loudness, digest from songs order by id"
            with contextlib.closing(sqlite3.connect(path)) as database:
                found[name] = database.execute(query).fetchall()
        else:
            found[name] = path.read_bytes().replace(str(out).encode(), b"@")
    for folder in sorted(out.rglob("checkpoints")):
        steps = sorted(int(x.name) for x in folder.iterdir() if x.name.isdigit())
        others = [x.name for x in folder.iterdir() if not x.name.isdigit()]
        name = str(folder.relative_to(out))
        found[name] = [steps, sorted(others), _arrays(processes.saved(folder.parent)[1])]
    return found


def _objects(path):
    text = path.read_text(encoding="utf-8")
    return text.splitlines() if path.suffix == ".jsonl" else [text]


def _untimed(value):
    if isinstance(value, dict):
        kept = {k: _untimed(v) for k, v in value.items() if k not in _TIMES}
        return {k: v for k, v in kept.items() if not re.match("time/|memory/", k)}
    return [_untimed(x) for x in value] if isinstance(value, list) else value


def _arrays(tree):
    if isinstance(tree, dict):
        return {name: _arrays(x) for name, x in tree.items()}
    if isinstance(tree, list | tuple):
        return [_arrays(x) for x in tree]
    return np.asarray(tree).tobytes()


def target(name, out):
    """What a command writes in a folder `out`, and whether it appears when it is complete."""
    path = Path(re.search(r"@(\S+)", LINES[name][0])[0].replace("@", str(out)))
    appears = path.suffix or name.startswith(("export", "convert", "model ship"))
    return path, bool(appears)


def check_ending(server, status, out):
    """Asserts that a command that was not killed ended well, or had already finished."""
    log = server.log(out)
    assert status in (exit_codes.DONE, exit_codes.MISTAKE), log
    if status == exit_codes.MISTAKE:
        assert re.search(FINISHED, log) and "Traceback" not in log, log
